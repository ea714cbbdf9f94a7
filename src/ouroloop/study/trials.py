"""The trials of a study in Optuna: which loops were asked for, and what came back. Only the driver writes them.

A trial is one loop that has come to an end, with its configuration as a user attribute: that is the only copy that
counts. Which loops are begun, and how far they have come, is an attribute of the study, so that `status` needs no more
than this database; only a loop that Optuna's sampler has chosen is a trial from then on. Where Optuna and MLflow's
record disagree about what is finished, the record is right.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.errors import reason
from ouroloop.record import stores
from ouroloop.record.urls import masked, sqlite_file
from ouroloop.study.config import StudyConfig
from ouroloop.study.task import BEGUN, KEY, Recorded, Task, Told, progress_key

optuna.logging.set_verbosity(optuna.logging.ERROR)


_STARTUP_TRIALS = 8  # so many of a pareto study are drawn evenly, before TPE has anything to go by

_ENDS = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def open_storage() -> RDBStorage:
    """Open the database of `OUROLOOP_OPTUNA_URL`, or create it.

    Raises:
        ConfigError: it cannot be opened.
    """
    url = stores.optuna_url()
    path = sqlite_file(url)
    stores.require_reachable(url)
    stores.require_own("Optuna")
    try:
        if path is not None and path.parent.is_dir() and stores.is_missing(path):
            with FileLock(path.with_name(f".{path.name}.lock")):
                if stores.is_missing(path):
                    stores.make_whole(path, _create)
        # Connections to a server are not kept: that it has dropped one would show only in mid-transaction
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if path is not None else {"poolclass": NullPool}
        return RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ValueError, ImportError, RuntimeError) as error:
        said = reason(error).removesuffix(f": {url}")
        raise ConfigError(masked(f"cannot open the Optuna store {url}: {said}")) from None


def _create(url: str) -> None:
    storage = RDBStorage(url)
    storage.remove_session()
    storage.engine.dispose()


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """What the parameters of a study's trials may be. Those of a grid or a search leave room to extend it."""
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


def parameters(loop: LoopConfig) -> dict[str, Any]:
    """What a study may vary in a loop, as the parameters of its trial."""
    return {
        "cycle": loop.cycle.kind.value,
        "temperature": loop.sampling.temperature,
        "synthetic_proportion": loop.cycle.effective_proportion,
        "seed": loop.seed,
    }


class Trials:
    """The trials of one study."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._begun: dict[str, dict[str, Any]] = {}
        """By task, the loop and the progress of what is no trial yet."""

    @classmethod
    def create(cls, name: str, config: StudyConfig) -> "Trials":
        """The study of that name, new or as it stands; nothing of it runs yet.

        Retention is maximised; in a pareto study, fresh data is minimised.
        """
        directions = ["maximize", "minimize"] if config.kind == "pareto" else ["maximize"]
        options = {"study_name": name, "directions": directions, "load_if_exists": True}
        trials = cls(stores.patiently(optuna.create_study, storage=open_storage(), **options))
        trials._begun = dict(trials.attributes.get(BEGUN, {}))
        trials._take_over()
        return trials

    @classmethod
    def all(cls) -> "list[Trials]":
        """Every study of the store that was begun, by name; a store that is not there is not created."""
        if stores.has_no_studies():
            return []
        storage = open_storage()
        names = sorted(optuna.get_all_study_names(storage))
        found = [cls(optuna.load_study(study_name=name, storage=storage)) for name in names]
        return [one for one in found if "config" in one.attributes]

    @classmethod
    def load(cls, name: str) -> "Trials | None":
        return next((one for one in cls.all() if one.name == name), None)

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def attributes(self) -> dict[str, Any]:
        """What is noted about the study."""
        return stores.patiently(lambda: self.study.user_attrs)

    def frozen(self, *states: TrialState) -> list[FrozenTrial]:
        """Optuna's own trials, in these states or in any: nobody may change them."""
        return stores.patiently(self.study.get_trials, deepcopy=False, states=states or None)

    @property
    def config(self) -> StudyConfig | None:
        """What the study was started with; None before that. Raises what `Recorded.config` does."""
        return Recorded(self.name, self.attributes).config

    def note(self, **attributes: Any) -> None:
        for key, value in attributes.items():
            stores.patiently(self.study.set_user_attr, key, value)

    def recorded(self) -> Recorded:
        """The same as `recorded_studies` gives from an SQLite file."""
        told = [
            Told(one.number, one.state.name, one.user_attrs, one.values[0] if one.values else None,
                 one.intermediate_values)
            for one in self.frozen()
        ]  # fmt: skip
        return Recorded(self.name, self.attributes, told)

    def tasks(self) -> dict[str, Task]:
        """See `Recorded.tasks`."""
        return self.recorded().tasks()

    def ask(self, config: StudyConfig) -> optuna.Trial:
        """A trial whose parameters the sampler has chosen; `name_asked` says which loop it becomes."""
        # seeded by the number of trials, so that a study goes on after a stop as it would have without one
        seed = len(self.frozen())
        self.study.sampler = TPESampler(
            n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True, seed=seed
        )
        return stores.patiently(self.study.ask, fixed_distributions=distributions(config))

    def name_asked(self, trial: optuna.Trial, task: Task) -> None:
        stores.patiently(trial.set_user_attr, "loop", task.loop.model_dump(mode="json"))
        stores.patiently(trial.set_user_attr, KEY, task.key)
        task.number = trial.number

    def _take_over(self) -> None:
        """Fail what an earlier version had queued, and the trials of processes that died in the middle of asking.

        Loops that are wanted are asked for again. Of a loop's trials, the newest counts. What ran is now stopped.
        """
        for _ in self.frozen(TrialState.WAITING):
            self._tell(stores.patiently(self.study.ask).number, TrialState.FAIL)
        tasks = self.tasks().values()
        newest = {task.number for task in tasks}
        for trial in self.frozen(TrialState.RUNNING):
            if trial.number not in newest:
                self._tell(trial.number, TrialState.FAIL)
        self.note_progress(*(replace(task, state="stopped") for task in tasks if task.state == "runs"))

    def note_progress(self, *tasks: Task) -> None:
        """Note how far loops that are begun have come."""
        for task in tasks:
            if task.number is not None:
                self.note(**{progress_key(task.number): task.progress})
            else:
                self._begun[task.key] = {"loop": task.loop.model_dump(mode="json"), "progress": task.progress}
        if any(task.number is None for task in tasks):
            self.note(**{BEGUN: self._begun})

    def end(self, task: Task, config: StudyConfig, values: Sequence[float] = ()) -> None:
        """Tell Optuna what came of a loop; a trial that has been told already stays as it is."""
        told, state = list(values[: len(self.study.directions)]) or None, _ENDS[task.state]
        if task.number is not None:
            self.note_progress(task)
            self._tell(task.number, state, told)
            return
        known, chosen = distributions(config), parameters(task.loop)
        params = {name: chosen[name] for name in known}
        attributes = {KEY: task.key, "loop": task.loop.model_dump(mode="json"), "progress": task.progress}
        trial = create_trial(state=state, values=told, params=params, distributions=known, user_attrs=attributes)
        self._add(trial)
        if self._begun.pop(task.key, None) and task.state != "done":  # done: the next one to begin strikes it off
            self.note(**{BEGUN: self._begun})

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        with suppress(ValueError):  # told before the connection broke
            stores.patiently(self.study.tell, number, values, state=state)

    def _add(self, trial: FrozenTrial) -> None:
        """Add a trial once, even if the connection breaks after it is added and before that is known."""
        tries = count(1)

        def add() -> None:
            if next(tries) > 1:
                there = self.study.get_trials(deepcopy=False)
                if there and there[-1].user_attrs == trial.user_attrs:
                    return
            self.study.add_trial(trial)

        stores.patiently(add)
