"""Which models a study has: its loops by cell, and for each collapse stage the generation that entered it first.

A cell is the loops that differ in nothing but the seed: a cycle at a proportion and a temperature, of one truth label,
corpus and method. Its median seed stands for it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ouroloop.config import ConfigError, LoopConfig, SamplingConfig
from ouroloop.errors import shown
from ouroloop.record.history import history
from ouroloop.record.provenance import recorded_config
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.metrics import RETENTION, CollapseStage, entered, half_life, stages_of
from ouroloop.study.method import is_method_name

_USUAL_TEMPERATURE = SamplingConfig.model_fields["temperature"].default


@dataclass(frozen=True)
class Candidate:
    """A finished loop with what decides whether it represents its cell."""

    run: Run
    config: LoopConfig
    retention: dict[int, float]
    """By generation, from 1."""


@dataclass(frozen=True)
class Cell:
    """The loops of a study that differ in nothing but the seed."""

    name: str
    """That of its registered model."""
    candidates: tuple[Candidate, ...]
    """In order of collapse, the fastest first."""

    @property
    def representative(self) -> Candidate:
        """The median seed; of an even number, the lower of the two in the middle, which collapsed faster."""
        return self.candidates[(len(self.candidates) - 1) // 2]

    @property
    def choice(self) -> str:
        """Why it is this seed, in words."""
        seeds = ", ".join(str(candidate.config.seed) for candidate in self.candidates)
        if len(self.candidates) == 1:
            return f"the only finished seed, {seeds}"
        return (
            f"seed {self.representative.config.seed}, the (lower) median of {len(self.candidates)} seeds ordered by "
            f"half-life, then retention at the last generation: {seeds}"
        )


@dataclass(frozen=True)
class Found:
    """What a cell has for a stage: the generation that entered it first, or why there is no model."""

    stage: CollapseStage
    generation: Run | None
    """With its weights."""
    number: int = 0
    """Its t."""
    reason: str = ""


class Entry(NamedTuple):
    """What became of one alias or, without one, of a loop."""

    name: str
    alias: str
    version: str
    outcome: str


def registered_name(config: LoopConfig, method: str = "") -> str:
    """`ouroloop-<cycle>-<proportion>`, with what is not usual appended.

    That is `-T<temperature>` where it is not 0.8, `-<truth label>` of D_0 where it is not all True, or `-text`, and
    `-<method>` where a study compares methods. The proportion has two decimals, or as many as it needs to be told from
    its neighbours. Full synthetic is at 1.00; balanced has no proportion, and its name none.
    """
    label = config.cycle.proportion_label
    name = f"ouroloop-{config.cycle.kind.value}"
    if label != "none":
        decimals = np.format_float_positional(float(label), trim="-")  # never 1e-05
        name += f"-{decimals if len(decimals.partition('.')[2]) > 2 else f'{float(label):.2f}'}"
    temperature = config.sampling.temperature
    if temperature != _USUAL_TEMPERATURE:
        name += f"-T{temperature:g}"
    name = f"{name}-{config.data.variant}" if config.data.variant else name
    return f"{name}-{method.replace(' ', '-')}" if method else name


def find_cells(store: Store, study: str) -> tuple[list[Cell], list[Entry]]:
    """The cells with a finished loop, of a study or of a preset's lone loops; and what is left out, and why.

    Raises:
        ConfigError: there is no such study.
    """
    newest = store.one_loop_each(study)
    if not newest:
        raise ConfigError(f"no study or preset {study!r} has run; `ouroloop status` lists those that have")
    groups: dict[str, dict[str, list[Candidate]]] = {}
    left_out = []
    for run in sorted(newest, key=lambda run: -run.entity.info.start_time):
        name, config, method = run.name, recorded_config(run), run.tag("method") or ""
        if config is None:
            why = "it was recorded by another version of ouroloop, or has a step of your own"
            left_out.append(Entry(name, "", "", f"skipped: its configuration cannot be read here: {why}"))
        elif run.status != "FINISHED":
            left_out.append(Entry(name, "", "", f"skipped: the loop is not finished ({run.status})"))
        elif method and not is_method_name(method):
            left_out.append(
                Entry(name, "", "", f"skipped: its tag ouroloop.method is not a method's name: {shown(method)}")
            )
        else:
            retention = {t: kept for t, kept in history(run, [RETENTION])[RETENTION].items() if t > 0}
            but_seed = config.changed(seed=0).fingerprint()
            others = groups.setdefault(registered_name(config, method), {})
            others.setdefault(but_seed, []).append(Candidate(run, config, retention))
    cells = []
    for name, by_settings in sorted(groups.items()):
        newest_settings, *older = by_settings.values()
        left_out += [
            Entry(one.run.name, "", "", f"skipped: {name} is of newer loops with other settings")
            for candidates in older
            for one in candidates
        ]
        cells.append(Cell(name, tuple(sorted(newest_settings, key=_speed_of_collapse))))
    return cells, left_out


def _speed_of_collapse(candidate: Candidate) -> tuple[float, float, int]:
    life, last = half_life(candidate.retention), max(candidate.retention, default=0)
    return (
        float("inf") if life is None else life,
        candidate.retention.get(last, float("inf")),
        candidate.config.seed,
    )


def find_stages(cell: Cell) -> list[Found]:
    """For each stage the generation of the representative that entered it, by `metrics.entered`."""
    chosen = cell.representative
    rule, key = chosen.config.stages, chosen.config.stages.measure
    values = chosen.retention if key == RETENTION else history(chosen.run, [key])[key]
    stages = stages_of(values, rule)
    came = entered(stages)
    on_record = chosen.run.store.generations(chosen.run.id).items()
    by_number = {t: generation for t, generation in on_record if generation.status == "FINISHED"}
    found = []
    for one in CollapseStage:
        t = came.get(one)
        if t is None:
            reason = f"not reached by seed {chosen.config.seed} in {chosen.config.num_generations} generations"
            if one in stages:
                reason = f"seed {chosen.config.seed} was not in it for two generations in a row, which a stage needs"
            found.append(Found(one, None, reason=reason))
        elif t not in by_number or by_number[t].model_id is None:
            reason = f"the weights of M_{t} were not kept (keep_weights: {chosen.config.keep_weights})"
            if chosen.config.is_ideal:
                reason = "the ideal learner has no weights: it is its training set"
            found.append(Found(one, None, reason=reason))
        else:
            found.append(Found(one, by_number[t], t))
    return found
