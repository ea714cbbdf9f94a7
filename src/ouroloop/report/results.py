"""What a study or a lone loop found, as tables: the page, the pictures and the CSV files show the same ones.

Loops that differ in nothing but the seed form a cell. A mean is over the seeds of a cell, and so is its
95 % interval (Student's t, absent for one seed): it says how another seed would turn out, which the
standard errors of a single loop do not.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.record.provenance import recorded_config
from ouroloop.record.track import Run, Store
from ouroloop.science.cycle import DatasetError
from ouroloop.science.metrics import Sample
from ouroloop.study.status import half_life
from ouroloop.study.trials import RETENTION
from ouroloop.testbed.logic.grammar import Initialisation

MOST_FREQUENT = 10
"""Expressions listed for a generation."""

FIXED_SHARE = 0.99
"""From which on a loop counts as fixed on a text: a model that writes one for good still slips now and then."""

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
    kind, proportion = config.cycle.kind, config.cycle.synthetic_proportion
    if kind is DataCycle.INCREMENTAL and proportion == 1:
        kind, proportion = DataCycle.FULL_SYNTHETIC, None
    parts = [kind.value] if proportion is None else [kind.value, f"{proportion:g}"]
    if config.data.initialisation is not Initialisation.TRUE_ONLY:
        parts.append(config.data.initialisation.value)
    return "/".join(parts)


# What may differ between the loops of a cell: they are still the same experiment
_NOT_THE_CELL = {"seed", "num_generations", "cycle.kind", "cycle.synthetic_proportion", "sampling.temperature"}


class Written(NamedTuple):
    """What one model wrote: its most frequent texts, and how many of all there are at each depth."""

    most_frequent: list[tuple[int, float, str, int | str, str]]
    """(count, share, verdict, depth or "", text)."""
    depths: dict[str, int]
    """Texts by depth; `malformed` stands for those that have none."""


class FixedText(NamedTuple):
    """At least 99 % of what a loop's models write, from some generation on to the last."""

    since: int
    verdict: str
    depth: int | str
    text: str


@dataclass(frozen=True)
class Loop:
    run: Run
    cell: str
    history: Mapping[str, Mapping[int, float]]
    """Metric -> generation -> value."""
    written: Mapping[int, Written]
    """By generation, D_0 under 0; without those whose samples are lost."""
    config: LoopConfig | None
    """None when it was recorded under another schema, or not at all."""
    commits: Sequence[str] = ()
    """Of the software that computed its generations, in their order."""

    @property
    def name(self) -> str:
        return str(self.run.entity.info.run_name)

    @property
    def seed(self) -> str:
        return self.run.tag("seed") or ""

    @property
    def proportion(self) -> float | None:
        label = self.run.tag("synthetic_proportion") or "none"
        return None if label == "none" else float(label)

    @property
    def reached(self) -> int:
        """The last generation that is on record, 0 for D_0 alone."""
        return max(self.history.get("correctness", {0: 0.0}))

    @property
    def half_life(self) -> int | None:
        return half_life(dict(self.history.get(RETENTION, {})))

    @property
    def fixed(self) -> FixedText | None:
        """The one text that is left but for slips, None while there are several or what was written is lost."""
        since, found = self.reached, None
        while since in self.written and since > 0:
            _, share, verdict, depth, text = self.written[since].most_frequent[0]
            if share < FIXED_SHARE or (found is not None and text != found.text):
                break
            found = FixedText(since, verdict, depth, text)
            since -= 1
        return found

    def at(self, key: str, generation: int) -> float | str:
        return self.history.get(key, {}).get(generation, "")


@dataclass(frozen=True)
class Outcome:
    name: str
    study: Run | None
    loops: list[Loop]
    """In order of cycle, proportion, temperature and seed."""

    @cached_property
    def cells(self) -> dict[str, list[Loop]]:
        """The loops that measured a generation, by what they have in common."""
        cells: dict[str, list[Loop]] = {}
        for loop in self.loops:
            if loop.reached:
                cells.setdefault(loop.cell, []).append(loop)
        return cells

    def published(self, cell: str) -> Published | None:
        return next((published(loop.config) for loop in self.cells[cell] if loop.config), None)


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval; `low` and `high` are None for one seed."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


def interval(values: Sequence[float]) -> Interval:
    """Student's t over `values`, at least one."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def read_outcome(store: Store, name: str) -> Outcome:
    """The newest loop of each configuration of a study or lone preset, or the loop run with this id.

    Raises:
        ConfigError: there is none.
    """
    newest_last = reversed(store.find(level="loop"))
    found = {run.tag("fingerprint") or run.id: run for run in newest_last if name in (run.tag("study"), run.id)}
    if not found:
        raise ConfigError(f"no study or loop {name!r}; `ouroloop status` lists the studies, the MLflow UI every run")
    runs = sorted(found.values(), key=_order)
    studies = store.find(level="study", study=name)
    cells = _cell_labels(runs)
    children = _generations(store, runs)
    with ThreadPoolExecutor(8) as pool:  # the time goes into waiting for files, or for a server
        loops = list(pool.map(lambda run: _read_loop(run, cells[run.id], children.get(run.id, [])), runs))
    return Outcome(name, studies[0] if studies else None, loops)


def _generations(store: Store, runs: Sequence[Run]) -> dict[str | None, list[Run]]:
    """The generation runs of each loop, in one search for each study."""
    children: dict[str | None, list[Run]] = {}
    for study in {run.tag("study") for run in runs}:
        for child in store.find(level="generation", study=study or ""):
            children.setdefault(child.parent_id, []).append(child)
    return children


def _order(run: Run) -> tuple[Any, ...]:
    label, seed = run.tag("synthetic_proportion") or "none", run.tag("seed") or "0"
    proportion = -1.0 if label == "none" else float(label)
    return run.tag("cycle"), proportion, float(run.tag("temperature") or 0), int(seed), run.entity.info.run_name


def _cell_labels(runs: Sequence[Run]) -> dict[str, str]:
    """Of each run by its id: cycle and proportion, and what else tells it from the others."""
    params = [run.entity.data.params for run in runs]
    keys = sorted({key for one in params for key in one} - _NOT_THE_CELL)
    differing = [key for key in keys if len({one[key] for one in params if key in one}) > 1]
    several_kinds = len({run.tag("cycle") for run in runs}) > 1
    several_temperatures = len({run.tag("temperature") for run in runs}) > 1
    labels = {}
    for run, own in zip(runs, params, strict=True):
        kind = run.tag("cycle") or ""
        has_proportion = kind in {cycle.value for cycle in DataCycle if cycle.takes_proportion}
        parts = [f"λ = {run.tag('synthetic_proportion')}"] if has_proportion else []
        if several_kinds or not parts:
            parts.insert(0, kind.replace("_", " "))
        if several_temperatures:
            parts.append(f"T = {run.tag('temperature')}")
        parts += [f"{key.rpartition('.')[2]} = {own[key]}" for key in differing if key in own]
        labels[run.id] = ", ".join(parts)
    return labels


def _read_loop(run: Run, cell: str, children: Sequence[Run]) -> Loop:
    history = {key: dict(run.history(key)) for key in sorted(run.metrics)}
    written = {int(child.tag("generation") or 0): _written(child) for child in children if child.status == "FINISHED"}
    with suppress(DatasetError):
        written[0] = _summary(Sample.of(run.read_dataset("original_data.tsv.gz").texts))
    kept = {t: one for t, one in sorted(written.items()) if one is not None}
    ordered = sorted(children, key=lambda child: int(child.tag("generation") or 0))
    commits = list(dict.fromkeys(commit for child in ordered if (commit := child.tag("commit"))))
    return Loop(run, cell, history, kept, recorded_config(run), commits)


def _written(child: Run) -> Written | None:
    """What the generation's tables hold; judged anew from S_t where they are missing."""
    try:
        rows = json.loads(child.read_text("samples.json"))["data"][:MOST_FREQUENT]
        depths = dict(json.loads(child.read_text("depths.json"))["data"])
        return Written([tuple(row) for row in rows], depths)
    except (DatasetError, ValueError, KeyError, TypeError):
        pass
    try:
        return _summary(Sample.of(child.read_dataset("samples.tsv.gz").texts))
    except (DatasetError, ValueError):
        return None


def _summary(sample: Sample) -> Written:
    return Written(sample.most_frequent(MOST_FREQUENT), dict(sample.depth_counts()))
