"""A sample: every text counts, and nothing is no score."""

import numpy as np
import pytest

from ouroloop.testbed.base import Sample
from tests.testbed.test_throwaway import WordList


def sample_of(texts: list[str]) -> Sample:
    return Sample.of(texts, WordList())


def test_the_most_frequent_come_first_and_then_the_first_sampled() -> None:
    sample = sample_of(["c", "b", "a", "b", "a", "d"])
    assert list(sample.counts.items()) == [("b", 2), ("a", 2), ("c", 1), ("d", 1)]
    assert sample.size == 6


def test_nothing_is_not_a_score() -> None:
    with pytest.raises(ValueError, match="no texts"):
        sample_of([])


def test_the_head_has_shares_and_what_the_testbed_says() -> None:
    sample = sample_of(["noon", "dusk", "noon", "noon at dusk"])
    assert sample.most_frequent(2) == [(2, 0.5, "yes", "noon"), (1, 0.25, "yes", "dusk")]
    assert sample.most_frequent(9)[2:] == [(1, 0.25, "no", "noon at dusk")]


def test_a_rate_counts_repeats_and_has_a_binomial_error() -> None:
    rate = sample_of(["a"] * 6 + ["b"] * 3 + ["c"]).rate(["a", "c"])
    assert rate == (pytest.approx(0.7), pytest.approx(np.sqrt(0.7 * 0.3 / 10)))


def test_a_mean_counts_repeats_of_what_has_a_value() -> None:
    sample = sample_of(["a", "a", "b", "c", "c", "c"])
    mean = sample.mean({"a": 1.0, "b": 4.0})
    values = [1.0, 1.0, 4.0]
    assert mean == (pytest.approx(2), pytest.approx(np.std(values, ddof=1) / np.sqrt(3)))
    assert sample.mean({"b": 4.0}) == (4, None)  # one value has no spread
