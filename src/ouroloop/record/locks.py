"""Who holds a study or a lone loop: by a file lock, or PostgreSQL's advisory lock if that is the study's database.

A lock ends with the process that holds it, so nothing has to be declared dead by a clock.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from filelock import FileLock, Timeout

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.urls import sqlite_file

_PATIENCE_SECONDS = 1.0  # whoever only checks whether a lock is held holds it for a moment


class HeldElsewhereError(ConfigError):
    """Another process runs the loop or the study."""


def holder() -> str:
    """This process in words, for those who are refused a lock that it holds."""
    return f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}"


def _of_loop(preset: str, fingerprint: str) -> Path:
    return stores.runs_folder() / "locks" / f"{preset}-{fingerprint[:16]}.lock"


def _of_study(study: str) -> Path | None:
    """None where PostgreSQL has the lock."""
    url = stores.optuna_url()
    if url.startswith("postgres"):
        return None
    path = sqlite_file(url)
    return (path.resolve().parent if path else stores.runs_folder()) / "locks" / f"{study}-study.lock"


def _file(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


@contextmanager
def alone(preset: str, fingerprint: str) -> Iterator[None]:
    """Hold a lone loop of this root for this process.

    Raises:
        HeldElsewhereError: another process of this root holds it.
    """
    try:
        held = _file(_of_loop(preset, fingerprint)).acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        raise HeldElsewhereError(f"this loop of {preset} is being run by another process on this machine") from None
    with held:
        yield


def is_alone_held(preset: str, fingerprint: str) -> bool:
    return _is_held(_of_loop(preset, fingerprint))


def _is_held(path: Path) -> bool:
    """Whether a `FileLock` holds it; asked without writing, since the record that it locks may be read-only."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


class StudyLock:
    """The right to drive a study. Its file lies beside an SQLite store, so it holds for every root that uses it."""

    def __init__(self, study: str) -> None:
        self._study, self._url = study, stores.optuna_url()
        self._connection: Any = None
        path = _of_study(study)
        self._lock = None if path is None else _file(path)

    def acquire(self, patience: float = _PATIENCE_SECONDS) -> bool:
        """Whether it was acquired within `patience` seconds.

        Raises:
            ConfigError: the server of an advisory lock does not answer.
        """
        if self._lock is None:
            stores.require_reachable(self._url)
            return self._try_advisory(patience)
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            return False
        return True

    def _try_advisory(self, patience: float) -> bool:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        engine = create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection: Any = stores.patiently(engine.connect)
        query = text("SELECT pg_try_advisory_lock(hashtext(:name))")
        deadline = monotonic() + patience
        while not connection.execute(query, {"name": f"ouroloop study {self._study}"}).scalar():
            if monotonic() >= deadline:
                connection.close()
                return False
            sleep(0.1)
        self._connection = connection
        return True

    def keep(self) -> None:
        """Take an advisory lock again if a restart of its server has dropped it.

        Raises:
            HeldElsewhereError: somebody else was faster.
        """
        if self._connection is None:
            return
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except Exception as error:  # the driver's own kind
            if not stores.is_away(error):
                raise
            with suppress(Exception):
                self._connection.close()
            if not self._try_advisory(_PATIENCE_SECONDS):
                raise HeldElsewhereError(f"another process now drives study {self._study!r}") from None

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        if self._connection is not None:
            with suppress(Exception):  # its server may be away, and the lock with it
                self._connection.close()


def study_is_driven(study: str) -> bool:
    """Whether a process drives it now; creates nothing."""
    path = _of_study(study)
    if path is not None:
        return _is_held(path)
    lock = StudyLock(study)
    is_free = lock.acquire(patience=0)
    lock.release()
    return not is_free
