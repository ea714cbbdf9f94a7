"""sympy must agree with us, and must be able to disagree."""

import pytest

from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import derive, enumerate_expressions
from ouroloop.testbed.logic.oracle import OracleDisagreesError, cross_check, truth
from ouroloop.testbed.logic.verify import Node, Verdict, judge, parse


def test_agrees_on_every_expression_up_to_depth_2() -> None:
    texts = [text for depth in (0, 1, 2) for text, _ in enumerate_expressions(depth)]
    assert cross_check(texts) == len(texts) == 222


def test_agrees_on_thousands_of_deeper_ones() -> None:
    for depth in (3, 4, 5):
        for text, value in derive(depth, 1_000, stream(depth, "oracle")):
            node = parse(text)
            assert node is not None
            assert truth(node) is value
            assert judge(text).verdict is (Verdict.TRUE if value else Verdict.FALSE)


def test_malformed_texts_are_not_checked() -> None:
    assert cross_check(["not ( )", "__import__('os')", "( not True )"]) == 1


def test_a_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Node("not", (Node("constant", (), True, 0, True),), True, 1, True)
    monkeypatch.setattr("ouroloop.testbed.logic.oracle.parse", lambda text: wrong)
    with pytest.raises(OracleDisagreesError, match="is True here and False in sympy"):
        cross_check(["( not True )"])
