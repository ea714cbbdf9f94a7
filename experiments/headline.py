"""The figure of a study with its ideal learner and the paper's curve, a panel for each cell.

    python experiments/headline.py fig5      results/fig5 and results/fig5-ideal -> results/fig5/headline.png

Lines are means over seeds, bands their range. What was not computed is not drawn.
"""

import argparse
import csv
from itertools import groupby
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
LEARNERS = (("", "network", "#D55E00"), ("-ideal", "ideal learner", "#0072B2"))
Curve = dict[str, list[float]]


def curves(folder: Path) -> dict[str, Curve]:
    """By cell, the columns of `retention.csv`; the paper's only as far as it goes."""
    path = folder / "retention.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        by_cell = {cell: list(rows) for cell, rows in groupby(csv.DictReader(file), key=lambda row: row["cell"])}
    columns = ("generation", "seeds", "mean", "lowest", "highest", "paper")
    return {
        cell: {column: [float(row[column]) for row in rows if row[column]] for column in columns}
        for cell, rows in by_cell.items()
    }


def draw(study: str) -> Path:
    found = {label: curves(RESULTS / f"{study}{suffix}") for suffix, label, _ in LEARNERS}
    cells = sorted({cell for of_learner in found.values() for cell in of_learner})
    if not cells:
        raise SystemExit(f"no results of {study!r} in {RESULTS}; make figure FIGURE={study} computes them")
    figure = Figure(figsize=(2.5 * len(cells), 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axes, cell in zip(panels, cells, strict=True):
        for _, label, color in LEARNERS:
            if curve := found[label].get(cell):
                t = curve["generation"]
                axes.fill_between(t, curve["lowest"], curve["highest"], color=color, alpha=0.2, linewidth=0)
                axes.plot(t, curve["mean"], color=color, label=label)
        paper = max((of_learner[cell]["paper"] for of_learner in found.values() if cell in of_learner), key=len)
        axes.plot(range(len(paper)), paper, ":", color="#444444", label="paper, one run")
        axes.set(title=cell, xlabel="generation", ylim=(0, 1.05))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    lines = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    panels[0].set_ylabel("diversity, portion of D_0's")
    path = RESULTS / study / "headline.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the preset of a figure, such as fig5")
    print(draw(parser.parse_args().study))
