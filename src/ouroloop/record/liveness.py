"""What ends a loop before its time: a signal, another attempt at it, or the fact that nobody needs its result."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from ouroloop.record import locks, stores
from ouroloop.record.urls import is_server

if TYPE_CHECKING:  # MLflow takes a second to import, and a signal may come before
    from ouroloop.record.run import Run
    from ouroloop.record.track import Store

_holding = 0  # how many blocks of `held` the main thread is in
_signum: int | None = None  # the signal that came first
_TWICE_SECONDS = 0.2  # a terminal that closes, and some supervisors, send two signals at once

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Interrupted(BaseException):
    """Raised in the main thread by a signal; open runs end as KILLED as it propagates."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Pruned(BaseException):
    """Raised by an observer between two generations: what the loop is run for has been decided without it."""


class Superseded(BaseException):
    """Raised before a generation is written: another attempt has taken up the loop, and its runs are not ours."""


def catch_signals(signals: Sequence[int] = SIGNALS) -> None:
    """Make the first of these signals raise from now on, and a second one end the process at once.

    Another call forgets the signals before it. A SIGHUP that is ignored where we were started (nohup) stays ignored.
    """
    first = 0.0

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _signum
        nonlocal first
        if _signum is not None:
            if monotonic() - first > _TWICE_SECONDS:
                os._exit(128 + signum)  # the next start closes what is left RUNNING
            return
        _signum, first = signum, monotonic()
        if not _holding:
            raise Interrupted(signum)

    global _signum
    _signum = None
    for number in signals:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Restore the signal handlers afterwards, whoever has replaced them inside."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if current_thread() is main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Put off what a signal raises to the end of the block, so that it cuts nothing in two.

    What was raised and got lost is raised there again: Python ignores an exception in a finalizer, whatever its source.
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
    """Whether an `Interrupted` is propagating already, and runs are being closed because of it."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


class Steady:
    """A database client whose calls no signal cuts off in mid-commit, and which wait while the server is away."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            return stores.patiently(uncut, *arguments, **keywords)

        def uncut(*arguments: Any, **keywords: Any) -> Any:
            if is_server(stores.tracking_uri()):  # which commits on its own, and may be away for long
                return attribute(*arguments, **keywords)
            with held():
                return attribute(*arguments, **keywords)

        return call if callable(attribute) else attribute


@contextmanager
def running(take: "Callable[[], Run]") -> "Iterator[Run]":
    """The run that `take` finds or creates, RUNNING inside; no signal can leave it created but never closed."""
    with ExitStack() as entered:
        with held():
            run = take()
            entered.enter_context(run.running())
        yield run


def close_dead_runs(store: "Store", driven: str | None = None) -> None:
    """Close as KILLED the runs that dead processes left RUNNING: those that belong to this root and whose lock is free.

    `driven` is the study whose lock is ours: all of it is closed, wherever it ran. Its loops belong to no attempt from
    now on, so one that was cut off from us and still lives finds at its next generation that the loop is not its own.
    """
    by_id = {run.id: run for run in store.running()}
    dead: dict[str, bool] = {}
    for run in by_id.values():
        owner, top = store.ancestry(run, by_id)
        if top.id not in dead:
            dead[top.id] = _is_dead(top, driven)
        if dead[top.id] and store.get(run.id).status == "RUNNING":  # one that has ended since has freed its lock, too
            if driven is not None and owner.tag("level") == "loop":
                owner.log_tags(attempt="none")
            run.end("KILLED")


def _is_dead(top: "Run", driven: str | None) -> bool:
    """Whether nobody can be working below this run: a study, a lone loop, or a generation whose loop is gone."""
    study = top.tag("study") or ""
    if top.tag("level") == "generation" or (top.tag("level") == "study" and study == driven):
        return True
    if top.tag("root") not in (stores.root_id(), None):  # None: written before roots had ids
        return False
    if top.tag("level") == "study":
        return not locks.study_is_driven(study)
    return not locks.is_alone_held(study, top.tag("fingerprint") or "")
