"""Frees what nothing needs any more: never a result, and never anything that a live process holds.

What is old enough goes when its lock can be had: shared first generations that no loop has used since,
halves of them that a killed process left, lock files, logs of workers, and the artifacts of runs that were
deleted in the MLflow UI. The rows of those runs stay, so that a restored run still has its curves.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.track import Store

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


def age_seconds(text: str) -> float:
    """An age as a person writes it: 30d, 12h.

    Raises:
        ConfigError: it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None:
        raise ConfigError(f"cannot read the age {text!r}; write a whole number and m, h, d or w, as in 30d")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Freed:
    """One kind of thing, how many of it, and their bytes."""

    kind: str
    count: int
    num_bytes: int


def clean(store: Store, older_than_seconds: float, dry_run: bool) -> list[Freed]:
    """Frees what is older, or with `dry_run` only says what it would free."""
    before = time() - older_than_seconds
    folder = stores.runs_folder()
    kinds: dict[str, Callable[[], Iterator[Path]]] = {
        "shared first generations": lambda: _unheld(folder / "shared", "*", before),
        "halves left by killed processes": lambda: _unheld(folder / "shared", ".writing-*", before),
        "worker logs": lambda: _logs(folder, before),
        "artifacts of deleted runs": lambda: _of_deleted_runs(store, folder, before),
        "lock files": lambda: _locks(folder, before),  # last: the others need theirs
    }
    freed = []
    for kind, found in kinds.items():
        count, num_bytes = 0, 0
        for path in found():
            count, num_bytes = count + 1, num_bytes + _size(path)
            if not dry_run:
                _remove(path)
        freed.append(Freed(kind, count, num_bytes))
    return freed


def _unheld(folder: Path, pattern: str, before: float) -> Iterator[Path]:
    """Folders of `shared`, each while we hold the lock under which it is written and read."""
    for path in sorted(folder.glob(pattern)):
        key = path.name.removeprefix(".writing-").partition("-")[0]
        if path.is_dir() and path.name.startswith(".writing-") == pattern.startswith(".") and _modified(path) < before:
            with suppress(Timeout), FileLock(folder / f"{key}.lock", blocking=False):
                yield path


def _locks(folder: Path, before: float) -> Iterator[Path]:
    for path in sorted([*folder.glob("locks/*.lock"), *folder.glob("shared/*.lock")]):
        if _modified(path) < before and not path.with_suffix("").exists():
            with suppress(Timeout), FileLock(path, blocking=False):
                yield path


def _logs(folder: Path, before: float) -> Iterator[Path]:
    """Logs of studies of which nothing is held here."""
    for path in sorted(folder.glob("logs/*.log")):
        study = path.name.partition("-worker-")[0]
        if _modified(path) < before and not any(_is_held(lock) for lock in folder.glob(f"locks/{study}-*.lock")):
            yield path


def _of_deleted_runs(store: Store, folder: Path, before: float) -> Iterator[Path]:
    """Folders within our own: artifacts elsewhere are somebody else's to free."""
    for uri in store.deleted_artifacts(ended_before=before):
        place = urlsplit(uri)
        path = Path(url2pathname(place.path))
        if place.scheme == "file" and path.is_relative_to(folder) and path.is_dir():
            yield path


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True


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
