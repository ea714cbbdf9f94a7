"""The queue of a study, kept by Optuna: which loops wait, run, are done, and who holds what.

Any number of workers take from it. A trial is claimed by one conditional update, so it has one owner.
What a dead owner held goes back to the queue: in its own place its lock tells at once that it died,
elsewhere its heartbeat does, after a while. SQLite knows no SELECT … FOR UPDATE, so there every
transaction takes the write lock when it begins.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from time import time
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.record import stores

optuna.logging.set_verbosity(optuna.logging.ERROR)

_BEAT_SECONDS = int(os.environ.get("OUROLOOP_HEARTBEAT_SECONDS", "20"))
_MAX_DEATHS = 3
_BEATS_MISSED = 4  # until a worker of another place counts as dead


def open_storage() -> RDBStorage:
    """Opens the database of `OUROLOOP_OPTUNA_URL`, or creates it; safe in several processes at once.

    Raises:
        ConfigError: it cannot be opened.
    """
    url = stores.optuna_url()
    is_sqlite = url.startswith("sqlite")
    engine = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    with FileLock(stores.runs_folder() / ".queue.lock"):
        try:
            storage = RDBStorage(url, engine_kwargs=engine)
        except (SQLAlchemyError, ValueError, ImportError) as error:
            raise ConfigError(f"cannot open the Optuna store {url}: {str(error).splitlines()[0]}") from None
        if is_sqlite:
            _serialise_transactions(storage)
    return storage


def _serialise_transactions(storage: RDBStorage) -> None:
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions of its own
        connection.execute("PRAGMA journal_mode=WAL")

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", connect)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()


def latest_by_cell(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """One trial for each cell, the newest, in the order in which the cells were first enqueued."""
    return list({t.user_attrs["cell"]: t for t in trials if "cell" in t.user_attrs}.values())


def parameters(loop: LoopConfig) -> dict[str, Any]:
    """What a study may vary of a loop, as the parameters of its trial."""
    values: dict[str, Any] = {
        "cycle": loop.cycle.kind.value,
        "temperature": loop.sampling.temperature,
        "seed": loop.seed,
    }
    if loop.cycle.synthetic_proportion is not None:
        values["synthetic_proportion"] = loop.cycle.synthetic_proportion
    return values


Direction = Literal["maximize", "minimize"]


class Queue:
    """The trials of one study. A trial's cell is the fingerprint of its loop; its loop travels with it.

    A trial that has no cell yet was asked for by a process that died before it could say which; it counts for nothing.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage) -> None:
        self.study, self._storage = study, storage

    @classmethod
    def create(cls, name: str, directions: Sequence[Direction] = ("maximize",)) -> "Queue":
        """The study of that name, new or as it is."""
        storage = open_storage()
        with FileLock(stores.runs_folder() / ".queue.lock"):
            study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        return cls(study, storage)

    @classmethod
    def load(cls, name: str) -> "Queue | None":
        storage = open_storage()
        try:
            return cls(optuna.load_study(study_name=name, storage=storage), storage)
        except KeyError:
            return None

    @classmethod
    def all(cls) -> "list[Queue]":
        """Every study of the store, by name; a store that is not there is not created."""
        path = stores.sqlite_file(stores.optuna_url())
        if path is not None and path.parent.is_dir() and not path.exists():
            return []
        storage = open_storage()
        names = sorted(optuna.get_all_study_names(storage))
        return [cls(optuna.load_study(study_name=name, storage=storage), storage) for name in names]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else adds trials meanwhile: decide and add in one go."""
        with FileLock(stores.runs_folder() / ".queue.lock"), ExitStack() as held:
            if self._storage.engine.dialect.name == "postgresql":  # a file does not lock out other machines
                connection = held.enter_context(self._storage.engine.connect())
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": self._name})
            yield

    @property
    def _name(self) -> str:
        return self.study.study_name

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if "cell" in trial.user_attrs]

    def latest(self) -> list[FrozenTrial]:
        """One trial for each cell, the newest, in the order in which the cells were first enqueued."""
        return latest_by_cell(self.trials())

    def add_missing(self, loops: list[LoopConfig]) -> None:
        """Enqueues the cells that are not waiting, running, complete or pruned."""
        with self.exclusive():
            present = {trial.user_attrs["cell"] for trial in self.trials() if trial.state is not TrialState.FAIL}
            for loop in loops:
                if loop.fingerprint() not in present:
                    present.add(loop.fingerprint())
                    self._enqueue(loop)

    def _enqueue(self, loop: LoopConfig, **attributes: Any) -> None:
        attributes |= {"cell": loop.fingerprint(), "loop": loop.model_dump(mode="json")}
        self.study.enqueue_trial(parameters(loop), user_attrs=attributes)

    def claim(self) -> optuna.Trial | None:
        """The next waiting trial, now RUNNING and ours; None when nothing waits that nobody holds."""
        for waiting in self.trials(TrialState.WAITING):
            if stores.is_locked(self._name, waiting.user_attrs["cell"]):
                continue  # its former worker was taken for dead, and is not
            try:
                if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    return optuna.Trial(self.study, waiting._trial_id)
            except UpdateFinishedTrialError:
                continue
        return None

    def report(self, trial: optuna.Trial, generation: int, value: float) -> None:
        """The value after a generation; unlike Optuna's own, for studies of several objectives too."""
        with suppress(UpdateFinishedTrialError):  # somebody took us for dead; the loop itself goes on
            self._storage.set_trial_intermediate_value(trial._trial_id, generation, value)

    @contextmanager
    def alive(self, trial: optuna.Trial) -> Iterator[None]:
        """Marks the trial with our place inside, and sends its heartbeat."""
        stop = Event()

        def beat() -> None:
            while not stop.wait(_BEAT_SECONDS):
                with suppress(SQLAlchemyError, StorageInternalError, UpdateFinishedTrialError):
                    trial.set_user_attr("beat", time())  # a database that is busy now may not be at the next beat

        trial.set_user_attr("beat", time())
        trial.set_user_attr("place", stores.place())
        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def note(self, trial: optuna.Trial, **attributes: Any) -> None:
        with suppress(UpdateFinishedTrialError):
            for key, value in attributes.items():
                if trial.user_attrs.get(key) != value:
                    trial.set_user_attr(key, value)

    def finish(self, trial: optuna.Trial, state: TrialState, *values: float) -> None:
        """Ends a trial of ours, unless somebody took us for dead and it has ended already."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial._trial_id, state, values or None)

    def give_back(self, trial: optuna.Trial | FrozenTrial, deaths: int = 0) -> None:
        """Ends a trial as FAIL, and lets its loop wait for somebody who goes on with it."""
        try:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:  # its owner or another starter was faster
            return
        if deaths < _MAX_DEATHS and "cell" in trial.user_attrs:
            self._enqueue(LoopConfig.model_validate(trial.user_attrs["loop"]), deaths=deaths)

    def release_dead(self) -> None:
        """Gives back to the queue what dead workers left RUNNING.

        A loop whose worker died `_MAX_DEATHS` times (out of memory, say) is left as FAIL.
        """
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if self._is_dead(trial):
                self.give_back(trial, trial.user_attrs.get("deaths", 0) + 1)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if trial.user_attrs.get("place") == stores.place():
            return not stores.is_locked(self.study.study_name, trial.user_attrs["cell"])
        # elsewhere, or claimed and not begun: alive until its heartbeat has been missing for long
        claimed = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        beat: float = trial.user_attrs.get("beat", claimed)
        return time() - beat > _BEATS_MISSED * _BEAT_SECONDS
