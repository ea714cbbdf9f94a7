"""A run that nobody closes looks alive for ever, and one that is closed too early looks dead while it runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.record import locks, stores
from ouroloop.record.liveness import Interrupted, catch_signals, close_dead_runs, running
from ouroloop.record.locks import StudyLock
from ouroloop.record.provenance import create_loop
from ouroloop.record.run import Run
from ouroloop.record.track import Store


@pytest.mark.usefixtures("root", "caught_signals")
def test_a_signal_while_a_run_is_created_closes_it() -> None:
    store = Store.open()

    def take() -> Run:
        run = store.create("loop", None, {"level": "loop"})
        os.kill(os.getpid(), signal.SIGTERM)
        return run

    with pytest.raises(Interrupted), running(take):
        pytest.fail("it was interrupted before")
    catch_signals()
    assert [run.status for run in store.find(level="loop")] == ["KILLED"]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (Interrupted(2), "KILLED")])
def test_a_run_ends_as_its_work_does(error: BaseException | type[BaseException] | None, status: str) -> None:
    store = Store.open()
    try:
        with running(lambda: store.create("loop", None, {"level": "loop"})) as run:
            assert store.get(run.id).status == "RUNNING"
            if error is not None:
                raise error
    except (ValueError, Interrupted):
        pass
    assert store.get(run.id).status == status


@pytest.mark.usefixtures("root")
def test_only_what_no_process_holds_is_closed(tiny: LoopConfig) -> None:
    store = Store.open()
    dead, alive = (create_loop(store, tiny, "loop", study, None) for study in ("dead", "alive"))
    generations = [store.create("gen-01", loop, {"level": "generation"}) for loop in (dead, alive)]
    elsewhere = create_loop(store, tiny, "loop", "elsewhere", None)
    elsewhere.log_tags(root="another root")
    with locks.alone("alive", tiny.fingerprint()):
        close_dead_runs(store)
    states = [store.get(run.id).status for run in (dead, generations[0], alive, generations[1], elsewhere)]
    assert states == ["KILLED", "KILLED", "RUNNING", "RUNNING", "RUNNING"]


@pytest.mark.usefixtures("root")
def test_what_ends_while_somebody_looks_is_not_dead(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has freed its lock, too."""
    store = Store.open()
    loop = create_loop(store, tiny, "loop", "study", None)

    def ends(*_: object) -> bool:
        loop.end("FINISHED")
        return False

    monkeypatch.setattr("ouroloop.record.locks.is_alone_held", ends)
    close_dead_runs(store)
    assert store.get(loop.id).status == "FINISHED"


@pytest.mark.usefixtures("root")
def test_a_driver_closes_all_of_its_study_wherever_it_ran_and_nothing_of_another(tiny: LoopConfig) -> None:
    store = Store.open()
    ours, other = (
        store.create(name, None, {"level": "study", "study": name, "root": stores.root_id()}) for name in "ab"
    )
    loops = [create_loop(store, tiny, "loop", name, study) for name, study in (("a", ours), ("b", other))]
    loops[0].log_tags(root="a machine of the cluster", attempt="its own")
    generation = store.create("gen-01", loops[0], {"level": "generation", "study": "a"})
    lock = StudyLock("b")
    assert lock.acquire()
    try:
        close_dead_runs(store, driven="a")
    finally:
        lock.release()
    states = [store.get(run.id).status for run in (ours, loops[0], generation, other, loops[1])]
    assert states == ["KILLED", "KILLED", "KILLED", "RUNNING", "RUNNING"]
    assert store.get(loops[0].id).tag("attempt") == "none"  # who was cut off, and lives, stops


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_generations_whose_loop_is_gone_are_closed(tiny: LoopConfig) -> None:
    """Deleted in the MLflow UI, and collected by `mlflow gc`."""
    store = Store.open()
    loop = create_loop(store, tiny, "loop", "study", None)
    orphan = store.create("gen-02", loop, {"level": "generation"})
    store.client.delete_run(loop.id)
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", stores.tracking_uri(), "--run-ids", loop.id]
    environment = os.environ | {"MLFLOW_TRACKING_URI": stores.tracking_uri()}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    close_dead_runs(store)
    assert store.get(orphan.id).status == "KILLED"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where studies are kept."""
    if request.param == "postgresql":
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", request.getfixturevalue("postgresql"))
    return str(request.param)


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_study_has_one_driver_and_its_lock_ends_with_its_process() -> None:
    assert not locks.study_is_driven("study")
    code = (
        "import time\nfrom ouroloop.record.locks import StudyLock\nlock = StudyLock('study')\n"
        "print(lock.acquire(), flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    assert locks.study_is_driven("study")
    assert not StudyLock("study").acquire()
    other.kill()
    other.wait()
    other.stdout.close()
    lock = StudyLock("study")
    deadline = time.monotonic() + 60
    while not lock.acquire():
        assert time.monotonic() < deadline
    lock.keep()
    lock.release()
    assert not locks.study_is_driven("study")


@pytest.mark.heavy
def test_who_only_looks_whether_a_study_is_driven_turns_no_driver_away(database: str) -> None:
    """`status` holds the lock for a moment, maybe while a server that was started anew has forgotten the driver's."""

    def look() -> None:
        looking = StudyLock("study")
        assert looking.acquire()
        threading.Timer(0.3, looking.release).start()

    look()
    driver = StudyLock("study")
    assert driver.acquire()
    if database == "postgresql":
        import psycopg

        with psycopg.connect(stores.optuna_url().replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        look()
        driver.keep()
    assert locks.study_is_driven("study")
    driver.release()
