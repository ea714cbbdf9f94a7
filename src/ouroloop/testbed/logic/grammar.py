"""The language: logic expressions over constants, and the distribution that the loop starts from.

An expression of depth d is an operator over expressions of depth d-1, so all leaves sit at exactly
depth d. Every operator node is bracketed, the root too: `( not X )`, `( L and R )`, `( L or R )`.
Text is the seven words below, joined by single spaces; `<eos>`, the eighth symbol, is never part of a text.

Source: Algorithm 2 of arXiv 2311.16822v2. Where the brackets go is not stated there; this is the one
placement whose edit distances match the paper's figures.
"""

import itertools
from collections.abc import Iterator
from enum import StrEnum

import numpy as np

WORDS = ("True", "False", "not", "and", "or", "(", ")")
OPERATORS = ("not", "and", "or")

# A set is given up when this many draws per wanted expression have not filled it: what is left of the
# grammar is then so improbable that the set would never fill. D_0 at m = 10,000 takes 4 draws per expression.
_MAX_DRAWS_PER_EXPRESSION = 2_000


class TruthLabel(StrEnum):
    """Which expressions D_0 and the fresh data hold (the paper's section 4 and appendix C)."""

    TRUE_ONLY = "true_only"
    FALSE_ONLY = "false_only"
    HALF_AND_HALF = "half_and_half"


class GrammarExhaustedError(ValueError):
    """More unique expressions were asked for than the grammar has, or gives in reasonable time."""


def num_expressions(depth: int) -> int:
    """How many expressions of exactly this depth exist; for depth >= 1 exactly half are True."""
    count = 2
    for _ in range(depth):
        count += 2 * count * count
    return count


def capacity(min_depth: int, max_depth: int, truth_label: TruthLabel) -> int:
    """The size of the largest set of distinct expressions that these depths allow."""
    of_one_label = sum(num_expressions(depth) // 2 for depth in range(min_depth, max_depth + 1))
    return 2 * of_one_label if truth_label is TruthLabel.HALF_AND_HALF else of_one_label


def derive(depth: int, count: int, rng: np.random.Generator) -> list[tuple[str, bool]]:
    """`count` independent random expressions of exactly `depth`, each with its truth value.

    The operator is uniform over not, and, or; a leaf is a fair coin.
    """
    if depth == 0:
        return [("True", True) if leaf else ("False", False) for leaf in rng.integers(2, size=count)]
    operators = rng.integers(len(OPERATORS), size=count)
    children = iter(derive(depth - 1, int(count + np.count_nonzero(operators)), rng))
    expressions = []
    for operator in operators:
        left, left_value = next(children)
        if operator == 0:
            expressions.append((f"( not {left} )", not left_value))
            continue
        right, right_value = next(children)
        value = (left_value and right_value) if operator == 1 else (left_value or right_value)
        expressions.append((f"( {left} {OPERATORS[operator]} {right} )", value))
    return expressions


def unique_set(
    num_examples: int,
    rng: np.random.Generator,
    *,
    min_depth: int = 1,
    max_depth: int = 5,
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY,
) -> list[str]:
    """`num_examples` distinct expressions in the order in which they were drawn: D_0 is such a set.

    The depth is uniform on min_depth..max_depth; expressions of the wrong truth value and repeated
    ones are dropped, as in the paper. Half and half fills ceil(n/2) True and floor(n/2) False ones.

    Raises:
        GrammarExhaustedError: there are not that many, or the rest is too improbable to be drawn.
    """
    limit = capacity(min_depth, max_depth, truth_label)
    if num_examples > limit:
        raise GrammarExhaustedError(
            f"{num_examples:,} unique expressions asked for, but depth {min_depth} to {max_depth} "
            f"has {limit:,} ({truth_label.value}); lower data.num_examples or raise data.max_depth"
        )
    num_true = {
        TruthLabel.TRUE_ONLY: num_examples,
        TruthLabel.FALSE_ONLY: 0,
        TruthLabel.HALF_AND_HALF: (num_examples + 1) // 2,
    }[truth_label]
    wanted = {True: num_true, False: num_examples - num_true}
    found: dict[str, None] = {}
    drawn = 0
    while wanted[True] or wanted[False]:
        if drawn > _MAX_DRAWS_PER_EXPRESSION * num_examples + 100_000:
            raise GrammarExhaustedError(
                f"only {len(found):,} of {num_examples:,} unique expressions of depth {min_depth} to "
                f"{max_depth} came up in {drawn:,} draws; lower data.num_examples or raise data.max_depth"
            )
        depths = rng.integers(min_depth, max_depth + 1, size=max(256, num_examples // 2))
        by_depth = {
            depth: iter(derive(depth, int(np.count_nonzero(depths == depth)), rng))
            for depth in range(min_depth, max_depth + 1)
        }
        for depth in depths:
            text, value = next(by_depth[int(depth)])
            if wanted[value] and text not in found:
                found[text] = None
                wanted[value] -= 1
        drawn += len(depths)
    return list(found)


def enumerate_expressions(depth: int) -> Iterator[tuple[str, bool]]:
    """Every expression of exactly `depth` with its truth value; 88,410 of them at depth 3."""
    if depth == 0:
        yield from (("True", True), ("False", False))
        return
    for text, value in enumerate_expressions(depth - 1):
        yield f"( not {text} )", not value
    smaller = list(enumerate_expressions(depth - 1))
    for (left, left_value), (right, right_value) in itertools.product(smaller, repeat=2):
        yield f"( {left} and {right} )", left_value and right_value
        yield f"( {left} or {right} )", left_value or right_value
