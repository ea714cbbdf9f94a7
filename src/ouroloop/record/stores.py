"""Where things are kept: `mlruns/` under `OUROLOOP_ROOT`, unless the environment names other stores."""

import errno
import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from ouroloop.config import ConfigError

_PATIENCE_SECONDS = 1.0  # whoever only looks whether a lock is held, holds it for a moment


class HeldElsewhereError(ConfigError):
    """Another process of this machine runs the loop or the study."""


def runs_folder() -> Path:
    """`<root>/mlruns`; root is `OUROLOOP_ROOT`, by default the working directory."""
    return Path(os.environ.get("OUROLOOP_ROOT", ".")).resolve() / "mlruns"


def place() -> str:
    """This machine and its folder of runs: within one place, a lock tells whether its holder lives."""
    return f"{socket.gethostname()}:{runs_folder()}"


def tracking_uri() -> str:
    """MLflow's store. Absolute: a relative one would follow the working directory of each process."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_folder() / 'mlflow.db'}"


def sqlite_file(url: str) -> Path | None:
    """Where an SQLite store lies, whether it is there or not; None for a store of another kind."""
    kind, _, path = url.partition(":///")
    return Path(path) if kind == "sqlite" else None


def log_ahead(url: str) -> None:
    """Makes an SQLite store keep a write-ahead log, for good: commits are cheaper, and no reader holds up a writer.

    Somebody who uses it at this moment keeps it as it is.
    """
    path = sqlite_file(url)
    if path is not None:
        with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")


def optuna_url() -> str:
    """Optuna's store, never MLflow's: both keep an `alembic_version` table."""
    return os.environ.get("OUROLOOP_OPTUNA_URL") or f"sqlite:///{runs_folder() / 'optuna.db'}"


# What MLflow and Optuna would be asked for these names; their imports and checks take seconds
_NAMES = {
    "study": "SELECT DISTINCT value FROM tags WHERE key = 'ouroloop.study'",
    "run": "SELECT run_uuid FROM runs",
    "model": "SELECT name FROM registered_models",
    "logged model": "SELECT model_id FROM logged_models",
    "queue": "SELECT study_name FROM studies",
}


def known(*kinds: str) -> list[str] | None:
    """The names on record, of deleted ones too; None if a store is no SQLite file that reads as expected."""
    names: set[str] = set()
    for kind in kinds:
        path = sqlite_file(optuna_url() if kind == "queue" else tracking_uri())
        if path is None:
            return None
        if path.is_file():
            try:
                with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
                    names.update(name for (name,) in database.execute(_NAMES[kind]))
            except sqlite3.Error:
                return None
    return sorted(names)


def require_store() -> None:
    """Raises ConfigError when MLflow's store is a file that is not there."""
    path = sqlite_file(tracking_uri())
    if path is not None and not path.is_file():
        raise ConfigError(f"no MLflow store at {path}; OUROLOOP_ROOT and MLFLOW_TRACKING_URI say where to look")


def require_writable() -> None:
    """Creates the folder and writes to it once, so that a long run does not fail at its end.

    Raises:
        ConfigError: it cannot be created or written.
    """
    folder = runs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.stat().st_mode & 0o222:  # root could write all the same, against the owner's wish
            raise PermissionError(13, "it is marked read-only")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; set OUROLOOP_ROOT to another folder") from None


def is_full(error: BaseException | None) -> bool:
    """Whether an error comes of a disk without room, whatever a library made of it on its way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "disk is full" in str(error) or "No space left on device" in str(error):  # SQLite's, and safetensors'
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room() -> ConfigError:
    return ConfigError(f"no room left in {runs_folder()}; make some, and the same command goes on where it was")


def _lock(study: str, fingerprint: str) -> FileLock:
    folder = runs_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{study}-{fingerprint[:16]}.lock", blocking=False)


@contextmanager
def locked(study: str, fingerprint: str) -> Iterator[None]:
    """Holds a loop (or, by the fingerprint "study", a study) for this process; a dead process holds nothing.

    Raises:
        HeldElsewhereError: another process of this machine holds it.
    """
    lock = _lock(study, fingerprint)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS, blocking=True)
    except Timeout:
        raise HeldElsewhereError(f"{study} is being run by another process on this machine") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(study: str, fingerprint: str) -> bool:
    lock = _lock(study, fingerprint)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False
