"""Known answers, and sacrebleu as the oracle of self-BLEU."""

import itertools
import zlib
from collections import Counter
from math import log

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from ouroloop.testbed.base import Sample
from ouroloop.testbed.text import measures
from ouroloop.testbed.text.testbed import TextTestbed

TESTBED = TextTestbed(num_examples=4, compared_tokens=8)


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def test_distinct_n_by_hand() -> None:
    texts = words("a b a b", "a b")
    assert measures.distinct(texts, 1) == pytest.approx(2 / 6)
    assert measures.distinct(texts, 2) == pytest.approx(2 / 4)  # ab ba ab, ab: none spans the two texts
    assert measures.distinct(texts, 3) == 1
    assert measures.distinct(texts, 5) is None


def test_entropy_of_bigrams_by_hand() -> None:
    assert measures.ngram_entropy(words("a b a b", "a b"), 2) == pytest.approx(-(0.75 * log(0.75) + 0.25 * log(0.25)))
    assert measures.ngram_entropy(words("a a a a"), 2) == 0
    assert measures.ngram_entropy(words("a", "b"), 2) is None


def test_the_rarest_tenth_by_hand() -> None:
    counts = Counter({"the": 50, "of": 40, "x": 4, "y": 3, "z": 3})
    assert measures.rarest(counts) == {"x", "y", "z"}  # y and z make up 6 %, so x of 4 % too: 10 % in all
    assert measures.rarest(counts + Counter({"the": 1})) == {"x", "y", "z", "of"}  # 10 of 101 are less than a tenth
    assert measures.rarest(Counter({"a": 5, "b": 5})) == {"a", "b"}


def test_repetition_by_hand() -> None:
    assert measures.repetition(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 - 4 / 5)
    assert measures.repetition(["a"] * 14) == pytest.approx(1 - 1 / 11)
    assert measures.repetition(["a", "b", "c"]) is None


def test_the_compression_ratio_is_zlibs() -> None:
    texts = [["one", " two"]] * 50
    plain = "\n".join(["one two"] * 50).encode()
    assert measures.compression_ratio(texts) == len(plain) / len(zlib.compress(plain, 9)) > 10


def test_a_probe_is_cut_to_so_many_tokens_and_evenly_chosen() -> None:
    sample = Sample.of([f"word{i} and more" for i in range(100)], TESTBED)
    probe = measures.probe(sample, 31)
    assert probe is not None
    assert sum(map(len, probe)) == 31
    chosen = sorted(int(text[0][4:]) for text in probe)
    assert max(b - a for a, b in itertools.pairwise(chosen)) <= 3 * 100 / len(chosen)
    assert measures.probe(sample, 301) is None


def test_coverage_of_the_vocabulary_by_hand() -> None:
    original = Sample.of(["a b c d", "a b c e"], TESTBED)
    assert measures.lexical(original, original, 8, 2)["vocabulary_coverage"].value == 1
    other = Sample.of(["a b c d", "a b c d"], TESTBED)
    found = measures.lexical(other, original, 8, 2)
    assert found["vocabulary_coverage"].value == pytest.approx(4 / 5)
    assert found["rare_token_coverage"].value == pytest.approx(1 / 2)  # d and e are there once each
    assert found["distinct_1"].value == pytest.approx(4 / 8)
    assert "vocabulary_coverage" not in measures.lexical(other, original, 9, 2)


def test_copied_spans_by_hand() -> None:
    training = ["the cat sat on the mat", "a dog ran"]
    sample = Sample.of(["the cat sat down", "a dog ran", "on a dog", "zzz", ""], TESTBED)
    # 3 of 4; all of it; " dog" after "a" at the start is another token than " a", so " dog" alone, 1 of 3; none
    assert measures.copied(sample, training)["verbatim_share"].value == pytest.approx((3 / 4 + 1 + 1 / 3 + 0) / 4)
    assert measures.copied(Sample.of([""], TESTBED), training) == {}


TEXTS = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=9), min_size=2, max_size=7)


@given(texts=TEXTS)
@settings(max_examples=60, deadline=None)
def test_self_bleu_is_sacrebleus(texts: list[list[str]]) -> None:
    joined = [" ".join(text) for text in texts]
    scores = [
        sacrebleu.sentence_bleu(text, [*joined[:i], *joined[i + 1 :]], tokenize="none").score / 100
        for i, text in enumerate(joined)
    ]
    assert measures.self_bleu(texts).value == pytest.approx(sum(scores) / len(scores), abs=1e-12)


def test_self_bleu_of_equal_and_of_unlike_texts() -> None:
    assert measures.self_bleu(words("a b c d e", "a b c d e")).value == pytest.approx(1)
    assert measures.self_bleu(words("a b c", "d e f")).value == 0
