"""The ideal learner: M_t is its training set, resampled. Drift and sharpening without any network.

At temperature T a text that stands c times in D_{t-1} is sampled with probability c^(1/T) / Σ c^(1/T), as a
network that had learnt the counts perfectly would at that temperature if it chose whole texts. What a real
model loses more slowly or faster than this is what learning adds: it generalises, and it errs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def resampling_law(texts: Sequence[str], temperature: float) -> dict[str, float]:
    """Probability of each distinct text, in the order in which they first stand."""
    counts = Counter(texts)
    log_weights = np.log(np.fromiter(counts.values(), dtype=np.float64)) / temperature
    weights = np.exp(log_weights - log_weights.max())
    return dict(zip(counts, (weights / weights.sum()).tolist(), strict=True))


def resample(law: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """So many independent texts."""
    texts, probabilities = list(law), np.fromiter(law.values(), dtype=np.float64)
    drawn = rng.choice(len(texts), size=count, p=probabilities / probabilities.sum())
    return [texts[i] for i in drawn]
