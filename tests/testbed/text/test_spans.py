"""The longest shared span, against the definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ouroloop.testbed.text.spans import longest_shared

SEQUENCES = st.lists(st.lists(st.sampled_from("ab") | st.sampled_from("abcd"), max_size=20), max_size=6)


def by_definition(text: list[str], others: list[list[str]]) -> int:
    spans = {tuple(one[i:j]) for one in others for i in range(len(one)) for j in range(i + 1, len(one) + 1)}
    ours = [tuple(text[i:j]) for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    return max((len(span) for span in ours if span in spans), default=0)


@pytest.mark.heavy
@given(texts=SEQUENCES, others=SEQUENCES)
@settings(max_examples=300, deadline=None)
def test_it_is_the_longest_there_is(texts: list[list[str]], others: list[list[str]]) -> None:
    assert longest_shared(texts, others) == [by_definition(text, others) for text in texts]


def test_a_span_does_not_run_from_one_text_into_the_next() -> None:
    assert longest_shared([["a", "b", "c", "d"]], [["a", "b"], ["c", "d"]]) == [2]
    assert longest_shared([["a", "b"], ["a", "b"]], [["b"]]) == [1, 1]  # texts are compared with the others alone
