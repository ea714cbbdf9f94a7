"""What ends a loop before its time: Ctrl-C, SIGTERM, or that nobody needs its result. Open runs end as KILLED."""

import signal
from types import FrameType


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
        raise Interrupted(signum)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
