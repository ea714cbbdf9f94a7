"""The queue of a study, kept by Optuna: which loops wait, run, are done, and who holds what.

Any number of workers take from it. A trial is claimed by one conditional update, so it has one owner.
What a dead owner held goes back to the queue: in its own place its lock tells at once that it died,
elsewhere its heartbeat does, after a while. SQLite knows no SELECT … FOR UPDATE, so there every
transaction takes the write lock when it begins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import time
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from ouroloop import stores
from ouroloop.config import ConfigError, LoopConfig

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


class Queue:
    """The trials of one study. A trial's cell is the fingerprint of its loop; its loop travels with it."""

    def __init__(self, study: optuna.Study, storage: RDBStorage) -> None:
        self.study, self._storage = study, storage

    @classmethod
    def create(cls, name: str) -> "Queue":
        """The study of that name, new or as it is."""
        storage = open_storage()
        with FileLock(stores.runs_folder() / ".queue.lock"):
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        return cls(study, storage)

    @classmethod
    def load(cls, name: str) -> "Queue | None":
        storage = open_storage()
        try:
            return cls(optuna.load_study(study_name=name, storage=storage), storage)
        except KeyError:
            return None

    @staticmethod
    def names() -> list[str]:
        return sorted(optuna.get_all_study_names(open_storage()))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def add_missing(self, loops: list[LoopConfig], params: list[dict[str, Any]]) -> None:
        """Enqueues the cells that are not waiting, running or complete."""
        present = {
            trial.user_attrs["cell"]
            for trial in self.trials(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        }
        for loop, values in zip(loops, params, strict=True):
            if loop.fingerprint() not in present:
                present.add(loop.fingerprint())
                attributes = {"cell": loop.fingerprint(), "loop": loop.model_dump(mode="json")}
                self.study.enqueue_trial(values, user_attrs=attributes)

    def claim(self) -> optuna.Trial | None:
        """The next waiting trial, now RUNNING and ours; None when nothing waits."""
        for waiting in self.trials(TrialState.WAITING):
            try:
                if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    return optuna.Trial(self.study, waiting._trial_id)
            except UpdateFinishedTrialError:
                continue
        return None

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

    def finish(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        """Ends a trial of ours, unless somebody took us for dead and it has ended already."""
        with suppress(UpdateFinishedTrialError, ValueError):
            self.study.tell(trial, value, state=state)

    def release_dead(self) -> None:
        """Gives back to the queue what dead workers left RUNNING.

        A loop whose worker died `_MAX_DEATHS` times (out of memory, say) is left as FAIL.
        """
        for trial in self.trials(TrialState.RUNNING):
            if not self._is_dead(trial):
                continue
            try:
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            except UpdateFinishedTrialError:  # its owner or another starter was faster
                continue
            deaths = trial.user_attrs.get("deaths", 0) + 1
            if deaths < _MAX_DEATHS:
                kept = {key: trial.user_attrs[key] for key in ("cell", "loop")}
                self.study.enqueue_trial(_enqueued(trial), user_attrs=kept | {"deaths": deaths})

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if trial.user_attrs.get("place") == stores.place():
            return not stores.is_locked(self.study.study_name, trial.user_attrs["cell"])
        # elsewhere, or claimed and not begun: alive until its heartbeat has been missing for long
        claimed = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        beat: float = trial.user_attrs.get("beat", claimed)
        return time() - beat > _BEATS_MISSED * _BEAT_SECONDS


def _enqueued(trial: FrozenTrial) -> dict[str, Any]:
    """The values that a trial was enqueued with; it may have died before it took them up."""
    values: dict[str, Any] = trial.system_attrs["fixed_params"]
    return values
