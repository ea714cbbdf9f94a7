"""P, the distribution of the original data in closed form: what a model's distribution is compared with.

    p(x) = 1/D · (1/3)^operators · (1/2)^leaves · 1/P(label)      for each of the D depths

is what the grammar gives, draw by draw, given the label that the original data has. An expression of any
depth is True with probability 1/2: if that holds at d-1, then at d it is (1/2 + 1/4 + 3/4)/3. Given True,
p therefore doubles; half-and-half data has no label to condition on.

This is the reference, and not the distribution of D_0, which is a *unique set*: repeats were dropped, so D_0 has
fewer short expressions, the fewer the larger m is. p does not depend on m, draws from it are independent,
and its entropy is known. How far the distribution of a unique set lies from it has a closed form too.

All expressions of one depth with the same numbers of operators and leaves are equally probable, so sums over
up to 10^84 expressions are sums over a few thousand forms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from ouroloop.testbed.base import Array, Forms, Mask, Stratum
from ouroloop.testbed.logic.grammar import TruthLabel, derive, enumerate_expressions
from ouroloop.testbed.logic.verify import Judgement, Verdict

_TAILS = (50, 10)  # percent of P, the rarest expressions first
_DRAWS = 100  # held-out expressions of each depth that is not enumerated: 12,000 tokens, a fiftieth of the training
_SHALLOW = "coverage_depth_1_3"


@dataclass(frozen=True)
class LogicDistribution:
    """P over expressions of depth `min_depth`..`max_depth`, given their truth label."""

    min_depth: int = 1
    max_depth: int = 5
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY

    @property
    def depths(self) -> range:
        return range(self.min_depth, self.max_depth + 1)

    @property
    def label(self) -> bool | None:
        """The truth value that every expression has; None when both occur."""
        return {TruthLabel.TRUE_ONLY: True, TruthLabel.FALSE_ONLY: False}.get(self.truth_label)

    @property
    def num_labels(self) -> int:
        return 2 if self.label is None else 1

    def supports(self, judgement: Judgement) -> bool:
        has_label = self.label is None or judgement.verdict is (Verdict.TRUE if self.label else Verdict.FALSE)
        return has_label and judgement.is_in_grammar(self.min_depth, self.max_depth)

    def log_probabilities(self, texts: Sequence[str]) -> Array:
        leaves = np.array([text.count("True") + text.count("False") for text in texts], dtype=np.float64)
        operators = np.array([text.count("(") for text in texts], dtype=np.float64)
        return self._log_p(operators, leaves)

    def _log_p(self, operators: Array, leaves: Array) -> Array:
        given = np.log(len(self.depths)) - np.log(2 / self.num_labels)
        log_p: Array = -operators * np.log(3) - leaves * np.log(2) - given
        return log_p

    @property
    def masses(self) -> Mapping[str, str]:
        return {"mass_depth_1_3": _SHALLOW} if self.min_depth <= 3 else {}

    def _parts(self, depth: npt.NDArray[np.int64], log_p: Array) -> dict[str, Mask]:
        """Which of these expressions, of these depths, each coverage is about."""
        parts = {"coverage": np.ones(len(log_p), dtype=bool), _SHALLOW: depth <= 3}
        parts |= {f"coverage_depth_{d}": depth == d for d in self.depths}
        return parts | {f"coverage_tail_{percent}": log_p <= self.rarest(percent / 100) + 1e-9 for percent in _TAILS}

    @cached_property
    def _forms(self) -> tuple[npt.NDArray[np.int64], Array, Array]:
        """Depth, count and log p of the expressions of each form: one depth, number of operators and of leaves."""
        depths, counts, log_ps = [], [], []
        for depth in self.depths:
            table = _num_by_form(depth)
            leaves, operators = np.nonzero(table)
            depths.append(np.full(len(leaves), depth))
            counts.append(table[leaves, operators] * self.num_labels / 2)
            log_ps.append(self._log_p(operators.astype(np.float64), leaves.astype(np.float64)))
        return np.concatenate(depths), np.concatenate(counts), np.concatenate(log_ps)

    @cached_property
    def forms(self) -> Forms:
        depth, num, log_p = self._forms
        return Forms(num, log_p, self._parts(depth, log_p))

    def forms_of(self, texts: Sequence[str], judgements: Mapping[str, Judgement]) -> Forms:
        depth = np.array([judgements[text].depth for text in texts], dtype=np.int64)
        log_p = self.log_probabilities(texts)
        return Forms(np.ones(len(texts)), log_p, self._parts(depth, log_p))

    @property
    def entropy_nats(self) -> float:
        """18.97 bits for True expressions of depth 1 to 5."""
        _, num, log_p = self._forms
        return float(-np.sum(num * np.exp(log_p) * log_p))

    def expected_unique(self, num_draws: int) -> float:
        _, num, log_p = self._forms
        return float(np.sum(num * -np.expm1(num_draws * np.log1p(-np.exp(log_p)))))

    def rarest(self, share: float) -> float:
        """The log p up to which expressions are among the rarest, which together have at least this probability."""
        _, num, log_p = self._forms
        order = np.argsort(log_p, kind="stable")
        cumulative = np.cumsum((num * np.exp(log_p))[order])
        return float(log_p[order][np.searchsorted(cumulative, share * (1 - 1e-12))])

    def original_log_probabilities(self, num_examples: int) -> Array:
        """Log q, for each form, of an expression picked from a unique set of `num_examples`, such as D_0.

        An expression is in a set that took n draws with probability 1 - (1-p)^n, approximated by 1 - e^(-np);
        n is such that the expected size is `num_examples`.
        """
        _, num, log_p = self._forms
        low, high = np.log(num_examples), np.log(num_examples) + 500.0
        for _ in range(200):  # bisection on log n
            middle = (low + high) / 2
            size = np.sum(num * -np.expm1(-np.exp(middle + log_p)))
            low, high = (middle, high) if size < num_examples else (low, middle)
        inclusion = -np.expm1(-np.exp(high + log_p))
        log_q: Array = np.log(inclusion) - np.log(np.sum(num * inclusion))
        return log_q

    def strata(self, stream: Callable[[int], np.random.Generator], exact: bool) -> list[Stratum]:
        """Depths 1 and 2 in full, with `exact` depth 3 too, and independent draws of each deeper one."""
        enumerated = 3 if exact else 2
        return [
            self.all_of_depth(depth) if depth <= enumerated else self.draw(depth, _DRAWS, stream(depth))
            for depth in self.depths
        ]

    def all_of_depth(self, depth: int) -> Stratum:
        """Every expression of that depth: 5, 105 and 44,205 True ones of depth 1, 2 and 3."""
        return _all_of_depth(self, depth)

    def draw(self, depth: int, count: int, rng: np.random.Generator) -> Stratum:
        """Independent draws given the depth."""
        texts: list[str] = []
        while len(texts) < count:
            drawn = derive(depth, 2 * count, rng)
            texts += [text for text, value in drawn if self.label is None or value is self.label]
        del texts[count:]
        return self._stratum(depth, tuple(texts), weights=np.full(count, 1 / count))

    def _stratum(self, depth: int, texts: tuple[str, ...], weights: Array | None = None) -> Stratum:
        log_p = self.log_probabilities(texts)
        parts = self._parts(np.full(len(texts), depth), log_p)
        given_depth = np.exp(log_p + np.log(len(self.depths)))
        return Stratum(texts, log_p, given_depth if weights is None else weights, weights is None, parts)


@cache
def _all_of_depth(distribution: LogicDistribution, depth: int) -> Stratum:
    label = distribution.label
    texts = tuple(text for text, value in enumerate_expressions(depth) if label is None or value is label)
    return distribution._stratum(depth, texts)


def _num_by_form(depth: int) -> Array:
    """How many expressions of exactly this depth have [leaves, operators]; exactly half of each form is True.

    (Swapping True with False and `and` with `or` turns True ones into False ones and keeps the form.)
    """
    table = np.array([[0.0], [2.0]])  # a leaf: two of them, with no operator
    for _ in range(depth):
        num_leaves, num_operators = table.shape
        width = 2 * num_operators
        wide = np.pad(table, ((0, 0), (0, num_operators))).ravel()
        pairs = np.convolve(wide, wide)[: (2 * num_leaves - 1) * width].reshape(-1, width)
        table = np.zeros_like(pairs)
        table[:, 1:] += 2 * pairs[:, :-1]  # and, or
        table[:num_leaves, 1 : num_operators + 1] += wide.reshape(-1, width)[:, :num_operators]  # not
    return table
