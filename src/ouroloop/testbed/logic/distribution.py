"""The law of the original data in closed form: what a model's law is compared with.

    p(x) = 1/D · (1/3)^operators · (1/2)^leaves · 1/P(label)      for each of the D depths

is what the grammar gives, draw by draw, given the label that the original data has. An expression of any
depth is True with probability 1/2: if that holds at d-1, then at d it is (1/2 + 1/4 + 3/4)/3. Given True,
p therefore doubles; half-and-half data has no label to be given.

This is the reference, and not the law of D_0, which is a *unique set*: repeats were dropped, so D_0 has
fewer short expressions, the fewer the larger m is. p does not depend on m, draws from it are independent,
and its entropy is known. How far the law of a unique set lies from it is closed form too.

All expressions of one depth with as many operators and leaves have one probability, so that sums over
up to 10^84 expressions are sums over a few thousand forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ouroloop.config import DataConfig
from ouroloop.testbed.logic.grammar import Initialisation, derive, enumerate_expressions
from ouroloop.testbed.logic.verify import Judgement, Verdict

Array = npt.NDArray[np.float64]


class Forms(NamedTuple):
    """Expressions that are equally probable: one entry for each depth, number of operators and of leaves."""

    depth: npt.NDArray[np.int64]
    num: Array
    """Expressions of this form that have the label."""
    log_p: Array
    """Of each one, in nats."""


class Stratum(NamedTuple):
    """Expressions that stand for the law given their depth: all of them, or independent draws."""

    depth: int
    texts: tuple[str, ...]
    log_p: Array
    """Under the whole law, in nats."""
    weights: Array
    """Sum to 1: the probability given the depth, or 1/n for n draws."""
    is_exact: bool


@dataclass(frozen=True)
class Law:
    """The grammar's law over depths `min_depth`..`max_depth`, given the label of the initialisation."""

    min_depth: int = 1
    max_depth: int = 5
    initialisation: Initialisation = Initialisation.TRUE_ONLY

    @classmethod
    def of(cls, data: DataConfig) -> "Law":
        return cls(data.min_depth, data.max_depth, data.initialisation)

    @property
    def depths(self) -> range:
        return range(self.min_depth, self.max_depth + 1)

    @property
    def label(self) -> bool | None:
        """The truth value that every expression has; None when both occur."""
        return {Initialisation.TRUE_ONLY: True, Initialisation.FALSE_ONLY: False}.get(self.initialisation)

    @property
    def num_labels(self) -> int:
        return 2 if self.label is None else 1

    def supports(self, judgement: Judgement) -> bool:
        """Whether the law gives the judged text a probability above 0."""
        has_label = self.label is None or judgement.verdict is (Verdict.TRUE if self.label else Verdict.FALSE)
        return has_label and judgement.is_in_grammar(self.min_depth, self.max_depth)

    def log_probabilities(self, texts: Sequence[str]) -> Array:
        """Of expressions that the law supports, in nats."""
        leaves = np.array([text.count("True") + text.count("False") for text in texts], dtype=np.float64)
        operators = np.array([text.count("(") for text in texts], dtype=np.float64)
        return self._log_p(operators, leaves)

    def _log_p(self, operators: Array, leaves: Array) -> Array:
        given = np.log(len(self.depths)) - np.log(2 / self.num_labels)
        log_p: Array = -operators * np.log(3) - leaves * np.log(2) - given
        return log_p

    @cached_property
    def forms(self) -> Forms:
        depths, counts, log_ps = [], [], []
        for depth in self.depths:
            table = _num_by_form(depth)
            leaves, operators = np.nonzero(table)
            depths.append(np.full(len(leaves), depth))
            counts.append(table[leaves, operators] * self.num_labels / 2)
            log_ps.append(self._log_p(operators.astype(np.float64), leaves.astype(np.float64)))
        return Forms(np.concatenate(depths), np.concatenate(counts), np.concatenate(log_ps))

    @property
    def entropy_nats(self) -> float:
        """18.97 bits for True expressions of depth 1 to 5."""
        forms = self.forms
        return float(-np.sum(forms.num * np.exp(forms.log_p) * forms.log_p))

    def expected_unique(self, num_draws: int) -> float:
        """Distinct expressions among so many independent draws, in expectation."""
        forms = self.forms
        return float(np.sum(forms.num * -np.expm1(num_draws * np.log1p(-np.exp(forms.log_p)))))

    def rarest(self, share: float) -> float:
        """The log p up to which expressions are the rarest ones, together of at least this probability."""
        forms = self.forms
        order = np.argsort(forms.log_p, kind="stable")
        cumulative = np.cumsum((forms.num * np.exp(forms.log_p))[order])
        return float(forms.log_p[order][np.searchsorted(cumulative, share * (1 - 1e-12))])

    def unique_set_log_probabilities(self, num_examples: int) -> Array:
        """Log q by form of an expression picked from a unique set of so many, as D_0 is one.

        An expression has entered a set that took n draws with probability 1 - (1-p)^n, taken as 1 - e^(-np);
        n is what makes the expected size `num_examples`.
        """
        forms = self.forms
        low, high = np.log(num_examples), np.log(num_examples) + 500.0
        for _ in range(200):  # bisection on log n
            middle = (low + high) / 2
            size = np.sum(forms.num * -np.expm1(-np.exp(middle + forms.log_p)))
            low, high = (middle, high) if size < num_examples else (low, middle)
        inclusion = -np.expm1(-np.exp(high + forms.log_p))
        log_q: Array = np.log(inclusion) - np.log(np.sum(forms.num * inclusion))
        return log_q

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
        return Stratum(depth, tuple(texts), self.log_probabilities(texts), np.full(count, 1 / count), False)


@cache
def _all_of_depth(law: Law, depth: int) -> Stratum:
    texts = tuple(text for text, value in enumerate_expressions(depth) if law.label is None or value is law.label)
    log_p = law.log_probabilities(texts)
    return Stratum(depth, texts, log_p, np.exp(log_p + np.log(len(law.depths))), True)


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
