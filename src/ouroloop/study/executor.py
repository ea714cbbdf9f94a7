"""Where loops run: in this process, in processes of this machine, or on a Ray cluster; each with futures.

A future that holds anything but a result says that its worker was lost; its work may then be submitted again. Waiting
is left to futures; how far a loop has come is left to the record.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.errors import needs, reason, shown
from ouroloop.record import stores
from ouroloop.record.liveness import kept_handlers
from ouroloop.record.track import Store
from ouroloop.record.urls import is_server
from ouroloop.spawning import become_worker, num_cores, without_main

P = ParamSpec("P")
T = TypeVar("T")

_STOP_SECONDS = 15.0  # how long a stopped worker may take to close its runs
_RAY_RETRIES = 3
_HANDED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class LoopExecutor(Executor):
    workers: int
    """How many loops it takes at a time."""
    environment: Mapping[str, str] | None = None
    """Variables that its workers do not inherit."""

    def everywhere(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a function in each worker, which is then warm for its first loop; raise what it raises."""
        for future in [self.submit(fn, *args, **kwargs) for _ in range(self.workers)]:
            future.result()


class InProcess(LoopExecutor):
    """Runs what is submitted immediately, in the calling thread; a signal passes through."""

    workers = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalProcesses(LoopExecutor):
    """A number of spawned processes, warm from one call to the next; one that died is replaced at the next call.

    Each is a pool of its own: a `ProcessPoolExecutor` breaks for good, with all its work, when one process dies.
    """

    def __init__(self, workers: int, name: str) -> None:
        self.workers = workers
        self._slots = [_Slot(name, number, max(1, num_cores() // workers)) for number in range(1, workers + 1)]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        for step in (step for one in args if isinstance(one, LoopConfig) for step in one.curation.steps):
            if type(step).__module__ == "__main__":
                raise ConfigError(
                    f"step {step.name!r} is defined in the script or notebook itself, where other processes cannot "
                    "find it: put it into a file of its own and import it, or use one worker"
                )
        return next(slot for slot in self._slots if slot.is_idle).submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `cancel_futures`, also end what is running: its runs are closed, and it can be taken up again later."""
        for slot in self._slots:
            slot.stop(signal.SIGTERM if cancel_futures else None)
        for slot in self._slots:
            slot.join()


class _Slot:
    def __init__(self, name: str, number: int, threads: int) -> None:
        self._log = stores.runs_folder() / "logs" / f"{name}-worker-{number}.log"
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None
        self._work: Future[Any] | None = None

    @property
    def is_idle(self) -> bool:
        return self._work is None or self._work.done()

    def submit(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        if self._pool is not None:
            with suppress(RuntimeError):  # BrokenProcessPool: it died at or after its last work
                self._work = self._pool.submit(fn, *args, **kwargs)
                return self._work
            self._pool.shutdown(wait=False)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, initializer=become_worker, initargs=(self._log, self._threads))
        with without_main():
            self._pid = self._pool.submit(os.getpid)
        self._work = self._pool.submit(fn, *args, **kwargs)
        return self._work

    def stop(self, number: signal.Signals | None) -> None:
        if number is not None and self._pid is not None and not self.is_idle:
            with suppress(Exception):  # it has not started, or has died
                os.kill(self._pid.result(timeout=_STOP_SECONDS), number)

    def join(self) -> None:
        if self._pool is None:
            return
        if self._work is not None and not futures.wait([self._work], timeout=_STOP_SECONDS).done:
            self.stop(signal.SIGKILL)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


class RayCluster(LoopExecutor):
    """Tasks of Ray Core, on a cluster or, without an address, on this machine. What a lost worker ran, runs elsewhere.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing calls home
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise needs("--on=ray", "Ray", "ray") from None
        self._ray, self._address = ray, address
        self._own: dict[str, Any] = {} if address else {"num_cpus": workers or num_cores(), "include_dashboard": False}
        self._start()
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
        names = [*_HANDED_ON] if address else [*_HANDED_ON, "OUROLOOP_ROOT"]
        known = os.environ | {"OUROLOOP_ROOT": str(stores.runs_folder().parent)}
        self.environment = {key: known[key] for key in names if key in known}

    def _start(self) -> None:
        self._is_lost = False
        self._running: dict[Future[Any], Any] = {}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "ouroloop"}
        try:
            with kept_handlers():  # Ray would print its stack on SIGTERM and exit, and no run would be closed
                self._ray.init(address=self._address, **options, **self._own)
        except Exception as error:  # Ray raises many kinds, and a plain one if a node is slow to start
            what = f"reach a Ray cluster at {self._address}" if self._address else "start Ray here"
            raise ConfigError(f"cannot {what}: {reason(error)}") from None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._is_lost:
            self._give_up()
            self._start()
        options: dict[str, Any] = {"max_retries": _RAY_RETRIES, "retry_exceptions": False}
        for loop in (one for one in args if isinstance(one, LoopConfig)):
            wanted = loop.resources
            options |= {"num_cpus": wanted.num_cpus, "num_gpus": wanted.num_gpus, "memory": wanted.memory}
        reference = self._ray.remote(fn).options(**options).remote(*args, **kwargs)
        future: Future[T] = reference.future()
        self._running[future] = reference
        future.add_done_callback(self._note_end)
        return future

    def everywhere(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Do nothing: its machines come and go, and each finds out for itself what it cannot do."""

    def _note_end(self, future: Future[Any]) -> None:
        """Forget a task that has ended, and note if not its worker but Ray itself was lost: the driver's node died."""
        self._running.pop(future, None)
        self._is_lost |= isinstance(future.exception(), self._ray.exceptions.LocalRayletDiedError)

    def _give_up(self) -> None:
        """Fail the tasks of a lost Ray, which would never come to an end."""
        self._ray.shutdown()
        for future in list(self._running):
            with suppress(futures.InvalidStateError):
                future.set_exception(RuntimeError("Ray was lost"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        running = dict(self._running)
        for reference in running.values() if cancel_futures else ():
            with suppress(Exception):  # its machine may be gone
                self._ray.cancel(reference)
        futures.wait(running, timeout=_STOP_SECONDS)
        self._ray.shutdown()


def make_executor(on: str, workers: int | None, address: str | None, store: Store, name: str) -> LoopExecutor:
    """The executor that the command line asks for.

    Raises:
        ConfigError: it is not available, or its machines could not reach the record.
    """
    if on not in ("local", "ray") or (workers is not None and workers < 1):
        allowed = 'on="local" or "ray", and workers as a whole number of at least 1'
        raise ConfigError(f"got on={shown(on)} and workers={shown(workers)}, allowed is {allowed}")
    if on == "ray":
        if address is not None:
            _require_shared(store)
        return RayCluster(workers, address)
    if address is not None:
        raise ConfigError("--address is for --on=ray")
    return LocalProcesses(workers, name) if workers is not None and workers > 1 else InProcess()


def _require_shared(store: Store) -> None:
    start = "mlflow server --host 0.0.0.0 --backend-store-uri sqlite:////DATA/mlflow.db"
    start += " --artifacts-destination /DATA/artifacts"
    if not is_server(stores.tracking_uri()):
        raise ConfigError(
            f"the machines of a cluster need one record that all of them reach: start `{start}` "
            "and set MLFLOW_TRACKING_URI=http://HOST:5000"
        )
    if store.artifact_location.startswith(("file:", "/")):
        raise ConfigError(
            f"the experiment keeps its artifacts in {store.artifact_location}, which other machines do not reach: "
            f"use a server of its own, `{start}`"
        )
