"""Where a falling function passes a target: bisection that several can work on, and that knows when to stop.

The answer follows the path of a plain bisection, whatever else has been tried, so it does not depend on
how many work on it or on who is done first. Knows nothing about loops.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ouroloop.config import DataCycle, LoopConfig, StudyConfig
from ouroloop.study.queue import Direction, Queue, latest_by_cell, parameters


class Bracket(NamedTuple):
    """The largest point on the path that held and the smallest that failed; None where there is no such point."""

    held: float | None
    failed: float | None


Outcome = Callable[[float], bool | None]
"""Whether a point held; None while that is open."""


def mean_outcome(bounds: Sequence[tuple[float, float]], target: float) -> bool | None:
    """Whether the mean of values, each known to lie within its bounds, is at least `target`; None if it may yet be.

    Both sums are correctly rounded, hence monotone in every term: what is decided early is what the values
    will decide.
    """
    wanted = target * len(bounds)
    if math.fsum(lowest for lowest, _ in bounds) >= wanted:
        return True
    return None if math.fsum(highest for _, highest in bounds) >= wanted else False


def bracket(points: Sequence[float], outcome: Outcome) -> Bracket:
    """How far the path has come: closed when no point is open between its ends. `points` ascend."""
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
    return Bracket(points[held] if held >= 0 else None, points[failed] if failed < len(points) else None)


def num_steps(points: Sequence[float], found: Bracket) -> int:
    """How many more points the path takes at most: ⌈log2(n + 1)⌉ of the n between the ends."""
    between = [
        point
        for point in points
        if (found.held is None or point > found.held) and (found.failed is None or point < found.failed)
    ]
    return len(between).bit_length()


def open_points(points: Sequence[float], outcome: Outcome) -> Iterator[float]:
    """The points whose outcome may still matter: the next on the path first, then what it may lead to."""
    spans = deque([(-1, len(points))])
    while spans:
        held, failed = spans.popleft()
        if failed - held <= 1:
            continue
        middle = (held + failed) // 2
        match outcome(points[middle]):
            case True:
                spans.appendleft((middle, failed))
            case False:
                spans.appendleft((held, middle))
            case None:
                yield points[middle]
                spans += [(held, middle), (middle, failed)]


CEILING = "highest_retention"
"""Attribute of a trial: the retention that a sample with every pair of texts wholly different would have."""

_STARTUP_TRIALS = 8  # of a pareto study are drawn evenly, before TPE has anything to go by

Arm = tuple[DataCycle, float]


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """What the parameters of a study's trials may be. Those of a grid or a search can be extended."""
    if config.kind == "pareto":
        lattice = config.pareto.lattice()
        return {
            "cycle": CategoricalDistribution([kind.value for kind in config.cycles]),
            "temperature": CategoricalDistribution(config.temperatures),
            "synthetic_proportion": FloatDistribution(lattice[0], lattice[-1], step=config.pareto.precision),
        }
    return {
        "cycle": CategoricalDistribution([kind.value for kind in DataCycle]),
        "temperature": FloatDistribution(0.0, 10.0),
        "synthetic_proportion": FloatDistribution(0.0, 1.0),
        "seed": IntDistribution(0, 2**31 - 1),
    }


class Search:
    """What the trials of a search say about λ*, for each arm: a cycle at a temperature."""

    def __init__(self, config: StudyConfig, trials: Sequence[FrozenTrial]) -> None:
        self.config, self.points = config, config.search.lattice()
        self._trials = {trial.user_attrs["cell"]: trial for trial in latest_by_cell(trials)}
        self._cells: dict[tuple[Arm, float, int], str] = {}
        ceilings = [t for t in self._trials.values() if CEILING in t.user_attrs]
        self._ceilings = {t.user_attrs["loop"]["seed"]: t.user_attrs[CEILING] for t in ceilings}

    def trial(self, arm: Arm, point: float, seed: int) -> FrozenTrial | None:
        key = (arm, point, seed)
        if key not in self._cells:
            self._cells[key] = self.config.cell(*arm, point, seed).fingerprint()
        return self._trials.get(self._cells[key])

    def _bounds(self, arm: Arm, point: float, seed: int) -> tuple[float, float]:
        """Between which values the retention at the last generation lies: D_0 of a seed is that of all its loops."""
        trial, ceiling = self.trial(arm, point, seed), self._ceilings.get(seed, math.inf)
        if trial is None:
            return 0.0, ceiling
        if trial.state is TrialState.COMPLETE:
            assert trial.value is not None
            return trial.value, trial.value
        rise = self.config.search.max_rise
        if rise is not None and trial.intermediate_values:
            ceiling = min(ceiling, min(trial.intermediate_values.values()) + rise)
        return 0.0, ceiling

    def outcome(self, arm: Arm, point: float) -> bool | None:
        bounds = [self._bounds(arm, point, seed) for seed in dict.fromkeys(self.config.seeds)]
        return mean_outcome(bounds, self.config.search.target_retention)

    def bracket(self, arm: Arm) -> Bracket:
        return bracket(self.points, lambda point: self.outcome(arm, point))

    def open_points(self, arm: Arm) -> Iterator[float]:
        return open_points(self.points, lambda point: self.outcome(arm, point))

    def next_cell(self) -> tuple[Arm, float, int] | None:
        """What to run next: every arm's path first. An arm whose path a failed loop blocks has to wait for it."""
        for row in zip_longest(*(self._wanted(arm) for arm in self.config.arms())):
            for cell in row:
                if cell is not None:
                    return cell
        return None

    def _wanted(self, arm: Arm) -> Iterator[tuple[Arm, float, int]]:
        for point in self.open_points(arm):
            found = {seed: self.trial(arm, point, seed) for seed in dict.fromkeys(self.config.seeds)}
            if any(trial is not None and trial.state is TrialState.FAIL for trial in found.values()):
                return
            for seed, trial in found.items():
                if trial is None or trial.state is TrialState.PRUNED:
                    yield arm, point, seed

    def is_decided(self, loop: LoopConfig) -> bool:
        """Whether nothing depends on this loop any more."""
        arm = (loop.cycle.kind, loop.sampling.temperature)
        return arm not in self.config.arms() or loop.cycle.synthetic_proportion not in set(self.open_points(arm))


class BisectionSampler(BaseSampler):
    """Takes the next λ and seed of the search."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._config)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        cell = Search(self._config, study.get_trials(deepcopy=False)).next_cell()
        if cell is None:
            return {}
        (kind, temperature), point, seed = cell
        return {"cycle": kind.value, "temperature": temperature, "synthetic_proportion": point, "seed": seed}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise LookupError("the search needs no further loop")  # asked for one without asking whether


class DecidedPruner(BasePruner):
    """Ends a loop that can no longer change the answer of the search."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        search = Search(self._config, study.get_trials(deepcopy=False))
        return search.is_decided(LoopConfig.model_validate(trial.user_attrs["loop"]))


def directions(config: StudyConfig) -> list[Direction]:
    """Retention is wanted high; in a pareto study the share of fresh data is wanted low."""
    return ["maximize", "minimize"] if config.kind == "pareto" else ["maximize"]


def loops_to_queue(queue: Queue, config: StudyConfig) -> list[LoopConfig]:
    """What is enqueued when the command is given: every cell of a grid; else what failed and is still wanted."""
    if config.kind == "grid":
        return config.loops()
    failed = [trial for trial in queue.latest() if trial.state is TrialState.FAIL]
    loops = [LoopConfig.model_validate(trial.user_attrs["loop"]) for trial in failed]
    if config.kind == "search":
        found = Search(config, queue.trials())
        loops = [loop for loop in loops if not found.is_decided(loop)]
    return loops


def direct(study: optuna.Study, config: StudyConfig) -> None:
    """Gives a study the sampler and the pruner of its kind. A grid has nothing to decide."""
    study.pruner = DecidedPruner(config) if config.kind == "search" else NopPruner()
    match config.kind:
        case "search":
            study.sampler = BisectionSampler(config)
        case "pareto":
            # by the number of trials, so that a study goes on after a stop as it would have without
            seed = len(study.get_trials(deepcopy=False))
            study.sampler = TPESampler(
                n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True, seed=seed
            )
        case "grid":
            study.sampler = RandomSampler(seed=0)


def wants_more(queue: Queue, config: StudyConfig) -> bool:
    """Whether the study needs a loop that nobody has been given yet."""
    match config.kind:
        case "search":
            return Search(config, queue.trials()).next_cell() is not None
        case "pareto":
            return len(_counted(queue)) < config.pareto.num_trials
    return False


def loops_left(queue: Queue, config: StudyConfig) -> int:
    """How many loops nobody has been given yet, at most."""
    if config.kind == "pareto":
        return max(0, config.pareto.num_trials - len(_counted(queue)))
    if config.kind == "grid":
        return 0
    found = Search(config, queue.trials())
    steps = sum(num_steps(found.points, found.bracket(arm)) for arm in config.arms())
    held = len(queue.trials(TrialState.WAITING, TrialState.RUNNING))
    return max(0, steps * len(set(config.seeds)) - held)


def _counted(queue: Queue) -> list[FrozenTrial]:
    """Every trial but those that were given back or tried again since."""
    newest = {trial.number for trial in queue.latest()}
    return [trial for trial in queue.trials() if trial.state is not TrialState.FAIL or trial.number in newest]


def ask(queue: Queue, config: StudyConfig) -> optuna.Trial | None:
    """A new trial of ours, decided by the sampler of the study; None while it needs none."""
    with queue.exclusive():
        if not wants_more(queue, config):
            return None
        direct(queue.study, config)
        trial = queue.study.ask()
        if "cell" not in trial.user_attrs:  # else a loop that somebody has given back just now
            suggest(trial, config)
            loop = _loop(trial, queue, config)
            trial.set_user_attr("loop", loop.model_dump(mode="json"))
            trial.set_user_attr("cell", loop.fingerprint())
        return trial


def _loop(trial: optuna.Trial, queue: Queue, config: StudyConfig) -> LoopConfig:
    chosen = trial.params
    point = round(chosen["synthetic_proportion"], 9)
    kind, temperature = DataCycle(chosen["cycle"]), chosen["temperature"]
    if "seed" in chosen:
        return config.cell(kind, temperature, point, chosen["seed"])
    # A point that is chosen again is worth another seed; when all have been used, a loop that is known already
    states = {trial.user_attrs["cell"]: trial.state for trial in queue.latest()}
    loops = [config.cell(kind, temperature, point, seed) for seed in config.seeds]
    unused = (loop for loop in loops if loop.fingerprint() not in states)
    ended = (loop for loop in loops if states.get(loop.fingerprint()) is TrialState.COMPLETE)
    return next(chain(unused, ended), loops[0])


def suggest(trial: optuna.Trial, config: StudyConfig) -> None:
    """Turns what the trial was given into its parameters, so that Optuna can learn from them and plot them."""
    given = trial.user_attrs.get("loop")
    names = parameters(LoopConfig.model_validate(given)) if given else None
    for name, distribution in distributions(config).items():
        if names is not None and name not in names:
            continue  # a cycle without λ
        match distribution:
            case CategoricalDistribution():
                trial.suggest_categorical(name, distribution.choices)
            case FloatDistribution():
                trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step)
            case IntDistribution():
                trial.suggest_int(name, distribution.low, distribution.high)
