"""Read a report's folder back, and write its findings and figures anew without the store.

    python -m ouroloop.report.archive experiments/results/fig5 ...
    python -m ouroloop.report.archive experiments/results/fig6 --join ELSEWHERE/fig6 ...

The CSV files hold everything that was measured, so findings, intervals and pictures follow from them. Where a folder
of the same name with `-ideal` stands beside it, the two are drawn into one figure, `headline.png`. A single table can
be drawn too: one of what is kept, like `retention.csv`, or one of depths, like `depth_by_method.csv`.

A study that was computed in parts, on machines that share no store, is joined from their folders.
"""

import argparse
import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import yaml
from pydantic import ValidationError

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.record.history import Written
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report import methods
from ouroloop.report.figures import drawings, headline
from ouroloop.report.findings import findings_json
from ouroloop.report.panels import drawing
from ouroloop.report.render import png, svg
from ouroloop.report.results import SPANNED, Loop, Results, all_values, in_order
from ouroloop.report.tables import figure_tables, frame, write_csv


def read_csv(path: Path) -> pd.DataFrame:
    """A table of a report as it was written: texts stay texts, numbers numbers, and what is missing is None."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *lines = csv.reader(file)
    kinds = [str if column in _TEXTS else _number for column in columns]
    return frame(columns, [[kind(value) for kind, value in zip(kinds, line, strict=True)] for line in lines])


def _number(value: str) -> int | float | None:
    if not value:
        return None
    return int(value) if value.isdecimal() else float(value)


_TEXTS = (
    "cell",
    "loop",
    "seed",
    "method",
    "depth",
    "verdict",
    "expression",
    "text",
    "measure",
    "title",
    "cycle",
    "state",
    "commit",
    "run",
)


def _configuration(folder: Path) -> dict[str, str]:
    return dict(yaml.safe_load((folder / "configuration.yaml").read_text(encoding="utf-8")))


def read_folder(folder: Path) -> Results:
    """A study's results as its CSV files have them; without its runs, so texts and models cannot be asked for."""
    loops, metrics = read_csv(folder / "loops.csv"), read_csv(folder / "metrics.csv")
    configuration = _configuration(folder)
    lives = {row["loop"]: row for row in read_csv(folder / "half_life.csv").to_dict("records")}
    written, found = _written(folder), []
    for row in loops.to_dict("records"):
        own = metrics[metrics["loop"] == row["loop"]]
        history = {
            key: {t: float(v) for t, v in zip(own["generation"], own[key], strict=True) if v is not None}
            for key in own.columns[3:]
        }
        life = lives.get(row["loop"])
        found.append(_loop(row, history, written.get(row["loop"], {}), life, configuration))
    return Results(folder.name, None, found)


def _loop(row: dict[str, Any], history: Any, written: Any, life: Any, configuration: dict[str, str]) -> Loop:
    tags = {"seed": row["seed"], "commit": row["commit"]}
    tags |= {"pruned": "yes"} if row["state"] == "ended early" else {}
    if life is not None:
        proportion = "none" if life["proportion"] is None else str(life["proportion"])
        tags |= {"cycle": life["cycle"].replace(" ", "_"), "synthetic_proportion": proportion}
    data = SimpleNamespace(tags={f"ouroloop.{key}": value for key, value in tags.items()}, params={}, metrics={})
    info = SimpleNamespace(run_name=row["loop"], status="KILLED" if "pruned" in tags else row["state"].upper())
    run = Run(cast(Store, None), row["run"], cast(Any, SimpleNamespace(info=info, data=data)))
    return Loop(
        run, row["cell"], {k: v for k, v in history.items() if v}, written, _config(configuration, tags, row["cell"])
    )


_AS_THE_PAPER = {
    "curation.steps": "[]",
    "train.targets": "tokens",
    "train.start": "scratch",
    "train.loss_temperature": "1.0",
}
_NO_MATTER = {"num_generations": 1, "model": {"kind": "empirical"}, "train": None}  # required, and of no matter here


def _config(configuration: dict[str, str], tags: dict[str, Any], cell: str) -> LoopConfig | None:
    """A loop's configuration, as far as it decides which of the paper's runs stands beside it.

    Where loops differ in a field, its value is what their cell's name says; None where that says nothing, and where
    some learn logic as the paper's do not.
    """
    is_logic = configuration.get("data.kind", "logic") == "logic"
    if is_logic and any(configuration.get(key, usual) != usual for key, usual in _AS_THE_PAPER.items()):
        return None
    kept = ("data", "cycle", "sampling")
    sections: dict[str, dict[str, Any]] = {key: {} for key in kept}
    said = dict(part.split(" = ", 1) for part in cell.split(", ") if " = " in part)
    for key, values in configuration.items():
        section, _, field = key.partition(".")
        if section not in kept or (section == "cycle" and ", " in values):
            continue
        value = said.get("T" if field == "temperature" else field) if ", " in values else values
        if value is None:
            return None
        sections[section][field] = yaml.safe_load("null" if value == "None" else value)
    if "cycle" in tags:
        λ = tags["synthetic_proportion"]
        takes = DataCycle(tags["cycle"]).takes_proportion
        sections["cycle"] = {"kind": tags["cycle"], "synthetic_proportion": float(λ) if takes else None}
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of names that are no longer in use
            return LoopConfig.model_validate(sections | _NO_MATTER)
    except ValidationError:
        return None


def _written(folder: Path) -> dict[str, dict[int, Written]]:
    texts: dict[tuple[str, int], list[Any]] = {}
    table = next(path for name in ("expressions", "texts") if (path := folder / f"{name}.csv").exists())
    for row in read_csv(table).itertuples(index=False):
        *said, text = row[5:]
        own = [int(value) if str(value).isdecimal() else value for value in said]
        texts.setdefault((row.loop, row.generation), []).append((row[3], row[4], *own, text))
    return {
        loop: {t: Written(own, {}) for (name, t), own in texts.items() if name == loop}
        for loop in dict.fromkeys(name for name, _ in texts)
    }


def redraw(folder: Path) -> None:
    """Write the findings, what is computed over seeds, and the pictures of a report's folder anew."""
    results = read_folder(folder)
    tables = figure_tables(results)
    if "depth" in tables:  # the folder has only shares of it
        tables["depth"] = read_csv(folder / "depth.csv")
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
    (folder / "findings.json").write_text(findings_json(results), encoding="utf-8")
    for name, drawn in (drawings(tables) | drawing(tables)).items():
        (folder / f"{name}.png").write_bytes(png(drawn))
    draw_headline(folder)


def join(folder: Path, others: Sequence[Path]) -> None:
    """Add the loops of other folders of the same study, and write anew what follows from them.

    Where several folders have a loop, the one that came furthest counts.

    Raises:
        ConfigError: they are not parts of one study.
    """
    parts = [folder, *others]
    configuration = _of_all([_configuration(part) for part in parts])
    furthest: dict[str, tuple[Path, Loop]] = {}
    for part in parts:
        for loop in read_folder(part).loops:
            if loop.name not in furthest or furthest[loop.name][1].reached < loop.reached:
                furthest[loop.name] = part, loop
    names = [loop.name for _, loop in sorted(furthest.values(), key=lambda one: in_order(one[1].run))]
    for stale in (f"{table}.{kind}" for table in methods.METHODS for kind in ("csv", "png")):
        (folder / stale).unlink(missing_ok=True)  # only a report has them: they need the store
    for path in folder.glob("*.csv"):
        if "loop" in (first := read_csv(path)):  # tables without loops follow from those with
            rows = {folder: first} | {other: read_csv(other / path.name) for other in others}
            own = (rows[part][[furthest[name][0] == part for name in rows[part]["loop"]]] for part in parts)
            table = pd.concat(own).sort_values("loop", key=lambda loops: loops.map(names.index), kind="stable")
            write_csv(frame(list(table), table.to_numpy().tolist()), path)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    redraw(folder)


def _of_all(configurations: Sequence[dict[str, str]]) -> dict[str, str]:
    """Every parameter with all the values that it has in any part.

    Raises:
        ConfigError: the parts differ in one that a study does not span, or name their cells differently.
    """
    every = all_values([{key: value} for one in configurations for key, values in one.items()
                    for value in (values.split(", ") if key in SPANNED else [values])])  # fmt: skip
    for key, values in every.items():
        own = dict.fromkeys(one[key] for one in configurations if key in one)
        if key not in SPANNED and len(own) > 1:
            raise ConfigError(f"not parts of one study: {key} is {' and '.join(own)}")
        if key in ("cycle.kind", "sampling.temperature") and ", " in values and not all(", " in one for one in own):
            raise ConfigError(f"{key} is {' and '.join(own)}: cell names have it only where a part has several")
    return every


def draw_headline(folder: Path) -> Path | None:
    """Draw the study's, the ideal learner's and the paper's curves, a panel for each cell; None without the second."""
    ideal = folder.with_name(f"{folder.name}-ideal")
    if not (ideal / "retention.csv").is_file():
        return None
    tables = {"network": read_csv(folder / "retention.csv"), "ideal learner": read_csv(ideal / "retention.csv")}
    path = folder / "headline.png"
    spec, drawn = headline(tables)
    path.write_bytes(png(svg(spec, "retention", drawn)))
    return path


def draw(table: Path) -> None:
    """Draw a picture beside the table, of the same name: what is kept or, if it has depths, their shares by method."""
    rows = read_csv(table)
    name = "depth_by_method" if "depth" in rows else "retention"
    drawn = methods.drawing if "depth" in rows else drawings
    table.with_suffix(".png").write_bytes(png(drawn({name: rows})[name]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ouroloop.report.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", nargs="+", type=Path, help="the folder of a report, or a table")
    parser.add_argument(
        "--join", nargs="+", type=Path, metavar="FOLDER", help="folders whose loops are added to PLACE's"
    )
    asked = parser.parse_args(arguments)
    if asked.join and len(asked.place) > 1:
        parser.error(f"--join adds to one folder, not to {len(asked.place)}")
    try:
        for place in asked.place:
            join(place, asked.join) if asked.join else redraw(place) if place.is_dir() else draw(place)
    except (ConfigError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
