"""Executors: a worker that dies must cost its own work only, and N workers must not take N times the machine."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.record.track import Store
from ouroloop.study.executor import InProcess, LocalProcesses
from ouroloop.study.work import run_one
from tests.conftest import IDEAL


def pid() -> int:
    return os.getpid()


def slow_pid() -> int:
    time.sleep(60)
    return os.getpid()


def threads() -> tuple[str | None, int, int]:
    """What the environment says, how many threads torch takes, and how many the edit distances do."""
    import torch

    from ouroloop.science import metrics

    return os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads(), metrics._num_threads()


@pytest.fixture
def two(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProcesses]:
    monkeypatch.delenv("OMP_NUM_THREADS")
    executor = LocalProcesses(2, "study")
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.mark.slow
def test_workers_are_warm_and_a_killed_one_is_replaced_without_the_others(two: LocalProcesses) -> None:
    first = [two.submit(pid).result(timeout=60) for _ in range(3)]
    assert len(set(first)) == 1  # the idle one is taken again
    lost, other = two.submit(slow_pid), two.submit(pid)
    spared = other.result(timeout=60)
    os.kill(first[0], signal.SIGKILL)
    assert isinstance(lost.exception(timeout=60), BrokenProcessPool)
    replaced = two.submit(pid).result(timeout=60)
    assert replaced not in (first[0], spared, os.getpid())


@pytest.mark.slow
def test_threads_are_shared_out_before_torch_is_imported(two: LocalProcesses) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert two.submit(threads).result(timeout=120) == (str(share), share, share)
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_what_workers_print_goes_to_their_logs(two: LocalProcesses, root: Path) -> None:
    two.submit(os.system, "echo said").result(timeout=60)
    assert (root / "mlruns" / "logs" / "study-worker-1.log").read_text() == "said\n"


@pytest.mark.slow
def test_stopped_workers_end(two: LocalProcesses) -> None:
    worker = two.submit(pid).result(timeout=60)
    stopped = two.submit(slow_pid)
    begin = time.monotonic()
    two.shutdown(cancel_futures=True)
    assert time.monotonic() - begin < 10
    assert stopped.exception() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.slow
def test_a_worker_that_is_stopped_in_a_loop_closes_its_runs_and_is_not_used_again(two: LocalProcesses) -> None:
    """It may have been in the middle of an import, and half a package would fail every later loop."""
    loop, store = LoopConfig.model_validate(IDEAL | {"num_generations": 500}), Store.open()
    study = store.create("study", None, {"level": "study"})
    worker = two.submit(pid).result(timeout=60)
    stopped = two.submit(run_one, loop, "study", study.id)
    while not store.find(level="generation"):
        assert not stopped.done()
        time.sleep(0.1)
    os.kill(worker, signal.SIGTERM)
    assert isinstance(stopped.exception(timeout=60), BrokenProcessPool)
    assert {run.status for run in [*store.find(level="loop"), *store.find(level="generation")]} <= {
        "KILLED",
        "FINISHED",
    }
    assert two.submit(pid).result(timeout=60) != worker


def test_in_process_a_failure_is_in_the_future_and_a_signal_goes_through() -> None:
    executor = InProcess()
    assert executor.submit(pid).result() == os.getpid()
    assert isinstance(executor.submit(int, "x").exception(), ValueError)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.submit(interrupted)
