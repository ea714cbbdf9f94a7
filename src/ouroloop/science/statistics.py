"""What a few seeds can say: means with intervals that stay in the range of what is measured, and times to an event.

Everything is a function of numbers. An interval is at 95 %, two-sided, over seeds: it is about how another set of
seeds would turn out. The errors of one loop's finite sample are `<key>_stderr`, and enter only `crossing`.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import exp, hypot, inf, isinf, log, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

LEVEL = 0.95

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-inf, inf)
SHARE: Bounds = (0.0, 1.0)


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval; `low` and `high` are None where the seeds do not say how they vary."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


def interval(values: Sequence[float], bounds: Bounds = UNBOUNDED) -> Interval:
    """Mean of at least one value, and Student's t interval on the scale on which the mean has no bounds.

    With two finite bounds, that scale is the logit of the mean's place between them; with one, the logarithm of its
    distance from it; with none, the value itself. The standard error is carried over by the delta method:

        logit(x) ± t(n - 1)·s/√n / (x·(1 - x)),   x the mean's place in [0, 1]

    So the interval lies inside the bounds and holds the mean; nothing is cut off. It is what surveys use for small
    proportions (Korn and Graubard, Survey Methodology 24, 1998; svyciprop(method = "logit") in R). In simulations with
    three seeds (tests/science/test_statistics.py) it covers 95 % for shares from U-shaped to one-sided, where the plain
    t interval falls to 89 %, and 81 against 65 % for loops of which only a few have begun to collapse.

    There are no limits for one value, nor for several equal ones: no spread was seen, which is not the same as none.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2 or min(values) == max(values):
        return Interval(mean, None, None, n)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1)) / sqrt(n)
    return Interval(mean, *_limits(mean, half, bounds), n)


def _limits(mean: float, half: float, bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    if isinf(low) and isinf(high):
        return mean - half, mean + half
    if isinf(high):
        factor = exp(min(half / (mean - low), 700))
        return low + (mean - low) / factor, low + (mean - low) * factor
    if isinf(low):
        below, above = _limits(-mean, half, (-high, inf))
        return -above, -below
    place = min(max((mean - low) / (high - low), 1e-300), 1 - 1e-12)  # floats are dense near 0, not near 1
    center, spread = log(place / (1 - place)), half / (high - low) / (place * (1 - place))
    lower, upper = (low + (high - low) * _expit(end) for end in (center - spread, center + spread))
    return min(lower, mean), max(upper, mean)


def _expit(x: float) -> float:
    return 1 / (1 + exp(min(-x, 700)))


class Survival(NamedTuple):
    """When an event happens, judged by loops that may not have come to it."""

    median: int | None
    """The first time by which half of the loops have had it (Kaplan and Meier); None where fewer had."""
    median_low: int | None
    median_high: int | None
    """Its exact 95 % interval from order statistics; an end is None where there is none, as below six loops."""
    restricted_mean: Interval
    """Mean time without the event, up to `horizon`: the area under Kaplan and Meier's curve."""
    horizon: int
    num_events: int


def survival(times: Sequence[int | None], reached: Sequence[int]) -> Survival:
    """When the event happens, from each loop's time of it, None where it had not come by the time the loop reached.

    A loop that ended without the event is censored, not left out: to leave it out would make the event seem to come too
    soon. The reason must be chance, not what it measured. The median needs no assumption. Where no loop was censored
    before the horizon, the restricted mean is the mean of min(time, horizon), with the interval of such a mean;
    otherwise it has no interval, since few loops do not say how it varies. It lies between 0 and the horizon.

    Raises:
        ValueError: there is no loop.
    """
    if not times:
        raise ValueError("no loop, no time")
    horizon = max(reached)
    followed = [(end if time is None else time, time is not None) for time, end in zip(times, reached, strict=True)]
    curve = kaplan_meier(followed)
    mean = Interval(_area(curve, horizon), None, None, len(followed))
    if not _some_left_early(followed, horizon):
        mean = interval([end for end, _ in followed], (0.0, float(horizon)))
    median = next((t for t, left in curve.items() if left <= Fraction(1, 2)), None)
    return Survival(median, *_median_limits(followed, horizon), mean, horizon, sum(event for _, event in followed))


def _some_left_early(followed: Sequence[tuple[int, bool]], horizon: int) -> bool:
    return any(not event and end < horizon for end, event in followed)


def kaplan_meier(followed: Sequence[tuple[int, bool]]) -> dict[int, Fraction]:
    """Time of each event -> the share without it after that time; `followed` has (time, whether it came).

    Fractions, because a product of floats that should be one half is often a little more.
    """
    left, curve = Fraction(1), {}
    for time in sorted({time for time, event in followed if event}):
        at_risk = sum(end >= time for end, _ in followed)
        left *= 1 - Fraction(sum(end == time and event for end, event in followed), at_risk)
        curve[time] = left
    return curve


def _area(curve: Mapping[int, Fraction], horizon: int) -> float:
    total, since, left = Fraction(0), 0, Fraction(1)
    for time, after in curve.items():
        total, since, left = total + left * (time - since), time, after
    return float(total + left * (horizon - since))


def _median_limits(followed: Sequence[tuple[int, bool]], horizon: int) -> tuple[int | None, int | None]:
    """The k-th event from either end, k the largest for which each end misses the median at most 2.5 % of the time."""
    n = len(followed)
    k = next(k for k in range(n + 1) if bdtr(k, n, 0.5) > (1 - LEVEL) / 2)
    if k == 0 or _some_left_early(followed, horizon):
        return None, None
    ordered = sorted(followed, key=lambda one: (one[0], not one[1]))
    ends = [time if event else None for time, event in (ordered[k - 1], ordered[n - k])]
    return ends[0], ends[1]


def most_kept(kept: Iterable[float]) -> float:
    """The most that any loop of a cell `kept` at any generation, and 1 at least, D_0's own."""
    return max([1.0, *kept])


def bounds_of_kept(values: Iterable[float], most: float) -> Bounds:
    """The bounds of the mean of these retentions of a cell: 0, and the most that it ever kept.

    The latter is 1, D_0's own, or a little more. The bound in principle, 1 over the diversity of D_0, is about 1.9: so
    far off that it would not affect an interval near 1, which would cover the mean of loops of which few have begun to
    collapse in 65 % of cases, instead of 81 % (tests/science/test_statistics.py). Where one of the values is above 1,
    D_0 bounds nothing, and the most that was seen is no bound of what another seed would keep: 0 is the only one.
    """
    return 0.0, inf if max(values, default=0) > 1 else most


def crossing(values: Mapping[int, float], errors: Mapping[int, float], factor: float) -> tuple[int | None, bool]:
    """The first time after 1 at which a measure is beyond `factor` times what it was there; None for never.

    Beyond is below for a factor under 1, and above for one over 1. With standard errors it is the first time at which
    a band that holds at all times at once says so: Bonferroni's at 95 %, over as many looks as there are times, with
    the error of time 1 in it. Where a measure has errors, a time without one is exact, with error 0. A measure
    without any errors gives a point estimate, and the second result is False.
    """
    if 1 not in values:
        return None, False
    later = [t for t in sorted(values) if t > 1]
    is_banded = any(t in errors for t in (1, *later))
    z = float(-ndtri((1 - LEVEL) / 2 / len(later))) if later else 0.0
    sign = 1 if factor > 1 else -1
    for t in later:
        error = hypot(errors.get(t, 0.0), factor * errors.get(1, 0.0))
        if sign * (values[t] - factor * values[1]) > z * error:
            return t, is_banded
    return None, is_banded
