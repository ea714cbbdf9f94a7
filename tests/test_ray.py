"""Studies on Ray: what could go wrong is that a node that dies takes loops with it, or that they are run twice."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from experiments import check_kills

from ouroloop.record import stores
from ouroloop.record.track import Store
from tests.conftest import IDEAL_LOOP, CommandLine

LOOPS = int(os.environ.get("OUROLOOP_TEST_LOOPS", "8"))
SWEEP = [sys.executable, "-m", "ouroloop", "sweep", "study", "--on=ray"]

quiet = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")


@pytest.fixture
def presets(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray would let its workers wait for whatever else the machine does
    (root / "experiments").mkdir()
    study = {"synthetic_proportions": [0.5], "seeds": list(range(LOOPS)), "loop": IDEAL_LOOP | {"num_generations": 8}}
    (root / "experiments" / "study.yaml").write_text(yaml.safe_dump(study))
    return root


def require_whole(num_generations: int) -> None:
    """Every loop is there once, with each generation once, and nothing runs."""
    store = Store.open()
    assert store.running() == []
    loops = store.find(level="loop")
    assert Counter(run.tag("seed") for run in loops) == dict.fromkeys(map(str, range(LOOPS)), 1)
    assert {run.status for run in loops} == {"FINISHED"}
    for run in loops:
        assert [step for step, _ in run.history("correctness")] == list(range(num_generations + 1))
        generations = store.find(level="generation", parent=run.id)
        assert sorted(g.tag("generation") or "" for g in generations) == list(map(str, range(1, num_generations + 1)))


def test_without_ray_the_line_says_what_to_install(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = ouroloop("sweep", "study", "--on=ray", cwd=presets)
    assert (done.returncode, done.stderr) == (2, "ouroloop: --on=ray needs Ray: pip install 'ouroloop[ray]'\n")


def test_a_cluster_needs_a_record_that_its_machines_reach(ouroloop: CommandLine, presets: Path) -> None:
    done = ouroloop("sweep", "study", "--on=ray", "--address=10.0.0.1:6379", cwd=presets)
    assert done.returncode == 2
    assert "start `mlflow server --host 0.0.0.0 --backend-store-uri" in done.stderr
    assert done.stderr.count("\n") == 1
    local = ouroloop("sweep", "study", "--address=10.0.0.1:6379", cwd=presets)
    assert (local.returncode, local.stderr) == (2, "ouroloop: --address is for --on=ray\n")


def test_a_disk_that_is_full_on_another_machine_is_one_line(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'ouroloop[ray]')")
    from ray.exceptions import RayTaskError

    def full(*_: object, **__: object) -> None:
        raise RayTaskError("run_one", "Traceback of\nthe worker", stores.no_room()).as_instanceof_cause()

    monkeypatch.setattr("ouroloop.study.driver.run_one", full)
    done = ouroloop("sweep", "study", cwd=presets)
    assert done.returncode == 2
    assert done.stderr == f"ouroloop: {stores.no_room()}\n"


def begun(presets: Path) -> tuple[subprocess.Popen[str], IO[str]]:
    """A study on a Ray of its own with a generation behind it, and the rest of what it says."""
    process = subprocess.Popen([*SWEEP, "--workers=2"], cwd=presets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "generation   " in line and "generation   0" not in line:
            break
    return process, process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_study_on_a_ray_of_its_own_and_the_same_command_goes_on(presets: Path, number: int) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'ouroloop[ray]')")
    process, output = begun(presets)
    process.send_signal(number)
    rest = output.read()
    output.close()
    assert process.wait(timeout=60) == 128 + number, rest
    assert "stopped; the same command picks up where it left off" in rest
    assert Store.open().running() == []
    done = subprocess.run([*SWEEP, "--workers=2"], cwd=presets, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    require_whole(8)


@pytest.mark.slow
def test_a_ray_of_its_own_that_dies_is_started_again(presets: Path) -> None:
    """Its node is taken for dead when the machine is too busy for its heartbeats; no loop has failed then."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'ouroloop[ray]')")
    process, output = begun(presets)
    (raylet,) = (pid for pid in check_kills.descendants(process.pid) if "/raylet/raylet " in check_kills.title(pid))
    os.kill(raylet, signal.SIGKILL)
    rest = output.read()
    output.close()
    assert process.wait(timeout=60) == 0, rest
    require_whole(8)


@pytest.fixture
def server(postgresql: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server over PostgreSQL, and Optuna's store there too."""
    import psycopg

    name = f"mlflow{os.getpid()}"
    with psycopg.connect(postgresql.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(root / "artifacts"),
               "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    database = postgresql.replace("/postgres", f"/{name}")
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 600
    while True:
        try:
            urlopen(f"{url}/health", timeout=5).close()
            break
        except (URLError, OSError):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", postgresql)
    yield url
    process.terminate()
    process.wait()


@pytest.mark.slow
@quiet
@pytest.mark.usefixtures("server")
def test_a_node_dies_and_another_one_joins(presets: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'ouroloop[ray]')")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        log = (presets / "out.log").open("w+")
        command = [*SWEEP, f"--address={cluster.address}", "--workers=2"]
        process = subprocess.Popen(command, cwd=presets, stdout=log, stderr=log)
        deadline = time.monotonic() + 1_000
        while "done" not in (presets / "out.log").read_text():
            assert process.poll() is None, (presets / "out.log").read_text()
            assert time.monotonic() < deadline, (presets / "out.log").read_text()
            time.sleep(0.5)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert process.wait(timeout=3_000) == 0, (presets / "out.log").read_text()
        log.close()
        require_whole(8)
    finally:
        cluster.shutdown()
