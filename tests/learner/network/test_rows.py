"""Batches of rows: each row once, nothing wasted that need not be; padding where nobody looks."""

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.learner.network.rows import alike, cheapest_ranges, padded

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(lengths, st.integers(1, 200))
def test_batches_hold_each_row_once_and_are_alike_and_bounded(lengths: list[int], tokens_at_once: int) -> None:
    batches = list(alike(lengths, tokens_at_once))
    assert [i for batch in batches for i in batch] == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for batch in batches:
        shortest, longest = lengths[batch[0]], lengths[batch[-1]]
        assert longest <= 1.15 * shortest
        assert len(batch) == 1 or longest * len(batch) <= tokens_at_once
    for batch, following in pairwise(batches):  # none could have taken the next row
        first = lengths[following[0]]
        assert first > 1.15 * lengths[batch[0]] or first * (len(batch) + 1) > tokens_at_once


def test_rows_are_filled_up_on_the_right() -> None:
    ids = padded([[1, 2, 3], np.array([4])], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert padded([np.array([0])], 5).dtype == ids.dtype


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8).map(sorted), st.integers(0, 200))
def test_no_other_way_to_cut_costs_less(lengths: list[int], fixed: int) -> None:
    """Against all ways to cut so few texts."""
    count = len(lengths)

    def total(ranges: list[tuple[int, int]]) -> int:
        return sum((end - first) * lengths[end - 1] + fixed for first, end in ranges)

    found = cheapest_ranges(count, lambda end: np.arange(end, 0, -1) * lengths[end - 1] + fixed)
    ways = [list(pairwise([0, *cuts, count])) for size in range(count) for cuts in combinations(range(1, count), size)]
    assert found in ways
    assert total(found) == min(map(total, ways))
