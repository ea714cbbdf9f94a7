"""Frees what nothing needs any more: never a result, and never anything that a live process holds.

What is old enough goes: the artifacts of runs that were deleted in the MLflow UI, logs of workers, locks that a killed
process left, and what version 0.1 kept of first generations. The rows of deleted runs stay, so that a restored run
still has its curves.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time

from filelock import FileLock, Timeout

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.locks import study_is_driven
from ouroloop.record.track import Store
from ouroloop.record.urls import local_path

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


def age_seconds(text: str) -> float:
    """The seconds of an age as a person writes it: 30d, 12h.

    Raises:
        ConfigError: it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None:
        raise ConfigError(f"cannot read the age {text!r}; write a whole number and m, h, d or w, as in 30d")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Freed:
    """One kind of thing, how many of them there are, and their bytes."""

    kind: str
    count: int
    num_bytes: int


def clean(store: Store, older_than_seconds: float, dry_run: bool) -> list[Freed]:
    """Free what is older, or with `dry_run` only say what would be freed."""
    if not dry_run:
        stores.require_writable()
    before, folder = time() - older_than_seconds, stores.runs_folder()
    kinds: dict[str, Iterable[Path]] = {
        "artifacts of deleted runs": _of_deleted_runs(store, folder, before),
        "worker logs": (
            log for log in _old(folder, "logs/*-worker-*.log", before) if not study_is_driven(_study_of(log))
        ),
        "locks of killed processes": _unheld(_old(folder, "generations/*.lock", before)),
        "first generations of version 0.1": _old(folder, "shared/*", before),
    }
    return [_free(kind, found, dry_run) for kind, found in kinds.items()]


def _free(kind: str, found: Iterable[Path], dry_run: bool) -> Freed:
    count, num_bytes = 0, 0
    for path in found:
        count, num_bytes = count + 1, num_bytes + _size(path)
        if not dry_run:
            _remove(path)
    return Freed(kind, count, num_bytes)


def _old(folder: Path, pattern: str, before: float) -> Iterator[Path]:
    return (path for path in sorted(folder.glob(pattern)) if _modified(path) < before)


def _study_of(log: Path) -> str:
    return log.name.rpartition("-worker-")[0]


def _unheld(found: Iterable[Path]) -> Iterator[Path]:
    """Lock files, each while we hold it."""
    for path in found:
        with suppress(Timeout, PermissionError), FileLock(path, blocking=False):
            yield path


def _of_deleted_runs(store: Store, folder: Path, before: float) -> Iterator[Path]:
    """Artifact folders of deleted runs within our own folder: those elsewhere are somebody else's to free."""
    for uri in store.deleted_artifacts(ended_before=before):
        path = local_path(uri)
        if path is not None and path.is_relative_to(folder) and path.is_dir():
            yield path


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # renamed or freed by somebody else just now
        return time()


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
