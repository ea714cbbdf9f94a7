"""The figures of a report as PNG, for talks and papers: drawn from the same tables as the page's."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from ouroloop.report.tables import Table

# Okabe and Ito's colours, which colour-blind readers tell apart; marks and dashes help them too
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS, _DASHES = "os^Dxv", ("-", "--", ":", "-.")
_PARTS = {"True": "#009E73", "False": "#E69F00", "malformed": "#999999"}
_HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#56B4E9", "#004E86"])

Row = dict[str, Any]


def pictures(tables: Mapping[str, Table]) -> dict[str, bytes]:
    """A PNG for each figure that has something to show, by the name of its table."""
    draw = {
        "retention": _retention,
        "half_life": _half_life,
        "composition": _composition,
        "unique": _unique,
        "depth": _depth,
    }
    return {name: _png(draw[name](_rows(tables[name]))) for name in draw if tables[name].rows}


def _rows(table: Table) -> list[Row]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _by(rows: Iterable[Row], key: str) -> list[tuple[str, list[Row]]]:
    return [(str(name), list(group)) for name, group in groupby(rows, key=lambda row: row[key])]


def _column(rows: Iterable[Row], key: str) -> list[Any]:
    return [row[key] for row in rows]


def _measured(rows: Iterable[Row], *keys: str) -> list[Row]:
    return [row for row in rows if all(row[key] != "" for key in keys)]


def _look(number: int) -> dict[str, Any]:
    return {
        "color": _COLORS[number % len(_COLORS)],
        "marker": _MARKS[number % len(_MARKS)],
        "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)],
    }


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _retention(rows: list[Row]) -> Figure:
    figure = _figure(8, 4.6)
    axes = figure.subplots()
    for i, (cell, own) in enumerate(_by(rows, "cell")):
        look, t = _look(i), _column(own, "generation")
        if any(row["seeds"] > 1 for row in own):
            axes.fill_between(
                t, _column(own, "lowest"), _column(own, "highest"), color=look["color"], alpha=0.18, linewidth=0
            )
        axes.plot(t, _column(own, "mean"), label=cell, markevery=max(1, len(t) // 12), markersize=4.5, **look)
        paper = _measured(own, "paper")
        if paper:
            label = f"paper, {cell}"
            axes.plot(_column(paper, "generation"), _column(paper, "paper"), ":", color=look["color"], label=label)
    axes.set(xlabel="generation", ylabel="diversity, portion of D_0's", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    _finish(axes)
    return figure


def _half_life(rows: list[Row]) -> Figure:
    """A filled mark for each loop, an open one where half was not lost; loops without λ stand aside."""
    figure = _figure(6, 4.2)
    axes = figure.subplots()
    known = [row["proportion"] for row in rows if row["proportion"] != ""]
    aside = max(known, default=0.0) + 0.15
    for i, (cycle, own) in enumerate(_by(rows, "cycle")):
        look = _look(i)
        for row in own:
            x = aside if row["proportion"] == "" else row["proportion"]
            is_reached = row["half_life"] != ""
            y, marker = (row["half_life"], look["marker"]) if is_reached else (row["reached"], "^")
            axes.plot(x, y, marker=marker, color=look["color"], fillstyle="full" if is_reached else "none")
        axes.plot([], [], marker=look["marker"], color=look["color"], linestyle="", label=cycle)
        paper = sorted({(row["proportion"], row["paper"]) for row in _measured(own, "paper", "proportion")})
        if paper:
            axes.plot(*zip(*paper, strict=True), ":", color=look["color"], label=f"paper, {cycle}")
    axes.plot([], [], "^", fillstyle="none", color="grey", label="not lost when it ended")
    if len(known) < len(rows):
        axes.axvline(aside - 0.07, color="lightgrey")
        axes.text(aside, 0, "no λ", ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="synthetic proportion λ", ylabel="half of diversity gone at generation", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    _finish(axes)
    return figure


def _composition(rows: list[Row]) -> Figure:
    cells = _by(rows, "cell")
    wide = min(4, len(cells))
    tall = -(-len(cells) // wide)
    figure = _figure(max(5.0, 3.2 * wide), 2.6 * tall + 0.5)
    grid = figure.subplots(tall, wide, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(cells) :]:
        axes.remove()
    for axes, (cell, own) in zip(grid.flat, cells, strict=False):
        t = _column(own, "generation")
        axes.stackplot(t, [_column(own, part) for part in _PARTS], labels=list(_PARTS), colors=list(_PARTS.values()))
        paper = _measured(own, "paper_True")
        if paper:
            axes.plot(_column(paper, "generation"), _column(paper, "paper_True"), "k:", label="paper, True")
        axes.set(title=cell, ylim=(0, 1), xlim=(0, max(1, *t)))
        axes.title.set_fontsize(9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _unique(rows: list[Row]) -> Figure:
    figure = _figure(6, 4.2)
    axes = figure.subplots()
    for i, (cell, own) in enumerate(_by(rows, "cell")):
        look = _look(i)
        x, y = _column(own, "diversity_retention"), _column(own, "unique_fraction")
        axes.plot(x, y, label=cell, markersize=3.5, **look)
        paper = _measured(own, "paper_unique_fraction")
        if paper:
            x, y = _column(paper, "paper_diversity_retention"), _column(paper, "paper_unique_fraction")
            axes.plot(x, y, ":", color=look["color"], label=f"paper, {cell}")
    axes.set(yscale="log", xlabel="diversity kept, portion of D_0's", ylabel="distinct texts / all sampled")
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=8)
    _finish(axes)
    return figure


def _depth(rows: list[Row]) -> Figure:
    """A block for each loop, its shallowest texts on top; one image, since many panels take seconds."""
    loops = _by(rows, "loop")
    levels = sorted({row["depth"] for row in rows}, key=lambda level: (level == "malformed", level.zfill(4)))
    height = len(levels) + 1
    shares = np.full((len(loops) * height - 1, 1 + max(_column(rows, "generation"))), np.nan)
    for i, (_, own) in enumerate(loops):
        shares[i * height : (i + 1) * height - 1] = 0.0
        for row in own:
            shares[i * height + levels.index(row["depth"]), row["generation"]] = row["share"]
    figure = _figure(8, 1 + max(2.0, 0.1 * len(shares)))
    axes = figure.subplots()
    image = axes.imshow(shares, aspect="auto", cmap=_HEAT, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, label="share of texts")
    if len(loops) == 1:
        axes.set_yticks(range(len(levels)), levels, fontsize=8)
        axes.set_ylabel("depth")
    else:
        axes.set_yticks([(i + 0.5) * height - 1 for i in range(len(loops))], [name for name, _ in loops], fontsize=7)
        axes.set_title(f"depth, from the top: {', '.join(levels)}", fontsize=9)
    axes.set_xlabel("generation")
    return figure
