"""Where a falling response passes a target: a bisection that several workers share, and that knows what is still open.

A λ *holds* or *fails* when a t test over the seeds tells its mean retention from the target; else it is *undecided*
once its seeds are used up. The largest λ on the path that holds and the smallest that fails bound λ*. The answer
follows the path of a plain bisection, whatever else has been tried, so it does not depend on how many workers there
are or which is done first. Knows nothing about Optuna, MLflow or how loops are run.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product, zip_longest
from typing import Literal, NamedTuple

import numpy as np

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.study.config import StudyConfig
from ouroloop.study.task import Task

ERROR_RATE = 0.05
"""How often, at most, λ* lies outside what a search says; half of it on each side, shared by the batches of seeds."""

_MOST_OPEN = 6  # values not known yet, at most, whose 2^n extremes are tried out

Arm = tuple[DataCycle, float]
Verdict = Literal["holds", "fails", "undecided"]
Outcome = Callable[[float], bool | None]
"""Whether a point lies before the end of a path; None while that is open."""


class Bracket(NamedTuple):
    """The largest point on the path that held and the smallest that failed; None where there is no such point."""

    held: float | None
    failed: float | None


def _walk(points: Sequence[float], outcome: Outcome) -> tuple[int, int]:
    """How far the path has come: the indices of the last point that held and of the first that failed.

    Where there is no such point, the index is one before the first or one after the last.
    """
    held, failed = -1, len(points)
    while failed - held > 1:
        middle = (held + failed) // 2
        match outcome(points[middle]):
            case True:
                held = middle
            case False:
                failed = middle
            case None:
                break
    return held, failed


def bracket(points: Sequence[float], outcome: Outcome) -> Bracket:
    """How far the path has come: closed when no point is open between its ends. `points` ascend."""
    held, failed = _walk(points, outcome)
    return Bracket(points[held] if held >= 0 else None, points[failed] if failed < len(points) else None)


def num_steps(points: Sequence[float], found: Bracket) -> int:
    """How many more points the path takes at most: ⌈log2(n + 1)⌉ of the n points between its ends."""
    low = -math.inf if found.held is None else found.held
    high = math.inf if found.failed is None else found.failed
    return sum(low < point < high for point in points).bit_length()


def open_points(points: Sequence[float], outcome: Outcome) -> Iterator[float]:
    """The points whose outcome may still matter: the next on the path first, then what it may lead to."""
    spans = deque([points])
    while spans:
        span = spans.popleft()
        held, failed = _walk(span, outcome)
        if failed - held > 1:
            middle = (held + failed) // 2
            yield span[middle]
            spans += [span[held + 1 : middle], span[middle + 1 : failed]]


def verdict(bounds: Sequence[tuple[float, float]], target: float, error: float) -> Verdict | None:
    """What a t test says of values that are known to lie within bounds; None while they may come out either way.

    `error` is the error rate of each side. A single value is compared as it is: how others would vary is not known.
    """
    free = [place for place, (low, high) in enumerate(bounds) if low < high]
    if len(free) > _MOST_OPEN:
        return None
    from scipy.special import stdtrit  # scipy takes long to import, and not every study is a search

    # Among all values within the bounds, the extremes decide: mean + c·sd is convex, mean - c·sd is concave
    values = np.array(list(product(*(dict.fromkeys(pair) for pair in bounds))))
    n = values.shape[1]
    half = stdtrit(n - 1, 1 - error) * values.std(axis=1, ddof=1) / math.sqrt(n) if n > 1 else 0.0
    means = np.array([math.fsum(row) for row in values]) / n
    if (means - half >= target).all():
        return "holds"
    if (means + half < target).all():
        return "fails"
    return None if free else "undecided"


class Search:
    """What the loops of a search say about λ*, for each arm: a cycle at a temperature."""

    def __init__(self, config: StudyConfig, tasks: Iterable[Task]) -> None:
        self.config, self.points = config, config.search.lattice()
        self._tasks: dict[tuple[Arm, float | None, int], Task] = {}
        for task in tasks:
            loop = task.loop
            arm = (loop.cycle.kind, loop.sampling.temperature)
            self._tasks[arm, loop.cycle.synthetic_proportion, loop.seed] = task
        self._ceilings = {key[2]: task.ceiling for key, task in self._tasks.items() if task.ceiling is not None}
        self._batches = config.seed_batches()
        self._verdicts: dict[tuple[Arm, float], Verdict | None] = {}

    def _bounds(self, arm: Arm, point: float, seed: int) -> tuple[float, float]:
        """Between which values the retention at the last generation lies; all loops of a seed have the same D_0."""
        task, ceiling = self._tasks.get((arm, point, seed)), self._ceilings.get(seed, math.inf)
        if task is None:
            return 0.0, ceiling
        if task.value is not None:
            return task.value, task.value
        rise = self.config.search.max_rise
        if rise is not None and task.retention:
            ceiling = min(ceiling, min(task.retention.values()) + rise)
        return 0.0, ceiling

    def verdict(self, arm: Arm, point: float) -> Verdict | None:
        key = (arm, point)
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(arm, point)[0]
        return self._verdicts[key]

    def _judge(self, arm: Arm, point: float) -> tuple[Verdict | None, list[int]]:
        """The verdict on a point, and the seeds that it takes."""
        error = ERROR_RATE / 2 / len(self._batches)
        found: Verdict | None = None
        for seeds in self._batches:
            bounds = [self._bounds(arm, point, seed) for seed in seeds]
            found = None if math.isinf(max(high for _, high in bounds)) else verdict(bounds, self._target, error)
            if found != "undecided":
                break
        return found, seeds

    @property
    def _target(self) -> float:
        return self.config.search.target_retention

    def _paths(self, arm: Arm) -> list[Outcome]:
        """Two bisections over the same points: for the last that holds, and for the first that fails."""

        def path(undecided: bool) -> Outcome:
            before = {"holds": True, "undecided": undecided, "fails": False, None: None}
            return lambda point: before[self.verdict(arm, point)]

        return [path(undecided=False), path(undecided=True)]

    def brackets(self, arm: Arm) -> list[Bracket]:
        return [bracket(self.points, path) for path in self._paths(arm)]

    def interval(self, arm: Arm) -> Bracket:
        """Between which points λ* lies, as far as it is known; None where the lattice does not bound it."""
        holding, failing = self.brackets(arm)
        return Bracket(holding.held, failing.failed)

    def open_points(self, arm: Arm) -> list[float]:
        rows = zip_longest(*(open_points(self.points, path) for path in self._paths(arm)))
        return list(dict.fromkeys(point for row in rows for point in row if point is not None))

    def wanted(self) -> Iterator[LoopConfig]:
        """What to run next: every arm's path first. An arm whose path a failed loop blocks waits for that loop."""
        for row in zip_longest(*(self._wanted(arm) for arm in self.config.arms())):
            yield from (self.config.loop_at(*choice[0], *choice[1:]) for choice in row if choice is not None)

    def _wanted(self, arm: Arm) -> Iterator[tuple[Arm, float, int]]:
        for point in self.open_points(arm):
            found = {seed: self._tasks.get((arm, point, seed)) for seed in self._judge(arm, point)[1]}
            if any(task is not None and task.state == "failed" for task in found.values()):
                return
            for seed, task in found.items():
                if task is None or task.state == "pruned":
                    yield arm, point, seed

    def is_decided(self, loop: LoopConfig) -> bool:
        """Whether nothing depends on this loop any more."""
        arm, point = (loop.cycle.kind, loop.sampling.temperature), loop.cycle.synthetic_proportion
        if arm not in self.config.arms() or point not in self.open_points(arm):
            return True
        return loop.seed not in self._judge(arm, point)[1]

    def loops_left(self) -> int:
        """How many loops are still to be handed out, at most, if no further seeds are needed."""
        seeds = len(self._batches[0])
        steps = sum(max(num_steps(self.points, found) for found in self.brackets(arm)) for arm in self.config.arms())
        begun = sum(task.state in ("runs", "stopped") for task in self._tasks.values())
        return max(0, steps * seeds - begun)

    def values(self, arm: Arm, point: float) -> dict[int, float]:
        """Retention at the last generation by seed, of the loops that got there."""
        return {
            seed: task.value
            for (at, proportion, seed), task in self._tasks.items()
            if (at, proportion) == (arm, point) and task.value is not None
        }

    def estimate(self, arm: Arm) -> float | None:
        """Where the means, after a falling (isotonic) fit, pass the target; None if they do not."""
        from scipy.optimize import isotonic_regression

        tried = {point: values for point in self.points if (values := self.values(arm, point))}
        if len(tried) < 2:
            return None
        means = [float(np.mean(list(values.values()))) for values in tried.values()]
        weights = [len(values) for values in tried.values()]
        falling = isotonic_regression(means, weights=weights, increasing=False).x
        if not falling[0] >= self._target > falling[-1]:
            return None
        above = int(np.flatnonzero(falling >= self._target)[-1])
        (x0, x1), (y0, y1) = list(tried)[above : above + 2], falling[above : above + 2]
        return float(x0 + (x1 - x0) * (y0 - self._target) / (y0 - y1))
