"""The closed forms against enumeration, against draws, and against a probability multiplied up along the tree."""

import math
from collections import Counter

import numpy as np
import pytest

from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Stratum
from ouroloop.testbed.logic.distribution import LogicDistribution
from ouroloop.testbed.logic.grammar import TruthLabel, num_expressions, unique_set
from ouroloop.testbed.logic.testbed import LogicTestbed
from ouroloop.testbed.logic.verify import Node, judge, parse

TRUE = LogicDistribution()
HALF = LogicDistribution(truth_label=TruthLabel.HALF_AND_HALF)
FALSE = LogicDistribution(truth_label=TruthLabel.FALSE_ONLY)


def probability_of_tree(node: Node) -> float:
    """The grammar's choices one by one: the independent oracle."""
    if node.operator == "constant":
        return 1 / 2
    return math.prod(map(probability_of_tree, node.children)) / 3


def test_the_entropy_given_true_is_18_97_bits() -> None:
    assert TRUE.entropy_nats / math.log(2) == pytest.approx(18.97, abs=0.005)
    of_depth = [LogicDistribution(depth, depth).entropy_nats / math.log(2) for depth in range(1, 6)]
    assert of_depth == pytest.approx([2.252, 6.004, 12.259, 22.683, 40.057], abs=0.0005)
    assert FALSE.entropy_nats == TRUE.entropy_nats
    assert HALF.entropy_nats == pytest.approx(TRUE.entropy_nats + math.log(2))


@pytest.mark.parametrize("distribution", [TRUE, HALF, FALSE], ids=lambda distribution: distribution.truth_label.value)
def test_all_expressions_up_to_depth_3_sum_to_three_fifths(distribution: LogicDistribution) -> None:
    strata = [distribution.all_of_depth(depth) for depth in (1, 2, 3)]
    assert [len(s.texts) for s in strata] == [n * distribution.num_labels for n in (5, 105, 44_205)]
    assert [np.exp(s.log_p).sum() for s in strata] == pytest.approx([1 / 5] * 3, abs=1e-12)
    assert [s.weights.sum() for s in strata] == pytest.approx([1] * 3, abs=1e-12)


@pytest.mark.parametrize("distribution", [TRUE, HALF], ids=lambda distribution: distribution.truth_label.value)
def test_log_p_is_the_product_of_the_choices(distribution: LogicDistribution) -> None:
    texts = [
        text for depth in distribution.depths for text in distribution.draw(depth, 40, stream(1, "test", depth)).texts
    ]
    expected = []
    for text in texts:
        root = parse(text)
        assert root is not None
        assert distribution.supports(judge(text))
        expected.append(math.log(probability_of_tree(root) / 5 * (2 / distribution.num_labels)))
    assert distribution.log_probabilities(texts) == pytest.approx(expected, abs=1e-9)


def test_forms_hold_every_expression_once() -> None:
    forms = LogicDistribution(1, 7).forms
    for depth in range(1, 8):
        assert forms.num[forms.parts[f"coverage_depth_{depth}"]].sum() == pytest.approx(
            num_expressions(depth) / 2, rel=1e-12
        )
    assert np.sum(forms.num * np.exp(forms.log_p)) == pytest.approx(1, abs=1e-12)
    of_depth_3 = LogicDistribution(3, 3)
    enumerated = Counter(np.round(of_depth_3.all_of_depth(3).log_p, 6))
    by_form: Counter[float] = Counter()
    for num, log_p in zip(of_depth_3.forms.num, of_depth_3.forms.log_p, strict=True):
        by_form[np.round(log_p, 6)] += int(num)
    assert by_form == enumerated


def test_true_is_not_the_same_as_supported() -> None:
    level_false, not_level, too_deep = "( not True )", "( True or ( not True ) )", "( not ( not ( not True ) ) )"
    assert not TRUE.supports(judge(level_false))
    assert FALSE.supports(judge(level_false))
    assert HALF.supports(judge(level_false))
    assert not HALF.supports(judge(not_level))
    assert not LogicDistribution(max_depth=2, truth_label=TruthLabel.FALSE_ONLY).supports(judge(too_deep))
    assert not TRUE.supports(judge("True"))
    assert not TRUE.supports(judge("( not"))


def test_expected_unique_is_the_sum_over_all_expressions() -> None:
    distribution = LogicDistribution(max_depth=3)
    p = np.exp(np.concatenate([distribution.all_of_depth(depth).log_p for depth in (1, 2, 3)]))
    assert distribution.expected_unique(500) == pytest.approx(np.sum(1 - (1 - p) ** 500), rel=1e-9)
    assert TRUE.expected_unique(10_000) == pytest.approx(5_208, abs=1)  # a sample of 10,000 is 52 % distinct


@pytest.mark.heavy
def test_a_unique_set_has_the_depths_that_its_distribution_says() -> None:
    """The mean over 30 real sets of 500, within 4 standard errors."""
    distribution = LogicTestbed().distribution
    q = distribution.forms.num * np.exp(distribution.original_log_probabilities(500))
    shares = [
        [np.mean([judge(text).depth == depth for text in unique_set(500, stream(seed, "data"))]) for depth in (1, 3, 5)]
        for seed in range(30)
    ]
    expected = [q[distribution.forms.parts[f"coverage_depth_{depth}"]].sum() for depth in (1, 3, 5)]
    stderr = np.std(shares, axis=0, ddof=1) / np.sqrt(30)
    assert (np.abs(np.mean(shares, axis=0) - expected) < 4 * stderr + 1e-3).all()  # a set is not quite Poisson


def test_a_set_of_everything_is_uniform() -> None:
    assert np.exp(LogicDistribution(max_depth=2).original_log_probabilities(110)) == pytest.approx(1 / 110)


def test_draws_follow_the_distribution() -> None:
    """Mean -log p of 2,000 draws is the entropy given the depth, 4 standard errors."""
    distribution = LogicDistribution(4, 4)
    drawn = distribution.draw(4, 2_000, stream(2, "test"))
    assert len(drawn.texts) == 2_000
    assert abs(-drawn.log_p.mean() - distribution.entropy_nats) < 4 * drawn.log_p.std() / np.sqrt(2_000)


def test_the_rarest_hold_their_share() -> None:
    forms = TRUE.forms
    p = forms.num * np.exp(forms.log_p)
    for share in (0.5, 0.1, 0.01):
        threshold = TRUE.rarest(share)
        assert p[forms.log_p < threshold - 1e-9].sum() < share <= p[forms.log_p <= threshold + 1e-9].sum() + 1e-12
    for percent in (50, 10):
        tail = forms.parts[f"coverage_tail_{percent}"]
        assert tail.tolist() == (forms.log_p <= TRUE.rarest(percent / 100) + 1e-9).tolist()
        assert p[tail].sum() >= percent / 100 - 1e-12


def test_each_depth_is_drawn_by_a_stream_of_its_own() -> None:
    """Depths 1 and 2 are enumerated. Of one stream, all depths would be made by the same choices."""
    asked = list[int]()

    def own(depth: int) -> np.random.Generator:
        asked.append(depth)
        return stream(1, "held_out", depth)

    TRUE.strata(own, exact=False)
    assert asked == [3, 4, 5]


def test_the_same_expressions_are_held_out_wherever_the_streams_are_the_same() -> None:
    def held_out(seed: int, exact: bool) -> list[Stratum]:
        return TRUE.strata(lambda part: stream(seed, "held_out", part), exact=exact)

    first, again, other = (held_out(seed, exact=False) for seed in (1, 1, 2))
    assert [s.texts for s in first] == [s.texts for s in again] != [s.texts for s in other]
    assert [s.is_exact for s in first] == [True, True, False, False, False]
    exact = held_out(1, exact=True)
    assert sum(len(s.texts) for s in exact if s.is_exact) == 44_315
    assert [s.texts for s in exact[3:]] == [s.texts for s in first[3:]]
