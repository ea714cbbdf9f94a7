"""What ends a loop before its time: Ctrl-C, SIGTERM, or that nobody needs its result. Open runs end as KILLED."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_holding = 0  # blocks of `held` that the main thread is in
_signum: int | None = None  # what came meanwhile


class Interrupted(BaseException):
    """Raised in the main thread by SIGINT or SIGTERM; open runs end as KILLED on its way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Pruned(BaseException):
    """Raised by an observer between two generations: what the loop is run for has been decided without it."""


def catch_signals() -> None:
    """From now on the first SIGINT or SIGTERM raises; later ones are ignored while open runs are closed."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if _holding:
            global _signum
            _signum = signum
        else:
            raise Interrupted(signum)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


@contextmanager
def held() -> Iterator[None]:
    """What a signal raises is raised at the end of this, so that it cuts nothing in two."""
    global _holding, _signum
    if current_thread() is not main_thread():  # signals do not reach it
        yield
        return
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if _signum is not None and not _holding:
        signum, _signum = _signum, None
        raise Interrupted(signum)


class Uncut:
    """An object whose methods no signal cuts off: a database client in mid-commit would leave a lock behind."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            with held():
                return attribute(*arguments, **keywords)

        return call if callable(attribute) else attribute
