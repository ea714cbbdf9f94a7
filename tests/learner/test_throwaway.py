"""A learner that the program has never heard of: uniform over the texts of D. No line changes for it elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ouroloop.learner.base import Fitted, Progress, Samples
from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array
from tests.learner import contract
from tests.testbed.test_throwaway import WordList


@dataclass(frozen=True)
class Uniform:
    texts: tuple[str, ...]
    training = None

    def sample(self, count: int, rng: np.random.Generator) -> Samples:
        drawn = rng.integers(len(self.texts), size=count)
        return Samples([self.texts[i] for i in drawn], [-float(np.log(len(self.texts)))] * count)

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        of_each = [-np.log(len(self.texts)) if text in self.texts else -np.inf for text in texts]
        return np.array([of_each for _ in temperatures])

    def probabilities(self) -> dict[str, float]:
        return dict.fromkeys(self.texts, 1 / len(self.texts))

    def num_tokens(self, texts: Sequence[str]) -> Array:
        return np.ones(len(texts))

    def save(self, folder: Path) -> None:
        (folder / "texts.json").write_text(json.dumps(self.texts))


class UniformLearner:
    device = "cpu"
    description = "uniform over the texts of D"
    is_registrable = False
    num_previous = 0

    def prepared(self, original: Sequence[str]) -> "UniformLearner":
        return self

    def num_lost(self, texts: Sequence[str]) -> None: ...

    def check(self) -> None: ...

    def fit(
        self, dataset: Dataset, streams: Streams, report: Progress = lambda *_: None, previous: Sequence[Fitted] = ()
    ) -> Uniform:
        return Uniform(tuple(dict.fromkeys(dataset.texts)))

    def load(self, folder: Path) -> Uniform:
        return Uniform(tuple(json.loads((folder / "texts.json").read_text())))


class TestUniform(contract.LearnerContract):
    of_testbed = staticmethod(WordList)
    learner = staticmethod(UniformLearner)
