"""A testbed that the program has never heard of: a text is one of eight words. No line changes for it elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ouroloop.testbed.base import Array, Endless, Estimate, Forms, Sample, Stratum
from ouroloop.testbed.tokenizer import WordTokenizer
from tests.testbed import contract

WORDS = ("dawn", "morning", "noon", "afternoon", "dusk", "evening", "night", "midnight")


@dataclass(frozen=True)
class WordList(Endless):
    distribution: "Uniform | None" = None
    name = "words"
    material = "words"
    tokenizer = WordTokenizer(WORDS)
    columns = ("is known", "word")
    composition: Mapping[str, str] = field(default_factory=lambda: {"known": "known_rate", "unknown": "unknown_rate"})
    headline: Mapping[str, str] = field(default_factory=lambda: {"known": "known_rate"})
    descriptions: Mapping[str, str] = field(default_factory=lambda: {"known_rate": "one of the eight words"})

    def original(self, count: int, rng: np.random.Generator) -> list[str]:
        return [WORDS[i] for i in rng.integers(len(WORDS), size=count)]

    def fresh(self, count: int, generation: int, rng: np.random.Generator) -> list[str]:
        return self.original(count, rng)

    def tokens(self, text: str) -> Sequence[str]:
        return text.split()

    def judge(self, text: str) -> bool:
        return text in WORDS

    def row(self, text: str) -> tuple[str | int, ...]:
        return "yes" if self.judge(text) else "no", text

    def tally(self, sample: Sample) -> list[tuple[str, int]]:
        return []

    def measures(self, sample: Sample, original: Sample) -> dict[str, Estimate]:
        known = sample.rate([text for text, is_known in sample.judgements.items() if is_known])
        return {"known_rate": known, "unknown_rate": Estimate(1 - known.value, known.stderr)}

    def cross_check(self, texts: Sequence[str]) -> None: ...


class Uniform:
    """Its closed form, which it can do without."""

    entropy_nats = float(np.log(8))
    masses: Mapping[str, str] = {"mass": "coverage"}
    forms = Forms(np.array([8.0]), -np.log([8.0]), {"coverage": np.array([True])})

    def supports(self, judgement: bool) -> bool:
        return judgement

    def log_probabilities(self, texts: Sequence[str]) -> Array:
        return np.full(len(texts), -np.log(8))

    def forms_of(self, texts: Sequence[str], judgements: Mapping[str, Any]) -> Forms:
        every = np.ones(len(texts))
        return Forms(every, self.log_probabilities(texts), {"coverage": every > 0})

    def strata(self, stream: Callable[[int], np.random.Generator], exact: bool) -> list[Stratum]:
        forms = self.forms_of(WORDS, {})
        return [Stratum(WORDS, forms.log_p, np.full(8, 1 / 8), True, forms.parts)]

    def expected_unique(self, num_draws: int) -> float:
        return float(8 * (1 - (7 / 8) ** num_draws))

    def original_log_probabilities(self, num_examples: int) -> Array:
        return self.forms.log_p


class TestWordList(contract.TestbedContract):
    @pytest.fixture
    def testbed(self) -> WordList:
        return WordList()


class TestWordListWithADistribution(contract.TestbedContract):
    @pytest.fixture
    def testbed(self) -> WordList:
        return WordList(Uniform())
