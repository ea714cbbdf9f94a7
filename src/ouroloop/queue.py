"""The queue of a study, kept by Optuna: which loops wait, run, are done, and who holds what.

Any number of workers take from it. A trial is claimed by one conditional update, so it has one owner;
its owner sends a heartbeat, and a trial whose heartbeat has stopped goes back to the queue. SQLite
knows no SELECT … FOR UPDATE, so there every transaction takes the write lock when it begins.
"""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from ouroloop import stores
from ouroloop.config import LoopConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)

_BEAT_SECONDS = int(os.environ.get("OUROLOOP_HEARTBEAT_SECONDS", "20"))
_MAX_DEATHS = 3
_BEATS_MISSED = 4  # until a worker counts as dead; on its own machine its lock tells at once


def open_storage() -> RDBStorage:
    """Opens the database of `OUROLOOP_OPTUNA_URL`, or creates it; safe in several processes at once."""
    url = stores.optuna_url()
    is_sqlite = url.startswith("sqlite")
    with FileLock(stores.runs_folder() / ".queue.lock"):
        storage = RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True},
            heartbeat_interval=_BEAT_SECONDS,
            grace_period=_BEATS_MISSED * _BEAT_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True),
        )
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
                attributes = {"cell": loop.fingerprint(), "loop": loop.model_dump(mode="json")}
                self.study.enqueue_trial(values, user_attrs=attributes)

    def claim(self) -> optuna.Trial | None:
        """The next waiting trial, now RUNNING and ours; None when nothing waits."""
        optuna.storages.fail_stale_trials(self.study)
        for waiting in self.trials(TrialState.WAITING):
            try:
                if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    self._storage.record_heartbeat(waiting._trial_id)
                    return optuna.Trial(self.study, waiting._trial_id)
            except UpdateFinishedTrialError:
                continue
        return None

    @contextmanager
    def alive(self, trial: optuna.Trial) -> Iterator[None]:
        """Sends the trial's heartbeat inside, and marks it with the machine that works on it."""
        stop = Event()

        def beat() -> None:
            while True:
                self._storage.record_heartbeat(trial._trial_id)
                if stop.wait(_BEAT_SECONDS):
                    return

        thread = Thread(target=beat, daemon=True)
        thread.start()
        trial.set_user_attr("host", socket.gethostname())
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def release_dead(self) -> None:
        """Gives back to the queue what dead processes of this machine left RUNNING.

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
                kept = {key: value for key, value in trial.user_attrs.items() if key != "host"}
                self.study.enqueue_trial(_enqueued(trial), user_attrs=kept | {"deaths": deaths})

    def _is_dead(self, trial: FrozenTrial) -> bool:
        host = trial.user_attrs.get("host")
        if host is None:  # claimed, and not begun: alive for a moment, dead for longer
            started = trial.datetime_start or datetime.min
            return (datetime.now() - started).total_seconds() > _BEAT_SECONDS
        return bool(host == socket.gethostname()) and not stores.is_locked(
            self.study.study_name, trial.user_attrs["cell"]
        )


def _enqueued(trial: FrozenTrial) -> dict[str, Any]:
    """The values that a trial was enqueued with; it may have died before it took them up."""
    values: dict[str, Any] = trial.system_attrs["fixed_params"]
    return values
