"""The tables behind the figures of a report, one row for each mark that is drawn."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ouroloop.report.results import Loop, Outcome, interval
from ouroloop.study.trials import RETENTION

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


def figure_tables(outcome: Outcome) -> Mapping[str, Table]:
    """By the name of the figure, which its CSV and its picture carry too."""
    return {
        "retention": retention(outcome),
        "half_life": half_lives(outcome),
        "composition": composition(outcome),
        "unique": unique(outcome),
        "depth": depth(outcome),
        "expressions": expressions(outcome),
    }


def retention(outcome: Outcome) -> Table:
    """Diversity over D_0's by generation: mean, range and 95 % interval over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in outcome.cells.items():
        paper = outcome.published(cell)
        for generation in range(_reached(loops) + 1):
            values = _values(loops, RETENTION, generation)
            if values:
                mean, low, high, n = interval(values)
                bounds = ("", "") if low is None or high is None else (max(0.0, low), high)
                at_paper = paper.retention[generation] if paper and generation < len(paper.retention) else ""
                rows.append((cell, generation, n, mean, min(values), max(values), *bounds, at_paper))
    return Table(columns, rows)


def half_lives(outcome: Outcome) -> Table:
    """The generation at which each loop keeps less than half of D_0's diversity; empty if it did not come so far."""
    columns = ("cell", "loop", "cycle", "proportion", "seed", "half_life", "reached", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in outcome.cells.items():
        paper = outcome.published(cell)
        at_paper = next((t for t, kept in enumerate(paper.retention) if kept < 0.5), "") if paper else ""
        for loop in loops:
            if loop.history.get(RETENTION):
                proportion = "" if loop.proportion is None else loop.proportion
                life = "" if loop.half_life is None else loop.half_life
                cycle = (loop.run.tag("cycle") or "").replace("_", " ")
                rows.append((cell, loop.name, cycle, proportion, loop.seed, life, loop.reached, at_paper))
    return Table(columns, rows)


def composition(outcome: Outcome) -> Table:
    """Shares of True, False and malformed among all sampled, means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", *_PARTS, *(f"paper_{part}" for part in _PARTS))
    rows: list[tuple[Any, ...]] = []
    for cell, loops in outcome.cells.items():
        paper = outcome.published(cell)
        published = paper.composition if paper and paper.composition else []
        for generation in range(_reached(loops) + 1):
            parts = [_values(loops, key, generation) for key in _PARTS.values()]
            if all(parts):
                means = [sum(part) / len(part) for part in parts]
                at_paper = published[generation] if generation < len(published) else ("", "", "")
                rows.append((cell, generation, len(parts[0]), *means, *at_paper))
    return Table(columns, rows)


def unique(outcome: Outcome) -> Table:
    """Distinct texts among all sampled, against the diversity kept: means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", RETENTION, "num_unique", "unique_fraction",
               f"paper_{RETENTION}", "paper_unique_fraction")  # fmt: skip
    keys = (RETENTION, "num_unique", "unique_fraction")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in outcome.cells.items():
        paper = outcome.published(cell)
        published = list(zip(paper.retention, paper.unique_fraction or (), strict=False)) if paper else []
        for generation in range(_reached(loops) + 1):
            parts = [_values(loops, key, generation) for key in keys]
            if all(parts):
                means = [sum(part) / len(part) for part in parts]
                at_paper = published[generation] if generation < len(published) else ("", "")
                rows.append((cell, generation, len(parts[0]), *means, *at_paper))
    return Table(columns, rows)


def depth(outcome: Outcome) -> Table:
    """Share of all sampled texts at each depth; generation 0 is D_0."""
    rows: list[tuple[Any, ...]] = []
    for loop in outcome.loops:
        for generation, written in loop.written.items():
            size = sum(written.depths.values())
            rows += [(loop.name, generation, level, count / size) for level, count in written.depths.items()]
    return Table(("loop", "generation", "depth", "share"), rows)


def expressions(outcome: Outcome) -> Table:
    """The most frequent texts of each generation, with share and verdict."""
    rows = [
        (loop.name, generation, rank, *row)
        for loop in outcome.loops
        for generation, written in loop.written.items()
        for rank, row in enumerate(written.most_frequent, 1)
    ]
    return Table(("loop", "generation", "rank", "count", "share", "verdict", "depth", "expression"), rows)


def loops(outcome: Outcome) -> Table:
    """A row for each loop: where it stands, its last measures, its software, and its time."""
    columns = ("loop", "cell", "seed", "state", "generation", RETENTION, "correctness", "error_rate", "num_unique",
               "half_life", "minutes", "commit", "run")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for loop in outcome.loops:
        last = [loop.at(key, loop.reached) if loop.reached else "" for key in columns[5:9]]
        seconds = sum(loop.history.get("generation_seconds", {}).values())
        life = "" if loop.half_life is None else loop.half_life
        commit = " ".join(commit[:12] for commit in loop.commits)
        own = (loop.name, loop.cell, loop.seed, loop.run.status.lower(), loop.reached)
        rows.append((*own, *last, life, round(seconds / 60, 2), commit, loop.run.id))
    return Table(columns, rows)


def metrics(outcome: Outcome) -> Table:
    """Everything that was measured: a row for each generation of each loop, a column for each metric."""
    keys = sorted({key for loop in outcome.loops for key in loop.history})
    rows = [
        (loop.name, loop.seed, generation, *(loop.at(key, generation) for key in keys))
        for loop in outcome.loops
        if "correctness" in loop.history
        for generation in range(loop.reached + 1)
    ]
    return Table(("loop", "seed", "generation", *keys), rows)


def _reached(cell: list[Loop]) -> int:
    return max(loop.reached for loop in cell)


def _values(cell: list[Loop], key: str, generation: int) -> list[float]:
    """Of the loops that measured it; those that stopped earlier are not counted on."""
    series = [loop.history.get(key, {}) for loop in cell]
    return [one[generation] for one in series if generation in one]
