"""Stores that are half made, gone, deleted or out of reach: one line each, with the way out, and no secret in it."""

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.track import Store
from ouroloop.record.urls import sqlite_file
from ouroloop.study.recorded import recorded_studies
from ouroloop.study.trials import open_storage
from ouroloop.study.work import _study
from tests.conftest import IDEAL_LOOP, TINY, CommandLine

RUN = [
    sys.executable,
    "-m",
    "ouroloop",
    "run",
    "smoke",
    "--num_generations=1",
    "--model.kind=empirical",
    "--train=null",
]


PASSWORD = "word-that-nobody-sees"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_killed_while_it_makes_the_store_it_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    process = subprocess.Popen(RUN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not [*(tmp_path / "mlruns").glob("*mlflow.db*")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()  # half of it has another name
    done = subprocess.run(RUN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [*(tmp_path / "mlruns").glob(".mlflow.db.making*")]


FOREIGN = {
    "half made": ["metrics", "_alembic_tmp_tags"],  # as versions left it that made stores where they lie
    "another program's": ["letters"],
}


@pytest.mark.parametrize("whose", ["the other's", *FOREIGN])
@pytest.mark.parametrize(
    ("variable", "opened"),
    [
        ("MLFLOW_TRACKING_URI", Store.open),
        ("MLFLOW_TRACKING_URI", Store.existing),
        ("OUROLOOP_OPTUNA_URL", open_storage),
        ("OUROLOOP_OPTUNA_URL", recorded_studies),
    ],
)
def test_a_database_that_is_not_the_programs_own_stays_as_it_is(
    whose: str, variable: str, opened: Callable[[], object], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not known was once taken for a half and made anew: runs and studies were lost by it."""
    path = root / "whose.db"
    if whose == "the other's":
        open_storage().engine.dispose()
        (root / "mlruns" / ("optuna.db" if variable == "MLFLOW_TRACKING_URI" else "mlflow.db")).rename(path)
    else:
        with closing(sqlite3.connect(path)) as database:
            for table in FOREIGN[whose]:
                database.execute(f"CREATE TABLE {table} (key TEXT)")
    before = path.read_bytes()
    monkeypatch.setenv(variable, f"sqlite:///{path}")
    owner = "another program's, or incomplete"
    if whose == "the other's":
        owner = "Optuna's" if variable == "MLFLOW_TRACKING_URI" else "MLflow's"
    with pytest.raises(ConfigError, match=rf"whose.db is not an \w+ store: it is {owner} \(tables "):
        opened()
    assert path.read_bytes() == before


@pytest.mark.parametrize("spelled", ["sqlite:///{root}/mlruns/mlflow.db", "sqlite:///{root}/link/mlflow.db?timeout=9"])
@pytest.mark.parametrize("opened", [Store.open, open_storage])
def test_one_database_for_both_is_one_line(
    spelled: str, opened: Callable[[], object], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "link").symlink_to(root / "mlruns")
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", spelled.format(root=root))
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI and OUROLOOP_OPTUNA_URL both name sqlite:"):
        opened()


@pytest.mark.parametrize(
    ("mlflow", "optuna", "is_same"),
    [
        ("postgresql://u:word@h/x", "postgresql+psycopg://u:word@h/x", True),
        ("postgresql://u:word@h/x", "postgresql+psycopg://u:word@h/y", False),
        ("http://h:5000", "postgresql+psycopg://u:word@h/y", False),
    ],
)
def test_one_database_of_a_server_for_both_is_one_line(
    mlflow: str, optuna: str, is_same: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", optuna)
    with nullcontext() if not is_same else pytest.raises(ConfigError, match=r"both name postgresql://u:\*\*\*@h/x: "):
        stores.require_own("MLflow")


def test_an_empty_file_becomes_a_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlruns" / "mlflow.db").unlink()
    for name in ("mlflow.db", "optuna.db"):
        (root / "mlruns" / name).touch()
    assert Store.open().find() == []
    open_storage().engine.dispose()
    assert recorded_studies() == []


@pytest.mark.usefixtures("root")
def test_a_deleted_experiment_is_one_line() -> None:
    store = Store.open()
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(ConfigError, match="mlflow experiments restore --experiment-id"):
        Store.open()


def test_an_optuna_store_of_another_schema_is_one_line(root: Path) -> None:
    open_storage().engine.dispose()
    with sqlite3.connect(root / "mlruns" / "optuna.db") as connection:
        connection.execute("INSERT INTO studies (study_name) VALUES ('a study')")
        connection.execute("UPDATE version_info SET schema_version = 3")
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()
    with pytest.raises(ConfigError, match="cannot open the Optuna store"):
        open_storage()


def test_the_query_of_a_url_is_no_part_of_a_file_name(
    ouroloop: CommandLine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", f"sqlite:///{root}/my.db?timeout=60")
    open_storage().engine.dispose()
    assert [path.name for path in root.glob("my.db*") if not path.name.endswith(("-wal", "-shm"))] == ["my.db"]
    assert sqlite_file(stores.optuna_url()) == root / "my.db"
    assert sqlite_file("postgresql://h/x") is None


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_said_within_seconds(tmp_path: Path) -> None:
    environment = os.environ | {"OUROLOOP_ROOT": str(tmp_path), "MLFLOW_TRACKING_URI": "http://u:secret@127.0.0.1:9"}
    begin = time.monotonic()
    done = subprocess.run(RUN, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert time.monotonic() - begin < 180  # most of it the start, on a busy machine; MLflow alone asks for 245 s
    assert done.returncode == 2
    assert done.stderr.startswith("ouroloop: no server answers at http://u:***@127.0.0.1:9: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up_within_seconds(scheme: str) -> None:
    unanswered, begin = rf"no server answers at {scheme}://u:\*\*\*@127.0.0.1:\d+/db: .*timed out", time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigError, match=unanswered):
        stores.require_reachable(f"{scheme}://u:pw@127.0.0.1:{silent.getsockname()[1]}/db")
    assert time.monotonic() - begin < 20


class _EmptyMlflow(BaseHTTPRequestHandler):
    """Of an MLflow server in which nothing has run, what is asked of it."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        is_alive = self.path == "/health"
        self.send_response(200 if is_alive else 404)
        self.end_headers()
        self.wfile.write(b"OK" if is_alive else b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}')

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


READERS = ("status", "report x", "clean --older-than=1d --dry-run", "compare x", "sample models:/x@y", "ui")


def test_readers_of_a_server_in_which_nothing_has_run_create_nothing(
    ouroloop: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path / "nothing"))
    _EmptyMlflow.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyMlflow) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        try:
            done = {command: ouroloop(*command.split()) for command in READERS}
        finally:
            server.shutdown()
    for command, (returncode, stdout, stderr) in done.items():
        assert f"nothing has run in {address}" in (stdout if command == "status" else stderr), command
        assert returncode == (0 if command == "status" else 2)
    assert {one.partition(" ")[0] for one in _EmptyMlflow.asked} == {"GET"}
    assert list((tmp_path / "nothing").iterdir()) == []


@pytest.mark.slow
def test_readers_of_an_empty_database_make_no_tables(
    postgresql: str, ouroloop: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path / "nothing"))
    plain = postgresql.replace("+psycopg", "").replace("/postgres", "")
    with psycopg.connect(f"{plain}/postgres", autocommit=True) as connection:
        for name in ("empty_mlflow", "empty_optuna"):
            connection.execute(f"CREATE DATABASE {name}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql.replace("/postgres", "/empty_mlflow"))
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", postgresql.replace("/postgres", "/empty_optuna"))
    for command in READERS:
        assert ouroloop(*command.split()).returncode == (0 if command == "status" else 2)
    for name in ("empty_mlflow", "empty_optuna"):
        with psycopg.connect(f"{plain}/{name}") as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert tables.fetchall() == []
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("is_in_use", [False, True])
def test_a_record_that_may_not_be_written_is_read(
    is_in_use: bool, ouroloop: CommandLine, collapsing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder where SQLite could make no log. Root may write there, so nothing there may have changed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path / "copy"))
    monkeypatch.setattr(stores.os, "access", lambda path, mode: False)
    folder = tmp_path / "copy" / "mlruns"
    folder.mkdir(parents=True)
    for name in ("mlflow.db", "optuna.db"):
        with closing(sqlite3.connect(collapsing / "mlruns" / name)) as database:
            database.execute("VACUUM INTO ?", [str(folder / name)])
        stores.log_ahead(folder / name)
    with closing(sqlite3.connect(folder / "mlflow.db")) as user:
        if is_in_use:
            user.execute("SELECT * FROM runs").fetchone()
        before = sorted(path.name for path in folder.iterdir())
        assert ("mlflow.db-wal" in before) == is_in_use
        folder.chmod(0o555)
        try:
            assert "collapsing: 4 done" in ouroloop("status").stdout
            done = ouroloop("report", "collapsing", "--folder", str(tmp_path / "report"))
            assert (done.returncode, done.stderr) == (0, "")
            for command in ("register collapsing", "clean --older-than=0m", "ui"):
                done = ouroloop(*command.split())
                assert done.returncode == 2
                assert "marked read-only" in done.stderr
        finally:
            folder.chmod(0o755)
        assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.heavy
def test_a_database_that_stays_away_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 1.5)
    asked = []

    def ask() -> None:
        asked.append(time.monotonic())
        if len(asked) < 7:
            raise RuntimeError("MLflow says so") from psycopg.OperationalError("terminating connection")

    with pytest.raises(stores.StoreError, match="a store went away: MLflow says so; the same command goes on"):
        stores.patiently(ask)
    assert len(asked) == 3
    for _ in range(3):  # those that close runs on the way out
        with pytest.raises(stores.StoreError):
            stores.patiently(ask)
    assert len(asked) == 6
    assert stores.patiently(ask) is None  # it is back
    with pytest.raises(sqlite3.OperationalError):  # which is no server, and will not come back
        stores.patiently(sqlite3.connect, "/no/such/folder/x.db")


def test_a_worker_that_begins_while_a_database_restarts_waits_for_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    study, tries = Store.open().create("study", None, {"level": "study"}), count()

    def client(uri: str) -> MlflowClient:
        if next(tries) == 0:
            raise psycopg.OperationalError("terminating connection due to administrator command")
        return MlflowClient(uri)

    monkeypatch.setattr("ouroloop.record.track.MlflowClient", client)
    monkeypatch.setattr(stores.time, "sleep", lambda _: None)
    assert _study(stores.tracking_uri(), str(root), study.id)[1].id == study.id


def command_lines() -> str:
    """Of every process of the machine."""
    titles = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            titles.append(path.read_text(errors="replace"))
    return "\n".join(titles)


@pytest.mark.slow
def test_a_database_that_restarts_is_waited_for(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stores in it, and every connection cut in the middle of a sweep; no process shows the password."""
    import psycopg
    import yaml

    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({"synthetic_proportions": [0.5], "seeds": [1, 2], "loop": IDEAL_LOOP | {"num_generations": 20}})
    )
    plain, secret = postgresql.replace("+psycopg", ""), postgresql.replace("ouroloop@", f"ouroloop:{PASSWORD}@")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", secret)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret.replace("/postgres", "/mlflow"))
    command = [sys.executable, "-m", "ouroloop", "sweep", str(tmp_path / "study.yaml"), "--workers=2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "generation   " in line and "generation   0" not in line:
            break
    else:
        pytest.fail(f"It ended with {process.wait()} before its first generation: {said}")
    assert "spawn_main" in command_lines()
    assert PASSWORD not in command_lines()
    for _ in range(3):
        time.sleep(1.0)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0, rest
    assert "Traceback" not in rest
    assert PASSWORD not in rest
    assert all(PASSWORD not in log.read_text() for log in (tmp_path / "mlruns" / "logs").iterdir())
    monkeypatch.undo()


@pytest.mark.slow
def test_slurm_around_a_loop_is_no_business_of_its_trainer(root: Path, tmp_path: Path) -> None:
    import yaml

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"num_generations": 1}))
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
             "SLURM_NTASKS": "2"}  # fmt: skip
    command = [sys.executable, "-m", "ouroloop", "run", str(tmp_path / "tiny.yaml")]
    done = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.heavy
def test_ctrl_c_works_while_a_server_is_waited_for(tmp_path: Path) -> None:
    """MLflow's client tries for minutes; here the server is gone after the check."""
    code = """if True:
        import os, signal, sys, time
        from ouroloop.record import stores
        from ouroloop.record.liveness import Interrupted, catch_signals
        stores.require_reachable = lambda url: None
        from ouroloop.record.track import Store
        catch_signals()
        print("asks", flush=True)
        try:
            Store.open()
        except Interrupted as stopped:
            sys.exit(128 + stopped.signum)
    """
    environment = os.environ | {"OUROLOOP_ROOT": str(tmp_path), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "asks\n"
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()


def test_a_limit_on_files_is_a_disk_without_room_to_sqlite_and_to_python(tmp_path: Path) -> None:
    """What a quota of a cluster comes to as well. The limit of this process is lowered for as long as it takes."""
    content, before = b"x" * 2_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)
    errors = list[BaseException]()
    with (
        closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as database,
        (tmp_path / "b").open("wb", buffering=0) as file,
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(sqlite3.OperationalError) as caught:
                database.execute("CREATE TABLE t AS SELECT ? AS c", [content])
            errors.append(caught.value)
            file.write(content)
            with pytest.raises(OSError, match="too large") as too_large:
                file.write(content)
            errors.append(too_large.value)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(map(stores.is_full, errors))
    assert not stores.is_full(sqlite3.OperationalError("no such table: t"))
