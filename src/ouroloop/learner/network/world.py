"""Several devices as one: a process for each, called together and adding up what each of them has computed.

Neither of Lightning's own ways to start processes will do inside a worker. `ddp` runs the command line anew for every
rank, which would be a whole sweep; `ddp_spawn` sends the Trainer, with whatever watches it, to other processes, hands
weights back through torch.load, and has no counterpart for `fsdp`. So the processes are spawned here, with a function
to run, and Lightning's strategies find their ranks already there. The processes stay from one generation to the next,
because loading the libraries takes longer than many trainings do.
"""

import multiprocessing
import os
import shutil
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor, distributed

from ouroloop.learner.base import Progress
from ouroloop.spawning import follow_parent, without_main

P = ParamSpec("P")
T = TypeVar("T")

_Message = tuple[Literal["report", "done", "failed"], Any]


def rank() -> int:
    """Rank of this process among those that train one model; 0 where it trains alone."""
    return distributed.get_rank() if _is_one_of_many() else 0


def size() -> int:
    """How many processes train one model."""
    return distributed.get_world_size() if _is_one_of_many() else 1


def _is_one_of_many() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def total(tensor: Tensor) -> Tensor:
    """The sum of what all processes hold; where there is only one, what it holds."""
    if size() > 1:
        distributed.all_reduce(tensor)
    return tensor


class Environment(LightningEnvironment):
    """What a strategy asks about the processes around it. A loop is a world of its own, whatever Slurm exports."""

    @property
    def creates_processes_externally(self) -> bool:
        return size() > 1

    def local_rank(self) -> int:
        return rank()

    def node_rank(self) -> int:
        return 0


class World:
    """`num_ranks` processes of this machine that compute together, started by the first call, and anew after a failure.

    Process r has the r-th device of its kind. They end with this object, or with the process that made it.
    """

    def __init__(self, num_ranks: int, *, is_gpu: bool) -> None:
        self._num_ranks = num_ranks
        self._backend = "nccl" if is_gpu else "gloo"
        self._ranks: list[Connection] = []
        self._stop: Callable[[], object] = lambda: None

    def call(
        self, work: Callable[Concatenate[Progress, P], T], report: Progress, *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """What `work` returns in each process, by rank. What rank 0 reports on its way is reported here.

        Raises:
            Exception: what the first of them to fail raised; the others, which may wait for it, are ended.
            RuntimeError: one of them died.
        """
        try:
            if not self._ranks:
                self._start()
            for connection in self._ranks:
                connection.send((work, args, kwargs))
            return self._results(report)
        except BaseException as error:
            self._stop()
            self._ranks = []
            if isinstance(error, (EOFError, ConnectionError)):
                raise RuntimeError(f"one of the {self._num_ranks} processes of train.devices died") from None
            raise

    def _start(self) -> None:
        folder, spawn = Path(mkdtemp(prefix="ouroloop-world-")), multiprocessing.get_context("spawn")
        processes: list[BaseProcess] = []
        self._stop = weakref.finalize(self, _end, processes, folder)
        for number in range(self._num_ranks):
            ours, theirs = spawn.Pipe()
            meeting = partial(
                distributed.init_process_group,
                self._backend,
                init_method=(folder / "meeting").as_uri(),
                rank=number,
                world_size=self._num_ranks,
                device_id=torch.device("cuda", number) if self._backend == "nccl" else None,
            )
            process = spawn.Process(target=_serve, args=(theirs, meeting, self._backend, number), daemon=True)
            with without_main():
                process.start()
            theirs.close()  # or the connection would not end with the process
            processes.append(process)
            self._ranks.append(ours)

    def _results(self, report: Progress) -> list[Any]:
        results: dict[int, Any] = {}
        while len(results) < self._num_ranks:
            waiting = [one for number, one in enumerate(self._ranks) if number not in results]
            for connection in wait(waiting):
                assert isinstance(connection, Connection)
                kind, value = connection.recv()
                if kind == "report":
                    report(*value)
                elif kind == "failed":
                    raise value
                else:
                    results[self._ranks.index(connection)] = value
        return [results[number] for number in range(self._num_ranks)]


@lru_cache(maxsize=1)
def of(num_ranks: int, *, is_gpu: bool) -> World:
    """A world that is kept for the next loop too, since the same number is asked for again and again."""
    return World(num_ranks, is_gpu=is_gpu)


def _end(processes: Sequence[BaseProcess], folder: Path) -> None:
    """Kill them at once: they hold nothing that is not elsewhere too, and one that waits for another may wait long."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    shutil.rmtree(folder, ignore_errors=True)


def _serve(calls: Connection, meet: Callable[[], object], backend: str, number: int) -> None:
    """The life of a rank: it meets the others by way of a file, and does what it is sent."""
    follow_parent()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # on which gloo announces itself
    if sys.platform == "linux":
        for library in ("GLOO", "NCCL"):  # all ranks are on this machine, whose name need not resolve
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if backend == "nccl":
        torch.cuda.set_device(number)
    meet()
    send = calls.send if number == 0 else lambda message: None
    with suppress(EOFError):  # the process that calls is gone
        while True:
            work, args, kwargs = calls.recv()
            calls.send(_done(work, lambda *progress: send(("report", progress)), *args, **kwargs))


def _done(work: Callable[..., T], *args: Any, **kwargs: Any) -> _Message:
    try:
        return "done", work(*args, **kwargs)
    except Exception as error:
        plain = type(error).__module__ == "builtins" or type(error).__module__.startswith("ouroloop.")
        return "failed", error if plain else RuntimeError(f"{type(error).__name__}: {error}")
