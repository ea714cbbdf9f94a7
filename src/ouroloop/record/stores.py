"""Where things are kept: `mlruns/` under `OUROLOOP_ROOT`, unless the environment names other stores."""

import errno
import os
import re
import socket
import sqlite3
import struct
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from ouroloop.config import ConfigError
from ouroloop.errors import did_you_mean, reason, shown
from ouroloop.record.urls import VARIABLES, is_server, masked, named, sqlite_file, sqlite_url

PATIENCE_SECONDS = 60.0
"""How long to wait for a database that went away."""

_REACH_SECONDS = 5.0
_is_given_up = False
_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306}
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # seconds; psycopg alone waits for 130

Result = TypeVar("Result")


class StoreError(ConfigError):
    """A store is gone, or full. What runs ends; the same command goes on when it is back."""


def runs_folder() -> Path:
    """`<root>/mlruns`; root is `OUROLOOP_ROOT`, by default the working directory."""
    return Path(os.environ.get("OUROLOOP_ROOT", ".")).resolve() / "mlruns"


def root_id() -> str:
    """An id that tells this folder of runs from every other one, whatever their machines and paths are called."""
    path = runs_folder() / ".root"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".root.{os.getpid()}")
        aside.write_text(uuid.uuid4().hex)
        with suppress(FileExistsError):
            os.link(aside, path)  # whole, or not at all
        aside.unlink()
    return path.read_text()


def tracking_uri() -> str:
    """MLflow's store. Absolute: a relative one would follow the working directory of each process."""
    return named("MLFLOW_TRACKING_URI") or sqlite_url(runs_folder() / "mlflow.db")


def optuna_url() -> str:
    """Optuna's store, never MLflow's: both keep an `alembic_version` table."""
    return named("OUROLOOP_OPTUNA_URL") or sqlite_url(runs_folder() / "optuna.db")


def asked() -> str:
    """Where runs are looked for, in words for a person."""
    return masked(" and ".join(dict.fromkeys(os.environ.get(name) or str(runs_folder()) for name in VARIABLES)))


_WOULD_YOU_ENCRYPT = struct.pack("!ii", 8, 80877103)
"""A request that every PostgreSQL server answers, with S or N, before it is told who asks."""


def require_reachable(url: str) -> None:
    """Ask the server of a store, if it has one, whether it is there: the clients alone would ask for minutes.

    Raises:
        ConfigError: nobody answers.
    """
    try:
        place = urlsplit(url)
        if is_server(url):
            bare = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}/health"
            with closing(urlopen(Request(bare), timeout=_REACH_SECONDS)):  # noqa: S310 - it begins with http
                pass
        elif place.hostname and (port := place.port or _PORTS.get(place.scheme.partition("+")[0])):
            with socket.create_connection((place.hostname, port), _REACH_SECONDS) as connection:
                if place.scheme.startswith("postgres"):
                    connection.sendall(_WOULD_YOU_ENCRYPT)
                connection.recv(1)  # MySQL speaks first
    except HTTPError:  # it answers, if not to this question
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise ConfigError(masked(f"no server answers at {url}: {why}")) from None


def make_whole(path: Path, build: Callable[[str], object]) -> None:
    """Make an SQLite store beside its place and move it there: whoever dies in between leaves nothing half-made."""
    aside = path.with_name(f".{path.name}.making")
    for leftover in path.parent.glob(f"{aside.name}*"):
        leftover.unlink()
    build(sqlite_url(aside))
    aside.replace(path)
    log_ahead(path)


def log_ahead(path: Path) -> None:
    """Make an SQLite store keep a write-ahead log, for good: commits are cheaper, and no reader holds up a writer.

    It stays as it is if somebody is using it at this moment.
    """
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode=WAL")


def is_missing(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def for_reading(path: Path) -> sqlite3.Connection:
    """Open a store that is there and may be in use: opening it as read-only would leave its write-ahead log behind."""
    how = "immutable=1" if _is_frozen(path) else "mode=rw"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)


def url_for_reading(url: str) -> str:
    """A URL of the same store for reading; where nothing may be written, one that needs no writing."""
    path = sqlite_file(url)
    if path is None or not _is_frozen(path):
        return url
    place = quote(quote(str(path.resolve())))  # SQLAlchemy undoes one, SQLite the other
    return f"sqlite+pysqlite:///file:{place}?immutable=1&uri=true"  # without the driver MLflow makes a folder "file:"


def _is_frozen(path: Path) -> bool:
    """Whether nobody is writing it, nor may: even to read it, SQLite would make a log beside it."""
    return not _is_open(path) and not path.with_name(f"{path.name}-wal").exists()


def _is_open(path: Path) -> bool:
    """Whether a file may be written, or created; a missing folder does not count against it."""
    there = (place for place in (path, path.parent) if place.exists())
    return all(place.stat().st_mode & 0o222 and os.access(place, os.W_OK) for place in there)


def may_be_written() -> bool:
    """Whether MLflow's store may be written; one that is no file counts as writable: only its server knows."""
    path = sqlite_file(tracking_uri())
    return path is None or _is_open(path)


_OWN = {"MLflow": {"experiments", "runs", "metrics"}, "Optuna": {"studies", "trials", "version_info"}}


def require_own(program: str) -> None:
    """Make sure that a program is given a database of its own: it would put its tables beside those of any other.

    Raises:
        ConfigError: MLflow and Optuna are given the same one, where each would keep an `alembic_version` table; or an
            SQLite file is another's, half made, or no database at all, which MLflow alone would try to open for 101 s.
    """
    urls = {"MLflow": tracking_uri(), "Optuna": optuna_url()}
    places = {name: sqlite_file(url) for name, url in urls.items()}
    path = places[program]
    same = {place.resolve() if place else re.sub(r"\+\w+(?=://)", "", urls[name]) for name, place in places.items()}
    if len(same) == 1:
        raise ConfigError(
            masked(
                f"MLFLOW_TRACKING_URI and OUROLOOP_OPTUNA_URL both name {urls[program]}: each needs its own database"
            )
        )
    if path is None or is_missing(path):
        return
    try:
        with closing(for_reading(path)) as database:
            found = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        if error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            return
        raise ConfigError(f"cannot open the {program} store {path}: {error}") from None
    if found and not _OWN[program] <= found:
        owner = next((f"{name}'s" for name, own in _OWN.items() if own <= found), "another program's, or incomplete")
        tables = ", ".join(sorted(found)[:4]) + ", …" * (len(found) > 4)
        raise ConfigError(
            f"{path} is not an {program} store: it is {owner} (tables {tables}); name another file, new or complete"
        )


# Queries for the names that MLflow and Optuna have on record. Their own APIs take 1.9 and 0.4 s of processor time where
# this takes milliseconds: they have to be imported, and check the version of their tables
_NAMES = {
    "study": "SELECT DISTINCT value FROM tags WHERE key = 'ouroloop.study'",
    "run": "SELECT run_uuid FROM runs",
    "model": "SELECT name FROM registered_models",
    "logged model": "SELECT model_id FROM logged_models",
    "lone loop": "SELECT run_uuid FROM tags WHERE key = 'ouroloop.level' AND value = 'loop' AND run_uuid NOT IN "
    "(SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')",
    "loop": "SELECT name FROM runs JOIN tags USING (run_uuid) WHERE key = 'ouroloop.level' AND tags.value = 'loop'",
    "queue": "SELECT study_name FROM studies",
}


def known(*kinds: str) -> list[str] | None:
    """The names on record, deleted ones included; None if a store is no SQLite file that reads as expected."""
    names: set[str] = set()
    for kind in kinds:
        path = sqlite_file(optuna_url() if kind == "queue" else tracking_uri())
        if path is None:
            return None
        if not is_missing(path):
            try:
                with closing(for_reading(path)) as database:
                    names.update(name for (name,) in database.execute(_NAMES[kind]))
            except sqlite3.Error:
                return None
    return sorted(names)


def has_no_studies() -> bool:
    """Whether Optuna's store is not there yet; False where the folder named for it is missing, which is a mistake."""
    path = sqlite_file(optuna_url())
    if path is None:
        return not _has_table("Optuna", optuna_url(), "studies")
    return is_missing(path) and (path.parent.is_dir() or path.parent == runs_folder())


def exists() -> bool:
    """Whether there is an MLflow store to read."""
    path = sqlite_file(tracking_uri())
    return not is_missing(path) if path else _has_table("MLflow", tracking_uri(), "experiments")


def _has_table(program: str, url: str, table: str) -> bool:
    """Whether a database has this table: opening it with MLflow or Optuna would create theirs. True for others."""
    if urlsplit(url).scheme.partition("+")[0] not in _PORTS:
        return True
    require_reachable(url)
    try:
        from sqlalchemy import create_engine, inspect
        from sqlalchemy.pool import NullPool

        return bool(inspect(create_engine(url, poolclass=NullPool)).has_table(table))
    except Exception as error:  # each driver raises its own
        raise ConfigError(masked(f"cannot open the {program} store {url}: {reason(error)}")) from None


def require_store() -> None:
    """Raise ConfigError when MLflow's store is a file that is not there."""
    if not exists():
        path = sqlite_file(tracking_uri())
        raise ConfigError(f"no MLflow store at {path}; OUROLOOP_ROOT and MLFLOW_TRACKING_URI say where to look")


def require_recorded(name: str, *kinds: str) -> None:
    """Refuse a mistyped name at once, where the store can be asked without MLflow.

    Raises:
        ConfigError: there is no store, or no study or loop of that name.
    """
    require_store()
    recorded = known(*kinds)
    if recorded is not None and name not in recorded:
        studies = known("study") or []
        there_are = ", ".join(studies) or "none"
        if name in (known("loop") or []):
            raise ConfigError(f"{shown(name)} is a loop; give its run id, or the name of its study: {there_are}")
        raise ConfigError(
            f"no study or loop {shown(name)} has run{did_you_mean(name, studies)}; there are: {there_are}"
        )


def require_writable(chosen: Path | None = None) -> None:
    """Create the folder of all runs, or another one, and write to it once, so that nothing long fails at its end.

    Raises:
        ConfigError: it cannot be created or written.
    """
    folder = chosen or runs_folder()
    remedy = "" if chosen else "; set OUROLOOP_ROOT to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.stat().st_mode & 0o222:  # root could write all the same, against the owner's wish
            raise PermissionError(13, "it is marked read-only")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}{remedy}") from None


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a disk that takes no more, whatever a library has made of it."""
    # Two of SQLite's, the second for a quota or limit that is reached and for a disk that fails; and safetensors'
    texts = ("disk is full", "disk I/O error", "No space left on device")
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(
        (isinstance(one, OSError) and one.errno in numbers) or any(text in str(one) for text in texts)
        for one in _chain(error)
    )


def no_room() -> StoreError:
    why = "the disk is full, a quota or limit is reached, or it fails"
    return StoreError(
        f"no room left in {runs_folder()}: {why}; make some, and the same command picks up where it left off"
    )


def is_away(error: BaseException) -> bool:
    """Whether an error says that a database server cannot be talked to at this moment. SQLite is no server."""
    drivers = ("psycopg", "psycopg2", "pymysql", "MySQLdb")
    return any(
        kind.__name__ in ("OperationalError", "InterfaceError") and kind.__module__.partition(".")[0] in drivers
        for one in _chain(error)
        for kind in type(one).__mro__
    ) or any("API request to" in str(one) and "failed with exception" in str(one) for one in _chain(error))


def patiently(call: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
    """What the call returns; it is tried again for a minute while its database is away.

    Raises:
        StoreError: it stays away. Later calls, such as those that close runs, do not wait until one has succeeded.
    """
    global _is_given_up
    begun = time.monotonic()
    while True:
        try:
            result = call(*arguments, **keywords)
        except Exception as error:
            if not is_away(error):
                raise
            if _is_given_up or time.monotonic() > begun + PATIENCE_SECONDS:
                _is_given_up = True
                line = f"a store went away: {reason(error)}; the same command goes on once it is back"
                raise StoreError(masked(line)) from None
        else:
            _is_given_up = False
            return result
        time.sleep(1.0)
