"""The logic testbed keeps the contract, whatever its truth label, and knows what its texts are called."""

import pytest

from ouroloop.testbed.base import Sample
from ouroloop.testbed.logic.grammar import TruthLabel
from ouroloop.testbed.logic.testbed import LogicTestbed, depth_total_variation
from tests.testbed import contract


class TestLogic(contract.TestbedContract):
    @pytest.fixture(
        params=[*(LogicTestbed(truth_label=label) for label in TruthLabel), LogicTestbed(2, 3)],
        ids=lambda testbed: f"{testbed.truth_label.value}-{testbed.max_depth}",
    )
    def testbed(self, request: pytest.FixtureRequest) -> LogicTestbed:
        return request.param


def sample_of(texts: list[str]) -> Sample:
    return Sample.of(texts, LogicTestbed())


def test_a_row_says_verdict_and_depth() -> None:
    texts = ["( True and ( not False ) )", "False", "( not"]
    assert [LogicTestbed().row(text) for text in texts] == [
        ("True", 2, texts[0]),
        ("False", 0, texts[1]),
        ("malformed", "", texts[2]),
    ]


def test_the_tally_is_by_depth_and_malformed_ones_come_last() -> None:
    sample = sample_of(["( (", "( not ( not True ) )", "True", "( not True )", ")", "True", "( not True )"])
    assert LogicTestbed().tally(sample) == [("0", 2), ("1", 2), ("2", 1), ("malformed", 2)]


def test_depth_total_variation() -> None:
    shallow, deep = sample_of(["( not True )"]), sample_of(["( not ( not True ) )"])
    assert depth_total_variation(shallow, shallow) == 0
    assert depth_total_variation(shallow, deep) == 1
    assert depth_total_variation(shallow, sample_of(["( not True )", "("])) == 0.5


def test_membership_asks_for_the_configured_depths() -> None:
    sample = sample_of(["( not False )", "( not ( not True ) )"])
    member = [LogicTestbed(1, depth).measures(sample, sample)["grammar_membership"].value for depth in (1, 2)]
    assert member == [0.5, 1]


@pytest.mark.parametrize(
    ("text", "max_depth", "right"),
    [
        ("( not False )", None, True),
        ("( not True )", None, False),
        ("( not False )", 1, True),
        ("( not True )", 1, False),
        ("( not ( not True ) )", 1, None),
        ("( not", None, False),
        ("( not", 1, False),
    ],
)
def test_a_verifier_sees_as_deep_as_it_says_and_what_is_malformed_at_any_depth(
    text: str, max_depth: int | None, right: bool | None
) -> None:
    assert LogicTestbed().verify(text, max_depth) is right


@pytest.mark.parametrize(
    ("label", "right"),
    [(TruthLabel.TRUE_ONLY, True), (TruthLabel.HALF_AND_HALF, True), (TruthLabel.FALSE_ONLY, False)],
)
def test_right_is_true_unless_all_original_data_is_false(label: TruthLabel, right: bool) -> None:
    found = [LogicTestbed(truth_label=label).verify(text) for text in ("( not False )", "( not True )", "( not")]
    assert found == [right, not right, False]


def test_sympy_gets_what_is_cross_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouroloop.testbed.logic.oracle.truth", lambda node: not node.value)
    with pytest.raises(AssertionError, match="in sympy"):
        LogicTestbed().cross_check(["( not True )"])
