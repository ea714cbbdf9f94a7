"""The tables behind the figures of a report: tidy frames, a row for each mark that is drawn, the paper's beside ours.

What was not measured is missing (NA) in a frame, and an empty field in its CSV.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ouroloop.config import LogicData, LoopConfig
from ouroloop.report.results import Loop, Results, bounds_of, counted_at, end_of, halving, kept_at, most_of
from ouroloop.science.metrics import ALWAYS, RETENTION
from ouroloop.science.statistics import bounds_of_kept, interval
from ouroloop.testbed.base import noun_of

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
    if not isinstance(data, LogicData) or config.sampling.temperature != 0.8:
        return None
    if (data.min_depth, data.max_depth) != (1, 5) or not _learns_as_the_paper(config):
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


def _learns_as_the_paper(config: LoopConfig) -> bool:
    """Whether each model is trained from scratch on texts as they were sampled; at what scale does not matter."""
    train = config.train
    learns_anew = train is None or (train == train.of_first() and train.loss_temperature == 1)
    return learns_anew and not config.curation.steps and config.sampling.min_p == 0


def _key(config: LoopConfig) -> str:
    cycle = config.cycle.canonical()
    parts = [cycle.kind.value] + [f"{λ:g}" for λ in [cycle.synthetic_proportion] if λ is not None]
    if config.data.variant:
        parts.append(config.data.variant)
    return "/".join(parts)


_PARTS = {"True": "correctness", "False": "false_rate", "malformed": "error_rate"}


def frame(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A tidy frame of columns whose values keep their kind: a whole number stays one beside a missing one."""
    found = pd.DataFrame(rows, columns=list(columns), dtype=object)
    return found.where(found.notna(), None)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def figure_tables(results: Results) -> dict[str, pd.DataFrame]:
    """The tables by name of figure, which its CSV and its picture carry too."""
    testbed = results.testbed
    of_classes = {"composition": composition} if testbed.composition else {}
    of_means = {"measures": measures} if testbed.means else {}
    of_depth = {"depth": depth} if "depth" in testbed.columns else {}
    proportions = {loops[0].proportion for loops in results.cells.values()} - {None}
    by_proportion = {"kept": kept} if len(proportions) > 1 else {}
    usual = {"retention": retention, "half_life": half_lives, "unique": unique}
    wanted = {**usual, **by_proportion, **of_classes, **of_means, **of_depth}
    return {name: table(results) for name, table in {**wanted, noun_of(testbed): texts}.items()}


def retention(results: Results) -> pd.DataFrame:
    """Diversity over D_0's by generation: mean, range and 95 % interval over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper, most = paper_of(results, cell), most_of(loops)
        published = paper.retention if paper else []
        for generation in range(_reached(loops) + 1):
            if values := _values(loops, RETENTION, generation):
                mean, low, high, n = interval(values, bounds_of_kept(values, most))
                own = (cell, generation, n, mean, min(values), max(values), low, high)
                rows.append((*own, _nth(published, generation)))
    return frame(columns, rows)


def kept(results: Results) -> pd.DataFrame:
    """What is kept of D_0's diversity where a cell ends: the mean over its seeds, and its 95 % interval."""
    columns = ("cell", "cycle", "proportion", "generation", "seeds", "mean", "interval_low", "interval_high", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        end, paper = end_of(loops).generation, paper_of(results, cell)
        if found := kept_at(loops, end):
            mean, low, high, n = found
            own = (cell, _cycle(loops[0]), loops[0].proportion, end, n, mean, low, high)
            rows.append((*own, _nth(paper.retention, end) if paper else None))
    return frame(columns, rows)


def _cycle(loop: Loop) -> str:
    return (loop.run.tag("cycle") or "").replace("_", " ")


def half_lives(results: Results) -> pd.DataFrame:
    """The generation at which each loop keeps less than half of D_0's diversity; missing if it did not come so far.

    Beside it the cell's median, for which those loops count too.
    """
    columns = ("cell", "loop", "cycle", "proportion", "seed", "half_life", "reached", "median", "paper")
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        at_paper = next((t for t, kept in enumerate(paper.retention) if kept < 0.5), None) if paper else None
        lives = halving(loops)
        for loop in loops:
            if loop.history.get(RETENTION):
                own = (cell, loop.name, _cycle(loop), loop.proportion, loop.seed, loop.half_life, loop.reached)
                rows.append((*own, lives and lives.median, at_paper))
    return frame(columns, rows)


def composition(results: Results) -> pd.DataFrame:
    """Shares of True, False and malformed among all sampled, means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", *_PARTS, *(f"paper_{part}" for part in _PARTS))
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        published = paper.composition if paper and paper.composition else []
        rows += _means(cell, loops, list(_PARTS.values()), published, (None, None, None))
    return frame(columns, rows)


def unique(results: Results) -> pd.DataFrame:
    """Distinct texts among all sampled, against the diversity kept: means over the seeds of a cell."""
    columns = ("cell", "generation", "seeds", RETENTION, "num_unique", "unique_fraction",
               f"paper_{RETENTION}", "paper_unique_fraction")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for cell, loops in results.cells.items():
        paper = paper_of(results, cell)
        published = list(zip(paper.retention, paper.unique_fraction or (), strict=False)) if paper else []
        rows += _means(cell, loops, [RETENTION, "num_unique", "unique_fraction"], published, (None, None))
    return frame(columns, rows)


def measures(results: Results) -> pd.DataFrame:
    """What the testbed measures, by generation: mean, range and 95 % interval over the seeds of a cell.

    Beside it, real text: D_0's own value, and that of one half of D_0 beside the other.
    """
    columns = ("measure", "title", "cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low",
               "interval_high", "real", "control")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for (key, title), (cell, loops) in product(results.testbed.means.items(), results.cells.items()):
        real, halves = _values(loops, key, 0), _values(loops, f"control_{key}", 0)
        beside = [sum(values) / len(values) if values else None for values in (real, halves)]
        for generation in range(1, _reached(loops) + 1):
            if values := _values(loops, key, generation):
                mean, low, high, n = interval(values, bounds_of(key))
                rows.append((key, title, cell, generation, n, mean, min(values), max(values), low, high, *beside))
    return frame(columns, rows)


def _means(
    cell: str, loops: list[Loop], keys: Sequence[str], published: Sequence[tuple[float, ...]], nothing: tuple[None, ...]
) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for generation in range(_reached(loops) + 1):
        parts = [_values(loops, key, generation) for key in keys]
        if all(parts):
            means = [sum(part) / len(part) for part in parts]
            rows.append((cell, generation, len(parts[0]), *means, *(_nth(published, generation) or nothing)))
    return rows


def depth(results: Results) -> pd.DataFrame:
    """Share of all sampled texts at each depth; generation 0 is D_0."""
    rows: list[tuple[Any, ...]] = []
    for loop in results.loops:
        for generation, written in loop.written.items():
            size = sum(written.depths.values())
            rows += [(loop.name, generation, level, count / size) for level, count in written.depths.items()]
    return frame(("loop", "generation", "depth", "share"), rows)


def texts(results: Results) -> pd.DataFrame:
    """The most frequent texts of each generation, with their share and what the testbed says of them."""
    rows = [
        (loop.name, generation, rank, *row)
        for loop in results.loops
        for generation, written in loop.written.items()
        for rank, row in enumerate(written.most_frequent, 1)
    ]
    return frame(("loop", "generation", "rank", "count", "share", *results.testbed.columns), rows)


def loops(results: Results) -> pd.DataFrame:
    """A row for each loop: where it stands, its last measures, its software, and its time."""
    wanted = (RETENTION, *results.testbed.headline.values(), "num_unique")
    columns = ("loop", "cell", "seed", "state", "generation", *wanted, "half_life", "minutes", "commit", "run")
    rows: list[tuple[Any, ...]] = []
    for loop in results.loops:
        last = [loop.history.get(key, {}).get(loop.reached) if loop.reached else None for key in wanted]
        seconds = sum(loop.history.get("generation_seconds", {}).values())
        commit = " ".join(commit[:12] for commit in loop.commits)
        own = (loop.name, loop.cell, loop.seed, loop.state, loop.reached)
        rows.append((*own, *last, loop.half_life, round(seconds / 60, 2), commit, loop.run.id))
    return frame(columns, rows)


def metrics(results: Results) -> pd.DataFrame:
    """Everything that was measured: a row for each generation of each loop, a column for each metric."""
    keys = sorted({key for loop in results.loops for key in loop.history})
    rows = [
        (loop.name, loop.seed, generation, *(series.get(generation) for series in own))
        for loop in results.loops
        if ALWAYS in loop.history
        for own in [[loop.history.get(key, {}) for key in keys]]
        for generation in range(loop.reached + 1)
    ]
    return frame(("loop", "seed", "generation", *keys), rows)


def paper_of(results: Results, cell: str) -> Published | None:
    return next((published(loop.config) for loop in results.cells[cell] if loop.config), None)


def _nth(values: Sequence[Any], n: int) -> Any:
    return values[n] if n < len(values) else None


def _reached(cell: list[Loop]) -> int:
    return max(loop.reached for loop in cell)


def _values(cell: list[Loop], key: str, generation: int) -> list[float]:
    """A measure's values in those loops that a mean is over and that measured it."""
    series = [loop.history.get(key, {}) for loop in counted_at(cell, generation)]
    return [one[generation] for one in series if generation in one]
