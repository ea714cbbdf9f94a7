"""The ideal learner: M_t is its training set, resampled. Drift and sharpening without any network.

At temperature T a text that occurs c times in D_{t-1} is sampled with probability c^(1/T) / Σ c^(1/T), as a
network that had learned the counts perfectly would at that temperature if it chose whole texts. Where a real
model loses more slowly or faster than this, the difference is what learning adds: it generalises, and it errs.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ouroloop.learner.base import Fitted, Progress, Samples
from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array


@dataclass(frozen=True)
class EmpiricalModel:
    counts: Mapping[str, int]
    """How often each distinct text is in the training set, in the order in which they first occur."""
    temperature: float

    training = None

    def probabilities(self) -> Mapping[str, float]:
        return self._at(self.temperature)

    def _at(self, temperature: float) -> dict[str, float]:
        log_weights = np.log(np.fromiter(self.counts.values(), dtype=np.float64)) / temperature
        weights = np.exp(log_weights - log_weights.max())
        return dict(zip(self.counts, (weights / weights.sum()).tolist(), strict=True))

    def sample(self, count: int, rng: np.random.Generator) -> Samples:
        texts, probabilities = list(self.counts), np.fromiter(self.probabilities().values(), dtype=np.float64)
        drawn = rng.choice(len(texts), size=count, p=probabilities / probabilities.sum())
        return Samples([texts[i] for i in drawn], np.log(probabilities[drawn]).tolist())

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        at_each = [self._at(temperature) for temperature in temperatures]
        with np.errstate(divide="ignore"):  # a text that it never writes has log 0
            return np.log([[found.get(text, 0.0) for text in texts] for found in at_each])

    def num_tokens(self, texts: Sequence[str]) -> Array:
        """One for each text, since it chooses whole texts."""
        return np.ones(len(texts))

    def save(self, folder: Path) -> None:
        (folder / "counts.json").write_text(json.dumps(self.counts), encoding="utf-8")


@dataclass(frozen=True)
class EmpiricalLearner:
    temperature: float

    device = "cpu"
    description = "no network: the model is its training set"
    is_registrable = False
    num_previous = 0

    def prepared(self, original: Sequence[str]) -> "EmpiricalLearner":
        return self

    def num_lost(self, texts: Sequence[str]) -> None:
        """None, since it copies whole texts."""

    def check(self) -> None: ...

    def fit(
        self,
        dataset: Dataset,
        streams: Streams,
        report: Progress = lambda *_: None,
        previous: Sequence[Fitted] = (),
    ) -> EmpiricalModel:
        return EmpiricalModel(dict(Counter(dataset.texts)), self.temperature)

    def load(self, folder: Path) -> EmpiricalModel:
        return EmpiricalModel(json.loads((folder / "counts.json").read_text(encoding="utf-8")), self.temperature)
