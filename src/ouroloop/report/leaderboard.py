"""The leaderboard: what each method of a study keeps so far, at what cost, and knowing what.

Loops are found by their fingerprints, on record or in the file that was committed, and seeds are paired. A method's
score is coverage, its overlap with the true distribution, at the last generation; a new rank begins where all methods
above are told apart from all below. A method that lacks a seed, or lost one, has scores but no rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ouroloop.config import LoopConfig
from ouroloop.record.history import Curves
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report.outcomes import Outcome
from ouroloop.report.results import bounds_of
from ouroloop.science.metrics import RETENTION
from ouroloop.science.statistics import UNBOUNDED, Interval, bounds_of_kept, interval, most_kept
from ouroloop.study.config import StudyConfig, knowledge

SCORES = ("coverage", "kl_forward_nats", RETENTION, "grammar_membership", "unique_fraction")
"""What the board shows of each method; it ranks by the first."""

KEEP_M1 = "keep M_1"
MEASURES = (*SCORES, "num_drawn", "train_seconds")
"""All that the board needs of a loop."""

_RETENTION_KEPT, _MEMBERSHIP_LOST, _COVERAGE_KEPT = 0.95, 0.02, 0.9
BARS = (
    f"retention is at least {_RETENTION_KEPT:g}, membership at least that of the baseline's M_1 less "
    f"{100 * _MEMBERSHIP_LOST:g} points and coverage at least {_COVERAGE_KEPT:g} of that M_1's"
)
"""What "keeps" asks for, in words."""
BEST = 6
"""How many methods of the first cycle are to be run with the others."""


class Score(NamedTuple):
    last: Interval
    """At the last generation."""
    area: Interval
    """Mean over all generations: the area under the curve, over their number."""


@dataclass
class Row:
    """One method with one cycle."""

    method: str
    cycle: str
    description: str
    knows: str
    wanted: int
    """How many seeds it is to have."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """Of finished loops, by seed; for M_1 kept, made from the baseline's."""
    failures: dict[int, Outcome] = field(default_factory=dict)
    """Of loops that failed, by seed, such as those of a method that left nothing to learn from."""
    reason: str = ""
    """Why it cannot be run; empty where it can."""
    has_usual_first: bool = False
    """Whether its M_1 is trained and sampled as the baseline's."""
    scores: dict[str, Score] = field(default_factory=dict)
    keeps: bool | None = None
    """Whether its means at the end pass the `BARS`, M_1 having the same seeds; None before it has all its seeds, and
    where that cannot be judged, such as by an M_1 of its own processor."""
    cost: dict[str, float] = field(default_factory=dict)
    """Relative to the baseline's with the same seeds; of seconds also the least and the most over these seeds."""
    rank: int | None = None
    beats: int = 0
    """How many ranked rows of its cycle it is told apart from, and better than."""

    @property
    def curves(self) -> dict[int, Curves]:
        return {seed: outcome.curves for seed, outcome in self.outcomes.items()}

    @property
    def runs(self) -> dict[int, Outcome]:
        """The outcomes of loops that were run for it, failed ones too."""
        return {} if self.method == KEEP_M1 else self.outcomes | self.failures

    @property
    def missing(self) -> int:
        """How many seeds have neither finished nor failed."""
        return 0 if self.reason else self.wanted - len(self.outcomes) - len(self.failures)

    @property
    def is_whole(self) -> bool:
        """Whether it has all seeds, which a rank takes: else it cannot be compared fairly with those that do."""
        return len(self.outcomes) == self.wanted

    @property
    def filed(self) -> list[int]:
        """Seeds whose loops are not on record here, but in the file that was committed."""
        return sorted(seed for seed, outcome in self.runs.items() if outcome.is_filed)


def board(config: StudyConfig, store: Store | None, name: str, filed: Mapping[str, Outcome]) -> list[Row]:
    """The rows of each cycle, best first; what is not done, failed or cannot be run comes last.

    Loops that the store lacks are taken from what is `filed`, by fingerprint.
    """
    found = {run.tag("fingerprint"): run for run in ([] if store is None else store.one_loop_each(name))}
    rows: dict[tuple[str, str], Row] = {}
    for plain in config.plain_loops:
        for method in config.methods:
            _enter(rows, config, plain, method, found, filed)
    scored = list[Row]()
    for cycle in dict.fromkeys(row.cycle for row in rows.values()):
        of_cycle = [row for row in rows.values() if row.cycle == cycle]
        _score(of_cycle, config.loop, _baseline(config))
        scored += of_cycle
    return sorted(scored, key=lambda row: (row.cycle, row.rank or 999, -_mean(row)))


def _mean(row: Row) -> float:
    score = row.scores.get("coverage")
    return score.last.mean if score else -1.0


def _enter(
    rows: dict[tuple[str, str], Row],
    config: StudyConfig,
    plain: LoopConfig,
    name: str,
    found: Mapping[Any, Run],
    filed: Mapping[str, Outcome],
) -> None:
    method, cycle = config.methods[name], _cycle(config, plain)
    if method.cycles is not None and plain.cycle.kind not in method.cycles:
        return
    loop = config.applied(name, plain)
    row = rows.get((cycle, name))
    if row is None:
        knows = "" if loop is None else knowledge(loop, plain)
        row = rows[cycle, name] = Row(name, cycle, method.description, knows, len(set(config.seeds)))
    if loop is None:
        row.reason = "needs a network"
        return
    row.has_usual_first = loop.of_first == plain.of_first
    fingerprint = loop.fingerprint()
    run, outcome = found.get(fingerprint), filed.get(fingerprint)
    if run is not None and (run.status == "FINISHED" or (run.status == "FAILED" and outcome is None)):
        outcome = Outcome.of_run(run, MEASURES)
    if outcome is not None:
        (row.failures if outcome.has_failed else row.outcomes)[loop.seed] = outcome


def _cycle(config: StudyConfig, plain: LoopConfig) -> str:
    """What the loop's part of the board is called: the cycle with λ, and the temperature where there are several."""
    is_only = len(set(config.temperatures)) == 1
    return plain.setting if is_only else f"{plain.setting}-T{plain.sampling.temperature:g}"


def _baseline(config: StudyConfig) -> str | None:
    """The method that changes nothing, wherever it stands."""
    return next((name for name, method in config.methods.items() if not method.changes), None)


def _score(rows: list[Row], loop: LoopConfig, name: str | None) -> None:
    """Add the row of M_1 kept, and score all rows; in a cycle without the baseline of this name, none has a cost."""
    last = loop.num_generations
    baseline = next((row for row in rows if row.method == name), None)
    if baseline is not None and baseline.outcomes:
        rows.append(_keep_m1(baseline, last))
    for row in rows:
        most = most_kept(value for curves in row.curves.values() for value in curves.get(RETENTION, {}).values())
        for key in SCORES:
            ends = [curve for _, curves in sorted(row.curves.items()) if (curve := _curve(curves, key, last))]
            if ends and len(ends) == len(row.outcomes):
                area = [float(np.mean(curve)) for curve in ends]
                row.scores[key] = Score(_within(key, [curve[-1] for curve in ends], most), _within(key, area, most))
        if baseline is not None:
            row.keeps = _keeps(row, baseline, last) if row.is_whole else None
            _cost(row, baseline, loop.data.num_examples, last)
    _rank([row for row in rows if "coverage" in row.scores], last)


def _curve(curves: Curves, key: str, last: int) -> list[float]:
    """A measure at generations 1 to the last; empty where any is absent."""
    values = curves.get(key, {})
    return [values[t] for t in range(1, last + 1)] if values.keys() >= set(range(1, last + 1)) else []


def _within(key: str, values: Sequence[float], most: float) -> Interval:
    """An interval within the measure's bounds, which need a mean inside them; without bounds where it is not."""
    low, high = bounds = bounds_of_kept(values, most) if key == RETENTION else bounds_of(key)
    is_inside = low < float(np.mean(values)) < high
    return interval(values, bounds if is_inside else UNBOUNDED)


def _keep_m1(baseline: Row, last: int) -> Row:
    """The row of M_1 kept: nothing is run; its measures are those of the baseline's first generation, repeated."""
    row = Row(KEEP_M1, baseline.cycle, "M_1 is kept, and no later model is trained", "previous model", baseline.wanted)
    for seed, outcome in baseline.outcomes.items():
        first = {key: values[1] for key, values in outcome.curves.items() if 1 in values}
        curves = {
            key: {t: value if key in SCORES or t == 1 else 0.0 for t in range(1, last + 1)}
            for key, value in first.items()
        }
        row.outcomes[seed] = replace(outcome, curves=curves)
    row.failures = dict(baseline.failures)
    return row


def _keeps(row: Row, baseline: Row, last: int) -> bool | None:
    """Judged by the usual M_1: one that a method trains otherwise may be worse to begin with, and then easily kept."""
    if RETENTION not in row.scores:
        return None
    if row.scores[RETENTION].last.mean < _RETENTION_KEPT:
        return False  # whatever M_1 is
    needed = ("coverage", "grammar_membership")
    firsts = [_usual_first(row, baseline, seed) for seed in row.outcomes]
    if not all(key in row.scores and all(1 in first.get(key, {}) for first in firsts) for key in needed):
        return None
    first = {key: float(np.mean([curves[key][1] for curves in firsts])) for key in needed}
    end = {key: row.scores[key].last.mean for key in needed}
    return (
        end["grammar_membership"] >= first["grammar_membership"] - _MEMBERSHIP_LOST
        and end["coverage"] >= _COVERAGE_KEPT * first["coverage"]
    )


def _usual_first(row: Row, baseline: Row, seed: int) -> Curves:
    """Of the loop whose M_1 is the baseline's as this row's processor trains it: each kind rounds to another M_1.

    Empty where none is known.
    """
    own, usual = row.outcomes[seed], baseline.outcomes.get(seed)
    if row.has_usual_first:
        return own.curves
    return usual.curves if usual is not None and usual.processor == own.processor else {}


def _cost(row: Row, baseline: Row, m: int, last: int) -> None:
    """Enter texts drawn, and seconds of training on the same kind of processor, relative to the baseline's."""
    both = sorted(row.outcomes.keys() & baseline.outcomes.keys())
    drawn, usual = (
        sum(of.curves[seed].get("num_drawn", {}).get(t, m) for seed in both for t in range(1, last + 1))
        for of in (row, baseline)
    )
    if both:
        row.cost["num_drawn"] = (m * len(both) if row.method == KEEP_M1 else drawn) / usual
    alike = [seed for seed in both if row.outcomes[seed].processor == baseline.outcomes[seed].processor]
    mine, theirs = (
        np.array([_usual_seconds(of.curves[seed].get("train_seconds", {})) for seed in alike]) for of in (row, baseline)
    )
    if mine.any() and theirs.all():
        by_seed = mine / theirs
        row.cost["train_seconds"] = float(mine.sum() / theirs.sum())
        row.cost |= {"train_seconds_least": float(by_seed.min()), "train_seconds_most": float(by_seed.max())}


def _usual_seconds(values: Mapping[int, float]) -> float:
    """As many times the median as there are generations that trained: a machine that slept in one tells nothing."""
    spent = [value for value in values.values() if value]
    return float(np.median(spent)) * len(spent) if spent else 0.0


def times(cost: float | None) -> str:
    """A cost over the baseline's."""
    return "–" if cost is None else f"{cost:.1f}×" if cost >= 0.1 else f"{cost:.2f}×"


def trained(cost: Mapping[str, Any]) -> tuple[str, str]:
    """Seconds of training over the baseline's, and their range over seeds, or nothing: how even the machines were."""
    shown, least, most = (times(cost.get(f"train_seconds{part}")) for part in ("", "_least", "_most"))
    return shown, "" if least == most else f"{least.rstrip('×')} to {most}"


def told_apart(one: Row, other: Row, last: int) -> float:
    """The mean difference of coverage at the end over the seeds that both have, 0 where its 95 % interval contains 0.

    Neither a single seed nor equal values tell anything apart. A difference that is the same in every seed does: it is
    the limit of ever closer ones.
    """
    curves = one.curves, other.curves
    both = sorted(curves[0].keys() & curves[1].keys())
    differences = [curves[0][seed]["coverage"][last] - curves[1][seed]["coverage"][last] for seed in both]
    if len(differences) < 2:
        return 0.0
    found = interval(differences)
    is_apart = max(differences) == min(differences) or (found.low or 0.0) > 0 or (found.high or 0.0) < 0
    return found.mean if is_apart else 0.0


def _rank(rows: list[Row], last: int) -> None:
    """Rank the rows: a new rank begins where all above are told apart from all below.

    So no two of different ranks are alike: rows that cannot be told apart share a rank, with all that stand between.
    Only rows with all seeds are ranked: otherwise the order would depend on which seeds are there.
    """
    ordered = sorted((row for row in rows if row.is_whole), key=lambda row: -_mean(row))
    pairs = combinations(range(len(ordered)), 2)
    alike = [(i, k) for i, k in pairs if told_apart(ordered[i], ordered[k], last) == 0]
    rank = 1
    for place, row in enumerate(ordered):
        if not any(i < place <= k for i, k in alike):
            rank = place + 1
        row.rank = rank
        row.beats = len(ordered) - place - 1 - sum(i == place for i, _ in alike)


def not_chosen(rows: Sequence[Row], config: StudyConfig, most: int = BEST) -> list[str]:
    """Which of the `most` best methods of the first cycle are not run with the others; the baseline does not count.

    Empty while the first cycle is incomplete: which are best is not known then.
    """
    others = [cycle for cycle in config.cycles if cycle is not config.cycles[0]]
    ranked = [row for row in rows if row.cycle.partition("-")[0] == config.cycles[0].value]
    if not others or not ranked or any(row.missing for row in ranked):
        return []
    apart = {KEEP_M1, _baseline(config)}
    best = list(dict.fromkeys(row.method for row in ranked if row.rank is not None and row.method not in apart))[:most]
    return [name for name in best if not set(others) <= set(config.methods[name].cycles or config.cycles)]


def record(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The board for programs."""
    return [
        {
            "method": row.method, "cycle": row.cycle, "description": row.description, "knows": row.knows,
            "rank": row.rank, "told_apart_from_worse": row.beats, "keeps": row.keeps,
            "seeds": sorted(row.outcomes), "seeds_missing": row.missing, "seeds_failed": sorted(row.failures),
            "not_applicable": row.reason or None,
            "cost_over_baseline": row.cost,
            **{key: {"last": score.last._asdict(), "area": score.area._asdict()} for key, score in row.scores.items()},
        }
        for row in rows
    ]  # fmt: skip
