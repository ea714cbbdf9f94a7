"""The bisection must end at the crossing, whoever helps and in whatever order points are decided."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ouroloop.study.search import Bracket, bracket, num_steps, open_points, verdict

POINTS = st.lists(st.integers(0, 1_000), min_size=1, max_size=60, unique=True).map(
    lambda whole: sorted(point / 1_000 for point in whole)
)


@given(POINTS, st.floats(-0.1, 1.1))
def test_a_falling_function_is_bracketed_in_the_fewest_steps(points: list[float], crossing: float) -> None:
    known: dict[float, bool] = {}
    while (point := next(open_points(points, known.get), None)) is not None:
        assert point not in known
        known[point] = point <= crossing
    held = [point for point in points if point <= crossing]
    failed = [point for point in points if point > crossing]
    assert bracket(points, known.get) == Bracket(max(held, default=None), min(failed, default=None))
    assert len(known) <= math.ceil(math.log2(len(points) + 1)) == num_steps(points, Bracket(None, None))


@pytest.mark.heavy
@given(POINTS, st.data())
def test_the_answer_does_not_depend_on_who_tried_what(points: list[float], data: st.DataObject) -> None:
    """Any function, falling or not: what was tried off the path changes nothing."""
    values = dict(
        zip(points, data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points))), strict=True)
    )
    alone: dict[float, bool] = {}
    while (point := next(open_points(points, alone.get), None)) is not None:
        alone[point] = values[point]
    together: dict[float, bool] = {}
    while still_open := list(open_points(points, together.get)):
        ahead = data.draw(st.sampled_from(still_open))
        together[ahead] = values[ahead]
    assert bracket(points, together.get) == bracket(points, alone.get)
    assert together.items() >= alone.items()


def test_a_point_that_nothing_depends_on_is_not_open() -> None:
    points = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert next(open_points(points, {}.get)) == 0.4
    assert set(open_points(points, {}.get)) == set(points)
    assert list(open_points(points, {0.4: True}.get)) == [0.6, 0.5, 0.7]
    assert list(open_points(points, {0.4: True, 0.6: False}.get)) == [0.5]
    assert num_steps(points, bracket(points, {0.4: True}.get)) == 2


BOUNDS = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(lambda pair: (min(pair) / 4, max(pair) / 4))


@given(st.lists(BOUNDS, min_size=1, max_size=5), st.sampled_from([0.3, 0.5, 0.9]), st.data())
def test_what_is_decided_early_is_what_the_values_decide(
    bounds: list[tuple[float, float]], target: float, data: st.DataObject
) -> None:
    values = [data.draw(st.floats(lowest, highest)) for lowest, highest in bounds]
    early = verdict(bounds, target, 0.1)
    final = verdict([(value, value) for value in values], target, 0.1)
    assert final is not None
    assert early in (None, final)


@pytest.mark.parametrize(
    ("bounds", "outcome"),
    [
        ([(0.5, 0.5)], "holds"),  # one seed: exactly the target holds
        ([(0.4999, 0.4999)], "fails"),
        ([(0.0, 2.0)], None),
        ([(0.757, 0.757), (0.93, 0.93), (0.57, 0.57)], "undecided"),
        ([(0.81, 0.81), (0.8, 0.8), (0.79, 0.79)], "holds"),
        ([(0.01, 0.01), (0.02, 0.02), (0.0, 0.05)], "fails"),  # whatever the third does
        ([(0.01, 0.01), (0.02, 0.02), (0.0, 0.95)], None),
    ],
)
def test_a_t_test_against_the_target(bounds: list[tuple[float, float]], outcome: str | None) -> None:
    assert verdict(bounds, 0.5, 0.025) == outcome


def test_the_t_test_is_scipys() -> None:
    """Three seeds: the least mean that holds is where the one-sided test has p = 2.5 %."""
    values = [0.5, 0.6, 0.7]
    for target in np.linspace(0.2, 1.0, 33):
        greater, less = (ttest_1samp(values, target, alternative=side).pvalue for side in ("greater", "less"))
        expected = "holds" if greater <= 0.025 else "fails" if less < 0.025 else "undecided"
        assert verdict([(value, value) for value in values], float(target), 0.025) == expected
