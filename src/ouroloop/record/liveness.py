"""What ends a loop before its time: Ctrl-C, SIGTERM, or that nobody needs its result. Open runs end as KILLED."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

from ouroloop.record import stores

if TYPE_CHECKING:  # MLflow takes a second to import, and a signal may come before
    from ouroloop.record.track import Run, Store

_holding = 0  # blocks of `held` that the main thread is in
_signum: int | None = None  # what came


class Interrupted(BaseException):
    """Raised in the main thread by SIGINT or SIGTERM; open runs end as KILLED on its way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Pruned(BaseException):
    """Raised by an observer between two generations: what the loop is run for has been decided without it."""


def catch_signals() -> None:
    """From now on the first SIGINT or SIGTERM raises; later ones are ignored while open runs are closed.

    Called again, it forgets what came before.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _signum
        if _signum is not None:  # not by SIG_IGN: Lightning puts the handlers back that it found
            return
        _signum = signum
        if not _holding:
            raise Interrupted(signum)

    global _signum
    _signum = None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


@contextmanager
def held() -> Iterator[None]:
    """What a signal raises is raised at the end of this, so that it cuts nothing in two.

    So is what was raised and got lost: Python ignores an exception in a finalizer, wherever it comes from.
    """
    global _holding
    if current_thread() is not main_thread():  # signals do not reach it
        yield
        return
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if _signum is not None and not _holding and not _is_on_its_way():
        raise Interrupted(_signum)


def _is_on_its_way() -> bool:
    """Whether the runs are being closed because of it."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


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


@contextmanager
def running(take: "Callable[[], Run]") -> "Iterator[Run]":
    """The run that `take` finds or creates, RUNNING inside: no signal leaves it created and never closed."""
    with ExitStack() as entered:
        with held():
            run = take()
            entered.enter_context(run.running())
        yield run


def close_dead_runs(store: "Store") -> None:
    """Closes as KILLED the runs that a process of this place left RUNNING when it died.

    Whoever runs a loop or a study holds its lock; a generation is as alive as its loop.
    """
    for run in store.running():
        level, owner = run.tag("level"), run
        if level == "generation":
            owner = store.get(run.parent_id or run.id)
        key = "study" if level == "study" else owner.tag("fingerprint")
        study = owner.tag("study")
        if owner.tag("place") == stores.place() and study and key and not stores.is_locked(study, key):
            run.end("KILLED")
