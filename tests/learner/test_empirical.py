"""The ideal learner against population genetics: drift at temperature 1, sharpening below."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ouroloop.learner.empirical import EmpiricalLearner, EmpiricalModel
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.logic.testbed import LogicTestbed
from tests.learner import contract
from tests.testbed.test_throwaway import WordList


class TestEmpirical(contract.LearnerContract):
    temperature = 0.7
    of_testbed = staticmethod(LogicTestbed)

    @staticmethod
    def learner() -> EmpiricalLearner:
        return EmpiricalLearner(0.7)


class TestEmpiricalOnAnotherTestbed(TestEmpirical):
    of_testbed = staticmethod(WordList)


def fitted(texts: Sequence[str], temperature: float = 1.0) -> EmpiricalModel:
    return EmpiricalLearner(temperature).fit(Dataset.of(texts, Source.SAMPLED, 1), Streams(1, 1))


def heterozygosity(texts: list[str]) -> float:
    """Probability that two draws with replacement differ."""
    counts = np.array(list(Counter(texts).values()))
    return float(1 - np.sum((counts / counts.sum()) ** 2))


@pytest.mark.heavy
def test_heterozygosity_falls_by_1_minus_1_over_m() -> None:
    """Wright-Fisher: E[H_t] = (1 - 1/m)^(t+1) from m distinct texts; 200 replicates at m = 100, 3 standard errors."""
    m, replicates = 100, 200
    kept = np.empty((replicates, 61))
    for replicate in range(replicates):
        texts, rng = [f"{i}" for i in range(m)], stream(replicate, "test")
        for t in range(61):
            kept[replicate, t] = heterozygosity(texts)
            texts = fitted(texts).sample(m, rng).texts
    assert kept[:, 0] == pytest.approx(1 - 1 / m)
    for t in (1, 5, 20, 60):
        stderr = kept[:, t].std(ddof=1) / np.sqrt(replicates)
        assert abs(kept[:, t].mean() - (1 - 1 / m) ** (t + 1)) < 3 * stderr, t


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [0.6, 0.3, 0.1]), (0.5, [36 / 46, 9 / 46, 1 / 46])])
def test_counts_to_the_power_of_1_over_t(temperature: float, expected: list[float]) -> None:
    model = fitted(["b"] * 3 + ["a"] * 6 + ["c"], temperature)
    probabilities = model.probabilities()
    assert list(probabilities) == ["b", "a", "c"]
    assert [probabilities[text] for text in "abc"] == pytest.approx(expected)
    n = 20_000
    drawn = Counter(model.sample(n, stream(1, "test")).texts)
    for text, p in probabilities.items():
        assert abs(drawn[text] / n - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_extreme_temperatures_stay_finite() -> None:
    model = fitted(["a"] * 10_000 + ["b"], 0.001)
    assert model.probabilities() == {"a": 1.0, "b": 0.0}
    assert model.sample(3, stream(1, "test")) == (["a"] * 3, [0.0] * 3)


def test_the_same_stream_gives_the_same_texts() -> None:
    model = fitted([f"{i}" for i in range(50)], 0.8)
    first, again, other = (model.sample(50, stream(seed, "test")).texts for seed in (1, 1, 2))
    assert first == again != other


def test_what_it_never_saw_it_never_writes() -> None:
    assert fitted(["a", "a", "b"], 0.5).log_prob(["b", "z", "a"], [0.5, 1.0]) == pytest.approx(
        np.log([[1 / 5, 1, 4 / 5], [1 / 3, 1, 2 / 3]]) - np.array([0, np.inf, 0])
    )
