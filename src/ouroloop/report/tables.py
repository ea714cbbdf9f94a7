"""The tables behind the figures of a report, one row for each mark that is drawn, the paper's beside ours."""

import csv
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ouroloop.config import LoopConfig
from ouroloop.report.results import Loop, Results, interval
from ouroloop.science.metrics import RETENTION
from ouroloop.testbed.logic.grammar import TruthLabel

NUM_EXAMPLES = 10_000
"""The paper's m. Its curves (paper.json) are digitised from the figures of arXiv 2311.16822v2: diversity from 4, 5, 6
and 9, composition from 3 and 8, distinct texts from 7. Each is one run at temperature 0.8 (those of appendix C, which
start from False or from both, are means of five runs of ten generations). Diversity is good to 0.0002, a count to 1."""


class Published(NamedTuple):
    """What the paper shows of one configuration, from generation 0 on; None where it shows nothing."""

    retention: list[float]
    """Diversity over that of the run's own D_0."""
    composition: list[tuple[float, float, float]] | None
    """Shares of True, False and malformed among all sampled."""
    unique_fraction: list[float] | None


@cache
def _figures() -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = json.loads(files("ouroloop.report").joinpath("paper.json").read_text("utf-8"))
    return figures


def published(config: LoopConfig) -> Published | None:
    """The paper's run of this cycle, proportion, temperature and kind of D_0; None where it ran nothing like it."""
    data = config.data
    if config.sampling.temperature != 0.8 or (data.min_depth, data.max_depth) != (1, 5):
        return None
    key = _key(config)
    diversity = _figures()["diversity"].get(key)
    if diversity is None:
        return None
    composition = _figures()["composition"].get(key)
    unique = _figures()["num_unique"].get(key)
    return Published(
        [value / diversity[0] for value in diversity],
        composition and [tuple(count / sum(counts) for count in counts) for counts in composition],
        unique and [count / NUM_EXAMPLES for count in unique],
    )


def _key(config: LoopConfig) -> str:
    cycle = config.cycle.canonical()
    parts = [cycle.kind.value] + [f"{λ:g}" for λ in [cycle.synthetic_proportion] if λ is not None]
    if config.data.truth_label is not TruthLabel.TRUE_ONLY:
        parts.append(config.data.truth_label.value)
    return "/".join(parts)


_PARTS = {"True": "correctness", "False": "false_rate", "malformed": "error_rate"}


class Table(NamedTuple):
    """A tidy table; an empty string stands for what was not measured."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def write(self, path: Path) -> None:
        buffer = StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        path.write_text(buffer.getvalue(), encoding="utf-8")


def figure_tables(results: Results) -> Mapping[str, Table]:
    """By the name of the figure, which its CSV and its picture carry too."""
    return {
        "retention": retention(results),
        "half_life": half_lives(results),
        "composition": composition(results),
        "unique": unique(results),
        "depth": depth(results),
        "expressions": expressions(results),
    }


def retention(results: Results) -> Table:
    """Diversity over D_0's by generation: mean, range and 95 % interval over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        for generation in range(_reached(loops) + 1):
            values = _values(loops, RETENTION, generation)
            if values:
                mean, low, high, n = interval(values)
                bounds = ("", "") if low is None or high is None else (max(0.0, low), high)
                at_paper = paper.retention[generation] if paper and generation < len(paper.retention) else ""
                rows.append((cell, generation, n, mean, min(values), max(values), *bounds, at_paper))
    return Table(columns, rows)


def half_lives(results: Results) -> Table:
    """The generation at which each loop keeps less than half of D_0's diversity; empty if it did not come so far."""
    columns = ("cell", "loop", "cycle", "proportion", "seed", "half_life", "reached", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        at_paper = next((t for t, kept in enumerate(paper.retention) if kept < 0.5), "") if paper else ""
        for loop in loops:
            if loop.history.get(RETENTION):
                proportion = "" if loop.proportion is None else loop.proportion
                life = "" if loop.half_life is None else loop.half_life
                cycle = (loop.run.tag("cycle") or "").replace("_", " ")
                rows.append((cell, loop.name, cycle, proportion, loop.seed, life, loop.reached, at_paper))
    return Table(columns, rows)


def composition(results: Results) -> Table:
    """Shares of True, False and malformed among all sampled, means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", *_PARTS, *(f"paper_{part}" for part in _PARTS))
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        published = paper.composition if paper and paper.composition else []
        for generation in range(_reached(loops) + 1):
            parts = [_values(loops, key, generation) for key in _PARTS.values()]
            if all(parts):
                means = [sum(part) / len(part) for part in parts]
                at_paper = published[generation] if generation < len(published) else ("", "", "")
                rows.append((cell, generation, len(parts[0]), *means, *at_paper))
    return Table(columns, rows)


def unique(results: Results) -> Table:
    """Distinct texts among all sampled, against the diversity kept: means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", RETENTION, "num_unique", "unique_fraction",
               f"paper_{RETENTION}", "paper_unique_fraction")  # fmt: skip
    keys = (RETENTION, "num_unique", "unique_fraction")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        published = list(zip(paper.retention, paper.unique_fraction or (), strict=False)) if paper else []
        for generation in range(_reached(loops) + 1):
            parts = [_values(loops, key, generation) for key in keys]
            if all(parts):
                means = [sum(part) / len(part) for part in parts]
                at_paper = published[generation] if generation < len(published) else ("", "")
                rows.append((cell, generation, len(parts[0]), *means, *at_paper))
    return Table(columns, rows)


def depth(results: Results) -> Table:
    """Share of all sampled texts at each depth; generation 0 is D_0."""
    rows: list[tuple[Any, ...]] = []
    for loop in results.loops:
        for generation, written in loop.written.items():
            size = sum(written.depths.values())
            rows += [(loop.name, generation, level, count / size) for level, count in written.depths.items()]
    return Table(("loop", "generation", "depth", "share"), rows)


def expressions(results: Results) -> Table:
    """The most frequent texts of each generation, with share and verdict."""
    rows = [
        (loop.name, generation, rank, *row)
        for loop in results.loops
        for generation, written in loop.written.items()
        for rank, row in enumerate(written.most_frequent, 1)
    ]
    return Table(("loop", "generation", "rank", "count", "share", "verdict", "depth", "expression"), rows)


def loops(results: Results) -> Table:
    """A row for each loop: where it stands, its last measures, its software, and its time."""
    columns = ("loop", "cell", "seed", "state", "generation", RETENTION, "correctness", "error_rate", "num_unique",
               "half_life", "minutes", "commit", "run")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for loop in results.loops:
        last = [loop.at(key, loop.reached) if loop.reached else "" for key in columns[5:9]]
        seconds = sum(loop.history.get("generation_seconds", {}).values())
        life = "" if loop.half_life is None else loop.half_life
        commit = " ".join(commit[:12] for commit in loop.commits)
        own = (loop.name, loop.cell, loop.seed, loop.run.status.lower(), loop.reached)
        rows.append((*own, *last, life, round(seconds / 60, 2), commit, loop.run.id))
    return Table(columns, rows)


def metrics(results: Results) -> Table:
    """Everything that was measured: a row for each generation of each loop, a column for each metric."""
    keys = sorted({key for loop in results.loops for key in loop.history})
    rows = [
        (loop.name, loop.seed, generation, *(loop.at(key, generation) for key in keys))
        for loop in results.loops
        if "num_unique" in loop.history
        for generation in range(loop.reached + 1)
    ]
    return Table(("loop", "seed", "generation", *keys), rows)


def paper_of(results: Results, cell: str) -> Published | None:
    return next((published(loop.config) for loop in results.cells[cell] if loop.config), None)


def _reached(cell: list[Loop]) -> int:
    return max(loop.reached for loop in cell)


def _values(cell: list[Loop], key: str, generation: int) -> list[float]:
    """Of the loops that measured it; those that stopped earlier are not counted on."""
    series = [loop.history.get(key, {}) for loop in cell]
    return [one[generation] for one in series if generation in one]
