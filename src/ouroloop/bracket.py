"""Where a falling function passes a target: bisection that several can work on, and that knows when to stop.

The answer follows the path of a plain bisection, whatever else has been tried, so it does not depend on
how many work on it or on who is done first. Knows nothing about loops.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class Bracket(NamedTuple):
    """The largest point on the path that held and the smallest that failed; None where there is no such point."""

    held: float | None
    failed: float | None


Outcome = Callable[[float], bool | None]
"""Whether a point held; None while that is open."""


def mean_outcome(bounds: Sequence[tuple[float, float]], target: float) -> bool | None:
    """Whether the mean of values, each known to lie within its bounds, is at least `target`; None if it may yet be.

    Both sums are correctly rounded, hence monotone in every term: what is decided early is what the values
    will decide.
    """
    wanted = target * len(bounds)
    if math.fsum(lowest for lowest, _ in bounds) >= wanted:
        return True
    return None if math.fsum(highest for _, highest in bounds) >= wanted else False


def bracket(points: Sequence[float], outcome: Outcome) -> Bracket:
    """How far the path has come: closed when no point is open between its ends. `points` ascend."""
    held, failed = -1, len(points)
    while failed - held > 1:
        middle = (held + failed) // 2
        match outcome(points[middle]):
            case True:
                held = middle
            case False:
                failed = middle
            case None:
                break
    return Bracket(points[held] if held >= 0 else None, points[failed] if failed < len(points) else None)


def num_steps(points: Sequence[float], found: Bracket) -> int:
    """How many more points the path takes at most: ⌈log2(n + 1)⌉ of the n between the ends."""
    between = [
        point
        for point in points
        if (found.held is None or point > found.held) and (found.failed is None or point < found.failed)
    ]
    return len(between).bit_length()


def open_points(points: Sequence[float], outcome: Outcome) -> Iterator[float]:
    """The points whose outcome may still matter: the next on the path first, then what it may lead to."""
    spans = deque([(-1, len(points))])
    while spans:
        held, failed = spans.popleft()
        if failed - held <= 1:
            continue
        middle = (held + failed) // 2
        match outcome(points[middle]):
            case True:
                spans.appendleft((middle, failed))
            case False:
                spans.appendleft((held, middle))
            case None:
                yield points[middle]
                spans += [(held, middle), (middle, failed)]
