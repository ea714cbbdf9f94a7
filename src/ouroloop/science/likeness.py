"""How like real texts other texts are, by what a model from outside the loop makes of them: MAUVE.

Pillutla and others, 2021. The features of both sides are grouped into one cluster for every ten texts of a side, and
two histograms are compared by the area under their divergence curve, in [0, 1]: 1 is no difference. It depends on how
many texts there are, so the same number is taken of every sample and of the real texts. There is no standard error.

The computation is that of mauve-text with its own defaults; that library is under GPL-3, and is an extra.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import numpy as np

from ouroloop.errors import needs
from ouroloop.testbed.base import Array, Estimate, Sample

Reader = Callable[[Sequence[str]], Array]
"""Gives each text a row of features, and two texts the same row if and only if they are the same."""

LIBRARIES = ("mauve-text", "faiss-cpu", "scikit-learn")
"""The libraries that compute it: another version may find other clusters."""
_SEED = 25  # of the clusters: the library's default, whatever the loop's seed, so that equal texts have one value


@dataclass(frozen=True)
class Likeness:
    """MAUVE of the texts of one loop."""

    read: Reader
    held_out: Sequence[str]
    """Real texts on which no generation trains, in an order in which every beginning is a fair sample."""
    num_texts: int
    """How many texts are compared, on either side."""

    @cached_property
    def _real(self) -> Array:
        """Features of the real texts, read once for a loop."""
        return self.read(self.held_out[: self.num_texts])

    def of(self, sample: Sample) -> dict[str, Estimate]:
        """MAUVE beside held-out text; absent where the sample has fewer than `num_texts` texts."""
        features = self._features(sample)
        return {} if features is None else _named("mauve", mauve(features, self._real))

    def control(self, original: Sample) -> dict[str, Estimate]:
        """MAUVE of one half of D_0 beside the other."""
        halves = [Sample.of(original.spread[start::2], original.testbed) for start in (0, 1)]
        one, other = map(self._features, halves)
        return {} if one is None or other is None else _named("control_mauve", mauve(other, one))

    def _features(self, sample: Sample) -> Array | None:
        """Features of `num_texts` texts of a sample, None where it has fewer; repeated texts are read once."""
        if sample.size < self.num_texts:
            return None
        texts = sample.spread[: self.num_texts]
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return self.read(list(row))[[row[text] for text in texts]]


def _named(key: str, value: float | None) -> dict[str, Estimate]:
    return {} if value is None else {key: Estimate(value)}


def require_mauve() -> None:
    """Raise ConfigError where the library is not installed."""
    if find_spec("mauve") is None:
        raise needs("data.mauve_model", "mauve-text", "mauve")


def mauve(ours: Array, real: Array) -> float | None:
    """MAUVE of two equally long lists of features, by `mauve.compute_mauve`; None where a feature is not finite."""
    from mauve import compute_mauve
    from threadpoolctl import threadpool_limits

    if not (np.isfinite(ours).all() and np.isfinite(real).all()):
        return None
    with threadpool_limits(1), _silence():  # sums in one order, and no second thread where workers share the cores
        found = compute_mauve(p_features=ours, q_features=real, seed=_SEED)
    if np.array_equal(found.p_hist, found.q_hist):  # a curve of one point, for which the library gives 0.5 to 1
        return 1.0
    return min(1.0, float(found.mauve))


@contextmanager
def _silence() -> Iterator[None]:
    """Silence faiss, which tells the terminal each time, from C, that clusters of ten texts a side are small."""
    try:
        before = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
