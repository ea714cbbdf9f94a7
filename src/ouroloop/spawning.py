"""How our own processes are started, and how many cores there are for them."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def without_main() -> Iterator[None]:
    """Let what is spawned inside start from nothing: else it would run the script that called us from its top, and the
    call with it.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def follow_parent() -> None:
    """Leave the terminal's keys to the process that started this one, and end when that one has ended."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def become_worker(log: Path, threads: int) -> None:
    """Leave the terminal and its keys to the process that started this one, and end when that one has ended.

    It is here, where nothing else is imported: torch and numpy have to be told how many threads they may use before
    they are imported. A number that is set already stays.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    follow_parent()
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    atexit.register(os._exit, 0)  # runs last: taking apart what torch and MLflow have made takes seconds
