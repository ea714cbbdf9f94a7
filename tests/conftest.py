"""Shared by the tests: a tiny loop, and real MLflow and Optuna stores in a temporary root."""

import gc
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Before torch is loaded: threads of several test processes on few cores wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock
from hypothesis import settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ouroloop.cli import main
from ouroloop.config import EmpiricalConfig, LoopConfig
from ouroloop.record.liveness import SIGNALS, catch_signals

REPOSITORY = Path(__file__).parent.parent

# A test process holds a million objects of its libraries, none of them garbage, and collections look at each: there
# are none while they are imported, and afterwards they leave these out
gc.disable()

# What a test wrote need not survive the machine: no commit waits for the disk
event.listen(Engine, "connect", lambda connection, _: _hurry(connection))


def _hurry(connection: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


settings.register_profile("ouroloop", deadline=None)  # a loaded machine is no failure
settings.load_profile("ouroloop")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)
    gc.enable()


TINY = {
    "seed": 5,
    "num_generations": 3,
    "data": {"num_examples": 40, "max_depth": 2},
    "model": {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "context_length": 32},
    "train": {"num_steps": 12, "batch_size": 8, "learning_rate": 0.01, "num_warmup_steps": 2, "validate_every": 4},
    "sampling": {"max_new_tokens": 20},
}

COLLAPSING = {
    "cycles": ["incremental"],
    "synthetic_proportions": [0.5, 1.0],
    "temperatures": [0.1],
    "seeds": [1, 2],
    "loop": TINY | {"keep_weights": "stages", "stages": {"healthy": 0.3, "onset": 0.2, "decline": 0.1}},
}
del COLLAPSING["loop"]["seed"]  # type: ignore[attr-defined]


@pytest.fixture
def tiny() -> LoopConfig:
    """Trains in a fraction of a second, and badly: most of its samples are malformed."""
    return LoopConfig.model_validate(TINY)


@pytest.fixture
def ideal(tiny: LoopConfig) -> LoopConfig:
    """The same loop with the ideal learner: what is asked of the loop alone needs no network."""
    return tiny.changed(model=EmpiricalConfig(kind="empirical"), train=None)


@contextmanager
def own_handlers() -> Iterator[None]:
    """Whatever is installed for signals inside is gone afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def caught_signals() -> Iterator[None]:
    """Signals raise `Interrupted` in this process, as in the command line's."""
    with own_handlers():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and then stays so
        catch_signals()
        yield
        catch_signals()  # forgets what came


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's store as the program makes it, with nothing in it."""
    from mlflow.store.db import utils

    from ouroloop.record.track import Store

    # For every store that it opens MLflow loads its sixty migrations to see which one is the newest
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUROLOOP_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store.open()
    path = root / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def copy_store(empty_store: Path, root: Path) -> None:
    """Puts an empty store into a root, in milliseconds."""
    (root / "mlruns").mkdir(parents=True)
    path = root / "mlruns" / "mlflow.db"
    shutil.copy(empty_store, path)
    place = "UPDATE experiments SET artifact_location = ? WHERE name = 'ouroloop'"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(place, ((root / "mlruns" / "artifacts").as_uri(),))


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh OUROLOOP_ROOT with an empty store."""
    copy_store(empty_store, tmp_path)
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("OUROLOOP_OPTUNA_URL", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def collapsing_root(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A root with a study of two cells and two seeds, run and registered, without a report: nearly greedy sampling
    makes its loops collapse in three generations. Made once for all processes that share the tests."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "collapsing"
    with FileLock(root.with_suffix(".lock")):
        if not root.exists():
            fill_collapsing(root, empty_store)
    return root


def fill_collapsing(root: Path, empty_store: Path) -> None:
    from rich.console import Console

    from ouroloop.record.track import Store
    from ouroloop.report.registry import register
    from ouroloop.study.config import StudyConfig
    from ouroloop.study.driver import run_study

    copy_store(empty_store, root)
    with pytest.MonkeyPatch.context() as patch, own_handlers():
        patch.setenv("OUROLOOP_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("OUROLOOP_OPTUNA_URL", raising=False)
        assert run_study(StudyConfig.model_validate(COLLAPSING), "collapsing", Console(quiet=True)) == 0
        register(Store.existing(), "collapsing")


@pytest.fixture
def collapsing(root: Path, collapsing_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stores of `collapsing_root`, to be read and not changed; for other tools by MLflow's own variable."""
    monkeypatch.setenv("OUROLOOP_ROOT", str(collapsing_root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{collapsing_root / 'mlruns' / 'mlflow.db'}")
    return collapsing_root


def postgresql_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of our own on a free port of this machine, and the URL of its database."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to be root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        data = Path(folder) / "data"
        data.mkdir()
        if user:
            shutil.chown(data, user)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
        control = [programs / "pg_ctl", "-D", data, "-w", "-s"]
        create = [programs / "initdb", "-D", data, "-A", "trust", "-U", "ouroloop"]
        for command in (create, [*control, "-l", data / "log", "-o", options, "start"]):
            subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd=data)
        try:
            yield f"postgresql+psycopg://ouroloop@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, user=user, cwd=data)


class Done(NamedTuple):
    """What a command left: exit code and both outputs."""

    returncode: int
    stdout: str
    stderr: str


CommandLine = Callable[..., Done]

IDEAL = TINY | {"model": {"kind": "empirical"}, "train": None}
"""The ideal learner, which has no torch to import and computes a generation in milliseconds."""
IDEAL_LOOP = {key: value for key, value in IDEAL.items() if key != "seed"}
"""The same in a study, whose the seed is to say."""


@pytest.fixture
def ouroloop(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """The command line on the stores of `root`, in this process: importing torch anew takes seconds.

    The tests of signals, kills and workers start processes of their own.
    """

    def call(*arguments: str, cwd: Path = REPOSITORY) -> Done:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        try:
            returncode = main(list(arguments))
        except SystemExit as left:
            returncode = left.code if isinstance(left.code, int) else 1
        captured = capsys.readouterr()
        return Done(returncode, captured.out, captured.err)

    with own_handlers():
        yield call
