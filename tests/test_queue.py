"""The queue under real processes: every trial once, none lost, whoever dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.record import stores
from ouroloop.study.queue import Queue

WORKER = """
import sys, time
from ouroloop.study.queue import Queue
from optuna.trial import TrialState
queue = Queue.load("study")
while (trial := queue.claim()) is not None:
    with queue.alive(trial):
        print(trial.number, flush=True)
        time.sleep(0.01)
    queue.study.tell(trial, 0.5, state=TrialState.COMPLETE)
"""


def loops(tiny: LoopConfig, count: int) -> list[LoopConfig]:
    return [tiny.model_copy(update={"seed": seed}) for seed in range(count)]


def queue_of(tiny: LoopConfig, count: int) -> Queue:
    queue = Queue.create("study")
    cells = loops(tiny, count)
    queue.add_missing(cells)
    return queue


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


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_four_workers_take_every_trial_once(
    tiny: LoopConfig, database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database == "postgresql":
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", request.getfixturevalue("postgresql"))
    queue = queue_of(tiny, 40)
    command = [sys.executable, "-c", WORKER]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [worker.communicate(timeout=100) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, [error for _, error in outputs]
    taken = Counter(int(number) for output, _ in outputs for number in output.split())
    assert taken == dict.fromkeys(range(40), 1)
    assert sum(bool(output) for output, _ in outputs) > 1
    assert {trial.state for trial in queue.trials()} == {TrialState.COMPLETE}
    queue._storage.engine.dispose()


@pytest.mark.usefixtures("root")
def test_enqueueing_again_adds_only_what_is_missing(tiny: LoopConfig) -> None:
    queue = queue_of(tiny, 3)
    trial = queue.claim()
    assert trial is not None
    queue.study.tell(trial, state=TrialState.FAIL)
    queue_of(tiny, 4)
    states = [trial.state for trial in queue.trials()]
    assert states == [TrialState.FAIL, *[TrialState.WAITING] * 4]  # the failed cell again, and the new one


@pytest.mark.usefixtures("root")
def test_what_a_killed_worker_held_goes_back(tiny: LoopConfig) -> None:
    queue = queue_of(tiny, 1)
    code = (
        "import time\nfrom ouroloop import stores\nfrom ouroloop.queue import Queue\n"
        "queue = Queue.load('study')\ntrial = queue.claim()\n"
        "with stores.locked('study', trial.user_attrs['cell']), queue.alive(trial):\n"
        "    print('working', flush=True)\n    time.sleep(60)\n"
    )
    for death in (1, 2, 3):
        worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "working\n"
        queue.release_dead()
        assert len(queue.trials(TrialState.RUNNING)) == 1  # alive
        assert queue.claim() is None
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        queue.release_dead()
        assert not queue.trials(TrialState.RUNNING)
        assert len(queue.trials(TrialState.WAITING)) == (death < 3)  # three deaths are enough
    assert len(queue.trials(TrialState.FAIL)) == 3


@pytest.mark.usefixtures("root")
def test_a_stale_heartbeat_of_another_machine_goes_back(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouroloop.study.queue._BEAT_SECONDS", 1)
    monkeypatch.setattr("ouroloop.study.queue._BEATS_MISSED", 2)
    queue = queue_of(tiny, 1)
    trial = queue.claim()
    assert trial is not None
    with queue.alive(trial):
        trial.set_user_attr("place", "elsewhere")
        time.sleep(2.5)
        queue.release_dead()
        assert queue.trials(TrialState.RUNNING)  # its heartbeat goes on
    time.sleep(2.5)
    queue.release_dead()
    again = queue.claim()
    assert again is not None
    assert again.user_attrs["cell"] == trial.user_attrs["cell"]


@pytest.mark.usefixtures("root")
def test_who_was_taken_for_dead_may_still_finish(tiny: LoopConfig) -> None:
    queue = queue_of(tiny, 1)
    trial = queue.claim()
    assert trial is not None
    queue.study.tell(trial.number, state=TrialState.FAIL)
    queue.finish(trial, TrialState.COMPLETE, 0.5)
    assert [trial.state for trial in queue.trials()] == [TrialState.FAIL]


@pytest.mark.usefixtures("root")
def test_a_store_that_cannot_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nonsense", "sqlite:////no/such/folder/x.db", "oracle://x"):
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", url)
        with pytest.raises(ConfigError, match="cannot open the Optuna store"):
            Queue.all()


@pytest.mark.usefixtures("root")
def test_locks_end_with_their_process() -> None:
    assert not stores.is_locked("study", "loop")
    with stores.locked("study", "loop"):
        code = "from ouroloop import stores; print(stores.is_locked('study', 'loop'))"
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
        )
    assert not stores.is_locked("study", "loop")
