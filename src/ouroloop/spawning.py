"""How processes of our own are begun."""

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


@contextmanager
def without_main() -> Iterator[None]:
    """What is spawned inside begins with nothing: else it would run the script that called us, from its top, and with
    it the call.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def become_worker(log: Path, threads: int) -> None:
    """Leaves the terminal and its keys to whoever has begun this process, and ends when that has.

    Here, where nothing is imported: of threads torch and numpy are told before they are, unless they have been already.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    atexit.register(os._exit, 0)  # the last thing: to take apart what torch and MLflow have made takes seconds
