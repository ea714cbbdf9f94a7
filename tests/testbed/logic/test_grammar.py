"""The distribution of D_0: what could go wrong is the support, the balance of its parts, or its uniqueness."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ouroloop.science.metrics import diversity_levenshtein
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic import grammar
from ouroloop.testbed.logic.grammar import (
    GrammarExhaustedError,
    TruthLabel,
    capacity,
    derive,
    enumerate_expressions,
    num_expressions,
    unique_set,
)
from ouroloop.testbed.logic.verify import Verdict, judge


@pytest.mark.parametrize(("depth", "true"), [(1, 5), (2, 105), (3, 44_205)])
def test_number_of_true_expressions(depth: int, true: int) -> None:
    expressions = dict(enumerate_expressions(depth))
    assert len(expressions) == num_expressions(depth) == 2 * true
    assert sum(expressions.values()) == true


def test_derive_matches_the_exact_distribution() -> None:
    """Depth 1 has ten expressions: p = 1/6 for each negation, 1/12 for the others. Chi-square, 9 degrees
    of freedom, 1 % false alarms at 21.67; the seed is fixed."""
    n = 20_000
    drawn = Counter(text for text, _ in derive(1, n, stream(1, "test")))
    expected = {text: n / 6 if "not" in text else n / 12 for text, _ in enumerate_expressions(1)}
    assert drawn.keys() == expected.keys()
    assert sum((drawn[text] - e) ** 2 / e for text, e in expected.items()) < 21.67


@pytest.mark.parametrize("truth_label", TruthLabel)
def test_unique_set_holds_what_was_asked_for(truth_label: TruthLabel) -> None:
    texts = unique_set(1_001, stream(2, "data"), truth_label=truth_label)
    judgements = [judge(text) for text in texts]
    assert len(texts) == len(set(texts)) == 1_001
    assert all(judgement.is_in_grammar(1, 5) for judgement in judgements)
    num_true = {"true_only": 1_001, "false_only": 0, "half_and_half": 501}[truth_label]
    assert sum(judgement.verdict is Verdict.TRUE for judgement in judgements) == num_true


PAPERS = [(TruthLabel.TRUE_ONLY, 0.535), (TruthLabel.HALF_AND_HALF, 0.544)]


def words_of(texts: Sequence[str]) -> dict[str, list[str]]:
    return {text: text.split() for text in texts}


@pytest.mark.heavy
@pytest.mark.parametrize(("truth_label", "diversity"), PAPERS)
def test_a_part_of_the_papers_original_data_has_its_diversity(truth_label: TruthLabel, diversity: float) -> None:
    """2,500 of the 10,000: within 3 standard errors and the tolerance below."""
    every = unique_set(10_000, stream(1, "data"), truth_label=truth_label)
    texts = [every[i] for i in stream(1, "part").choice(10_000, size=2_500, replace=False)]  # the first ones are short
    value, stderr = diversity_levenshtein(words_of(texts), dict.fromkeys(texts, 1))
    assert stderr is not None
    assert stderr < 0.003
    assert abs(value - diversity) < 3 * stderr + 0.002


@pytest.mark.slow
@pytest.mark.parametrize(("truth_label", "diversity"), PAPERS)
def test_diversity_of_the_papers_original_data(truth_label: TruthLabel, diversity: float) -> None:
    """At m = 10,000 the paper's figures start at 0.5347 to 0.5355 (True only) and 0.5449 (half and half)."""
    texts = unique_set(10_000, stream(1, "data"), truth_label=truth_label)
    assert diversity_levenshtein(words_of(texts), dict.fromkeys(texts, 1)).value == pytest.approx(diversity, abs=0.002)


def test_the_whole_grammar_can_be_drawn() -> None:
    texts = unique_set(110, stream(3, "data"), max_depth=2)
    assert set(texts) == {text for depth in (1, 2) for text, value in enumerate_expressions(depth) if value}


def test_more_than_the_grammar_has_is_refused() -> None:
    assert [capacity(1, 2, label) for label in TruthLabel] == [110, 110, 220]
    with pytest.raises(GrammarExhaustedError, match="111 unique expressions asked for, but depth 1 to 2 has 110"):
        unique_set(111, stream(3, "data"), max_depth=2)


def test_what_is_too_improbable_is_not_drawn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most are 2 · 10 + 100,000. Draws come by 256, and 391 · 256 = 100,096 is the first number above."""
    monkeypatch.setattr(grammar, "derive", lambda depth, count, rng: [("( not False )", True)] * count)
    monkeypatch.setattr(grammar, "_MAX_DRAWS_PER_EXPRESSION", 10)
    with pytest.raises(GrammarExhaustedError, match=r"only 1 of 2 unique expressions .* came up in 100,096 draws"):
        unique_set(2, stream(3, "data"))


def test_the_same_seed_gives_the_same_set_and_another_one_does_not() -> None:
    first, again, other = (unique_set(200, stream(seed, "data")) for seed in (1, 1, 2))
    assert first == again != other


def test_depths_are_uniform_before_repeats_are_dropped() -> None:
    """At depths 4 and 5 repeats are rare, so a set keeps their balance; 4 standard errors."""
    depths = [judge(text).depth for text in unique_set(2_000, stream(4, "data"), min_depth=4)]
    assert abs(np.mean(np.array(depths) == 4) - 0.5) < 4 * np.sqrt(0.25 / 2_000) + 0.01
