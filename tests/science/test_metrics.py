"""The measures against naive ones and known answers; nothing may turn into a score of zero."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.config import StageConfig
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.metrics import (
    RETENTION,
    CollapseStage,
    as_metrics,
    control,
    diversity,
    diversity_levenshtein,
    half_life,
    measure,
    measure_training_set,
    stage_basis,
    stage_of,
    stages_of,
)
from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Estimate, Sample
from ouroloop.testbed.logic.grammar import WORDS, unique_set
from ouroloop.testbed.logic.testbed import LogicTestbed
from ouroloop.testbed.text.testbed import TextTestbed

TESTBED = LogicTestbed()


def sample_of(texts: Sequence[str]) -> Sample:
    return Sample.of(texts, TESTBED)


def levenshtein(counts: Mapping[str, int]) -> Estimate:
    return diversity_levenshtein({text: text.split() for text in counts}, counts)


@cache  # in pure Python it takes most of this file's time
def edit_distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """The textbook recurrence, as an independent oracle."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def naive_diversity(texts: list[str]) -> float:
    distances = []
    for i, a in enumerate(texts):
        for b in texts[:i]:
            longer = max(len(a.split()), len(b.split()))
            distances.append(edit_distance(tuple(a.split()), tuple(b.split())) / longer if longer else 0.0)
    return float(np.mean(distances))


token_texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@given(st.lists(token_texts, min_size=2, max_size=14))
def test_diversity_is_the_mean_over_all_pairs(texts: list[str]) -> None:
    estimate = levenshtein(Counter(texts))
    assert estimate.value == pytest.approx(naive_diversity(texts), abs=1e-6)
    assert 0 <= estimate.value <= 1


@pytest.mark.heavy
def test_diversity_of_long_texts_and_many_blocks() -> None:
    """Over 64 tokens the distance takes another path, and over a few rows the blocks are several."""
    texts = unique_set(24, stream(1, "data"), min_depth=5) + unique_set(24, stream(2, "data")) * 2
    assert levenshtein(Counter(texts)).value == pytest.approx(naive_diversity(texts), abs=1e-6)


def test_diversity_known_answers() -> None:
    assert levenshtein({"True": 7}) == (0.0, 0.0)
    assert levenshtein({"True": 1, "False": 1}).value == 1
    # n = 4, two of each: 4 of 6 pairs differ. Each text is 2/3 from the others, so all of the error is that of the
    # pairs: their variance is 2/3 - 4/9 = 2/9, and 2·(2/9)/(4·3) = 1/27
    assert levenshtein({"True": 2, "False": 2}) == (pytest.approx(4 / 6), pytest.approx(27**-0.5))
    # n = 3: 1/2, 1/2 and 1 from the others, with a variance of (2/36 + 1/9)/2 = 1/12: 4·(1/12)/3 + 2·(2/9)/(3·2) = 5/27
    assert levenshtein({"True": 2, "False": 1}) == (pytest.approx(2 / 3), pytest.approx((5 / 27) ** 0.5))


class Few(LogicTestbed):
    max_compared = 10


def test_where_few_are_compared_they_are_a_cross_section_with_repeats() -> None:
    """Of 70 and 30 texts seven and three, give or take one: 16, 21 or 24 of 45 pairs differ. The head would be 0, and
    one of each 1: a collapsed model that looks dead, or diverse."""
    found = diversity(Sample.of(["True"] * 70 + ["False"] * 30, Few())).value
    assert found in (pytest.approx(16 / 45), pytest.approx(21 / 45), pytest.approx(24 / 45))
    assert diversity(Sample.of(["True"] * 7 + ["False"] * 3, Few())).value == pytest.approx(21 / 45)


def test_the_control_is_of_two_halves_that_have_no_text_in_common() -> None:
    """No word is in two of these texts, so none of a half is found in the other."""
    texts = [f"left{i} right{i}" for i in range(40)]
    found = control(Sample.of(texts, TextTestbed(num_examples=40, compared_tokens=8)))
    assert found["control_verbatim_share"] == (0.0, 0.0)
    assert found["control_diversity_levenshtein"].value == found["control_diversity_retention"].value == 1
    assert control(Sample.of(texts[:3], TextTestbed())) == {}, "a half of one text has no pair"


def test_diversity_standard_error_covers() -> None:
    """Over 200 samples of 60 texts the spread of the estimate is the stated standard error, within 15 %:
    3 standard errors of a standard deviation from 200 values are 3/sqrt(2·200) = 15 %."""
    population = unique_set(4_000, stream(3, "data"))
    rng = stream(4, "test")
    estimates = [levenshtein(Counter(population[i] for i in rng.choice(len(population), 60))) for _ in range(200)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    stated = np.mean([estimate.stderr for estimate in estimates])
    assert stated == pytest.approx(spread, rel=0.15)


def test_rates_count_every_text() -> None:
    original = sample_of(["( not False )", "( True and True )"])
    sample = sample_of(["( not False )"] * 5 + ["( not True )"] * 2 + ["True"] + ["( not"] + [""])
    measures = measure(sample, original)
    assert {key: estimate.value for key, estimate in measures.items()} == pytest.approx(
        {
            "correctness": 0.6,
            "syntactic_correctness": 0.8,
            "false_rate": 0.2,
            "error_rate": 0.2,
            "grammar_membership": 0.5,  # `True` alone is true and not of depth 1 to 5
            "num_unique": 5,
            "unique_fraction": 0.5,
            "mean_length_tokens": (5 * 4 + 2 * 4 + 1 + 2 + 0) / 10,
            "mean_depth": 7 / 8,
            "depth_tv": 0.3,
            "share_in_original": 0.5,
            "diversity_levenshtein": measures["diversity_levenshtein"].value,
            "diversity_retention": measures["diversity_levenshtein"].value / diversity(original).value,
        }
    )
    assert measures["correctness"].stderr == pytest.approx(math.sqrt(0.6 * 0.4 / 10))
    kept, retention = measures["diversity_levenshtein"], measures["diversity_retention"]
    assert kept.stderr is not None
    assert retention.stderr == pytest.approx(kept.stderr / 0.6)  # D_0's two texts differ in 3 of 5 places


def test_original_data_against_itself() -> None:
    original = sample_of(unique_set(300, stream(1, "data")))
    metrics = as_metrics(measure(original, original))
    assert metrics["diversity_retention"] == metrics["correctness"] == metrics["grammar_membership"] == 1
    assert metrics["depth_tv"] == metrics["error_rate"] == 0
    assert metrics["share_in_original"] == 1


def test_what_cannot_be_computed_is_absent() -> None:
    one_text = sample_of(["( not False )"] * 3)
    garbage = sample_of(["( (", ") )"])
    assert "mean_depth" not in measure(garbage, garbage)
    assert "diversity_retention" not in measure(garbage, one_text)
    metrics = as_metrics(measure(garbage, one_text))
    assert metrics["correctness"] == 0  # 0 % correct is a finding
    assert all(math.isfinite(value) for value in metrics.values())


def test_an_error_of_zero_is_one_and_none_is_absent() -> None:
    assert as_metrics({"a": Estimate(0.5, 0.0), "b": Estimate(0.5)}) == {"a": 0.5, "a_stderr": 0.0, "b": 0.5}


def test_nothing_is_not_a_score() -> None:
    with pytest.raises(ValueError, match="no pair"):
        levenshtein({"True": 1})


def test_training_set_measures() -> None:
    training_set = Dataset.of(["a", "b"], Source.ORIGINAL, 0) + Dataset.of(["c", "c"], Source.SAMPLED, 1)
    measures = measure_training_set(sample_of(["c", "c", "c", "d"]), training_set)
    assert measures["synthetic_share"].value == 0.5
    assert measures["share_in_training_set"].value == 0.75


@pytest.mark.parametrize(
    ("retention", "expected"),
    [(1.02, "healthy"), (0.95, "healthy"), (0.949, "onset"), (0.5, "onset"), (0.05, "decline"), (0.0, "collapsed")],
)
def test_stages(retention: float, expected: str) -> None:
    assert stage_of(retention, StageConfig()) is CollapseStage(expected)


@pytest.mark.parametrize(
    ("retention", "expected"),
    [({0: 1.0, 1: 0.9, 2: 0.5}, None), ({3: 0.2, 2: 0.49, 1: 0.7}, 2), ({1: 0.4, 2: 0.9}, 1), ({}, None)],
)
def test_half_life_is_the_first_generation_below_a_half(retention: dict[int, float], expected: int | None) -> None:
    assert half_life(retention) == expected


def test_stages_of_generations_and_none_where_the_measure_is_absent() -> None:
    assert stages_of({0: 1.0, 1: 0.97, 2: 0.6, 4: 0.01}, StageConfig()) == ["healthy", "onset", None, "collapsed"]
    rule = StageConfig(measure="coverage")
    assert stages_of({1: 0.4, 2: 0.3, 3: 0.03}, rule) == ["healthy", "onset", "decline"]
    assert stages_of({2: 0.3}, rule) == [], "nothing to compare with"
    assert stages_of({}, rule) == []


def test_a_stage_may_rest_on_coverage_over_that_of_m_1() -> None:
    """Diversity is all there while three quarters of the coverage are gone: healthy by one, in decline by the other."""
    first, now = {"coverage": 0.4, RETENTION: 0.8}, {"coverage": 0.1, RETENTION: 0.99}
    assert stage_basis(RETENTION, now, first) == 0.99  # over D_0's as it is, whatever M_1 kept
    assert stage_basis("coverage", now, first) == pytest.approx(0.25)
    assert stage_basis("coverage", first, first) == 1.0
    assert stage_basis("coverage", {RETENTION: 1.0}, first) is None
    assert stage_basis("coverage", now, {"coverage": 0.0}) is None
    rule = StageConfig(measure="coverage")
    assert [stage_of(r, rule) for r in (0.99, 0.25)] == [CollapseStage.HEALTHY, CollapseStage.DECLINE]
