"""How like real texts others are, by what a model that is none of the loop's makes of them: MAUVE.

Pillutla and others, 2021. The features of both sides are put into as many clusters as there are tens of texts, and two
histograms are compared by the area under their divergence curve, in [0, 1]: 1 is no difference. It depends on how many
texts there are, so all samples, and the real texts, are looked at in the same number. There is no standard error.

The computation is that of mauve-text, with its own defaults, which is of GPL-3 and an extra.
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
"""A row of features for each text, which another one gets if and only if it is the same text."""

LIBRARIES = ("mauve-text", "faiss-cpu", "scikit-learn")
"""Which compute it: another version may find other clusters."""
_SEED = 25  # of the clusters: the library's default, whatever the loop's, since the same texts have one value


@dataclass(frozen=True)
class Likeness:
    """MAUVE of the texts of one loop."""

    read: Reader
    held_out: Sequence[str]
    """Real texts on which no generation trains, in an order in which every beginning is a fair sample."""
    num_texts: int
    """Looked at, on either side."""

    @cached_property
    def _real(self) -> Array:
        """Read once for a loop."""
        return self.read(self.held_out[: self.num_texts])

    def of(self, sample: Sample) -> dict[str, Estimate]:
        """Beside held-out text; absent where the sample has fewer texts."""
        features = self._features(sample)
        return {} if features is None else _named("mauve", mauve(features, self._real))

    def control(self, original: Sample) -> dict[str, Estimate]:
        """One half of D_0 beside the other."""
        halves = [Sample.of(original.spread[start::2], original.testbed) for start in (0, 1)]
        one, other = map(self._features, halves)
        return {} if one is None or other is None else _named("control_mauve", mauve(other, one))

    def _features(self, sample: Sample) -> Array | None:
        """Texts that come again are read once."""
        if sample.size < self.num_texts:
            return None
        texts = sample.spread[: self.num_texts]
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return self.read(list(row))[[row[text] for text in texts]]


def _named(key: str, value: float | None) -> dict[str, Estimate]:
    return {} if value is None else {key: Estimate(value)}


def require_mauve() -> None:
    """Raises ConfigError where the library is not installed."""
    if find_spec("mauve") is None:
        raise needs("data.mauve_model", "mauve-text", "mauve")


def mauve(ours: Array, real: Array) -> float | None:
    """Of two equally long lists of features, as `mauve.compute_mauve` has it; None where a feature is no number."""
    from mauve import compute_mauve
    from threadpoolctl import threadpool_limits

    if not (np.isfinite(ours).all() and np.isfinite(real).all()):
        return None
    with threadpool_limits(1), _silence():  # sums of one order, and no second thread where workers share the cores
        found = compute_mauve(p_features=ours, q_features=real, seed=_SEED)
    if np.array_equal(found.p_hist, found.q_hist):  # a curve of one point, of which the library makes 0.5 to 1
        return 1.0
    return min(1.0, float(found.mauve))


@contextmanager
def _silence() -> Iterator[None]:
    """Of faiss, which tells the terminal each time, from C, that clusters of ten texts a side are small."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
