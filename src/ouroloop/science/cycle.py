"""The data cycles: which examples, made by whom, form the next training set.

    full_synthetic   D_t = S_t                                       m
    balanced         D_t = m/(t+1) from each of D_0, S_1 .. S_t      m
    incremental      D_t = (1-λ)·D_{t-1} + λ·S_t                     m
    expanding        D_t = D_{t-1} + (1-λ)·F_t + λ·S_t               m(t+1)
    fresh_mix        D_t = (1-λ)·F_t + λ·S_t                         m

A portion is drawn without replacement, uniformly, and rounded to whole examples (half up). Every
example keeps its provenance: drawn from the grammar at the start (D_0) or fresh at t (F_t), or
sampled at t (S_t). Knows nothing about models: S_t is a list of texts.

Curation may leave fewer than m texts of S_t. Then a part that asks for more than there is takes all there is,
and D_t is that much smaller: nothing stands in for what is missing.

Source: Algorithm 1 and section 3 of arXiv 2311.16822v2; fresh_mix is the fresh-data loop of
arXiv 2307.01850.
"""

from collections.abc import Sequence

import numpy as np

from ouroloop.config import CycleConfig, DataCycle
from ouroloop.science.dataset import Dataset


def num_synthetic(cycle: CycleConfig, num_examples: int) -> int:
    """λ·m rounded half up: how many examples of S_t enter the new part of D_t."""
    assert cycle.synthetic_proportion is not None
    return int(cycle.synthetic_proportion * num_examples + 0.5)


def needs_fresh_data(cycle: CycleConfig, num_examples: int) -> bool:
    has_fresh_part = cycle.kind in (DataCycle.EXPANDING, DataCycle.FRESH_MIX)
    return has_fresh_part and num_synthetic(cycle, num_examples) < num_examples


def num_fresh(cycle: CycleConfig, num_examples: int) -> int:
    """How many examples of F_t enter each D_t, t >= 1."""
    return num_examples - num_synthetic(cycle, num_examples) if needs_fresh_data(cycle, num_examples) else 0


def fresh_share(cycle: CycleConfig, num_examples: int) -> float:
    """Fresh examples / all examples that are new in a D_t, t >= 1, in [0, 1]: what the grammar is asked for.

    The new ones are the portions of F_t and S_t, so the share is (m - round(λm)) / m for the cycles that draw F_t. The
    others live on D_0, which is not fresh: theirs is 0.
    """
    return num_fresh(cycle, num_examples) / num_examples


def next_dataset(
    cycle: CycleConfig,
    *,
    original: Dataset,
    previous: Dataset,
    samples: Sequence[Dataset],
    fresh: Dataset | None,
    rng: np.random.Generator,
) -> Dataset:
    """D_t from D_0 (`original`), D_{t-1} (`previous`), S_1 .. S_t (`samples`) and F_t (`fresh`).

    m is the size of D_0. `fresh` holds m texts, or only as many as are needed, from which the cycle draws its portion;
    it may be None where `needs_fresh_data` is False. `rng` decides which examples are drawn, nothing else.
    """
    m, newest = len(original), samples[-1]
    if cycle.kind is DataCycle.FULL_SYNTHETIC:
        return newest
    if cycle.kind is DataCycle.BALANCED:
        parts = [original, *samples]
        share, rest = divmod(m, len(parts))  # the first `rest` parts give one more
        drawn = [_part(part, share + (i < rest), rng) for i, part in enumerate(parts)]
        return _joined(drawn)
    count = num_synthetic(cycle, m)
    synthetic = _part(newest, count, rng)
    if cycle.kind is DataCycle.INCREMENTAL:
        return _joined([_part(previous, m - count, rng), synthetic])
    increment = [synthetic] if fresh is None else [fresh.draw(m - count, rng), synthetic]
    return _joined([previous, *increment] if cycle.kind is DataCycle.EXPANDING else increment)


def _part(dataset: Dataset, count: int, rng: np.random.Generator) -> Dataset:
    return dataset.draw(min(count, len(dataset)), rng)


def _joined(parts: Sequence[Dataset]) -> Dataset:
    joined, *others = [part for part in parts if len(part)] or parts
    for part in others:
        joined += part
    return joined
