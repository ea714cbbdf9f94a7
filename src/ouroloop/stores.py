"""Where things are kept: `mlruns/` under `OUROLOOP_ROOT`, unless the environment names other stores."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ouroloop.config import ConfigError


def runs_folder() -> Path:
    """`<root>/mlruns`; root is `OUROLOOP_ROOT`, by default the working directory."""
    return Path(os.environ.get("OUROLOOP_ROOT", ".")).resolve() / "mlruns"


def place() -> str:
    """This machine and its folder of runs: within one place, a lock tells whether its holder lives."""
    return f"{socket.gethostname()}:{runs_folder()}"


def tracking_uri() -> str:
    """MLflow's store. Absolute: a relative one would follow the working directory of each process."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_folder() / 'mlflow.db'}"


def optuna_url() -> str:
    """Optuna's store, never MLflow's: both keep an `alembic_version` table."""
    return os.environ.get("OUROLOOP_OPTUNA_URL") or f"sqlite:///{runs_folder() / 'optuna.db'}"


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


def _lock(study: str, fingerprint: str) -> FileLock:
    folder = runs_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{study}-{fingerprint[:16]}.lock", blocking=False)


@contextmanager
def locked(study: str, fingerprint: str) -> Iterator[None]:
    """Holds a loop (or, by the fingerprint "study", a study) for this process; a dead process holds nothing.

    Raises:
        ConfigError: another process of this machine holds it.
    """
    lock = _lock(study, fingerprint)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"{study} is being run by another process on this machine") from None
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
