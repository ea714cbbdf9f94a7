"""Importance weights: samples of a sharpened model, weighted so that they stand for the model itself."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Role
from ouroloop.config.section import Number
from ouroloop.science.curation.step import CurationStep, Given, Pool


class Weighted(CurationStep):
    """Resamples by M_t's probability of a text at temperature 1 over the one that it was drawn with.

    Where temperature acts on whole texts, that is M_t^(1-1/T) up to a factor; on tokens, it is the product
    of theirs, which the model knows. Resampling is systematic: with weights that sum to m, a text of weight w is kept
    floor(w) or ceil(w) times. What was not drawn cannot come back: weights cure the sharpening, but not the loss of the
    tail in a sample. Never more are kept than there are to choose from: what earlier steps left short is not made up
    for by repetition.
    """

    name: Literal["weighted"] = "weighted"
    """Resamples by M_t's probability of a text at temperature 1 over the one that it was drawn with."""
    candidates: Number = Field(default=2.0, ge=1, le=1_000)
    """How much it resamples from: with more, sampling noise cuts less. Unit: multiples of m."""

    role: ClassVar = Role.CHOOSES
    uses_sampler: ClassVar = True

    @property
    def num_candidates(self) -> float:
        return self.candidates

    def keep(self, pool: Pool, given: Given) -> Pool:
        if not len(pool):
            return pool
        if np.isnan(pool.log_probs).any():
            raise ValueError("weighted: a text that M_t did not write has no weight; bring it in after this step")
        distinct = list(dict.fromkeys(pool.texts))
        at_1 = dict(zip(distinct, given.log_probs_at_1(distinct).tolist(), strict=True))
        log_w = np.array([at_1[text] for text in pool.texts]) - pool.log_probs
        if np.isneginf(log_w).all():  # `min_p` can cut at temperature 1 all that was drawn at a higher one
            return pool.take(np.empty(0, np.int64))
        weights = np.exp(log_w - log_w.max())
        count = min(given.wanted, len(pool))
        places = (given.rng.random() + np.arange(count)) / count
        chosen = np.searchsorted(np.cumsum(weights) / weights.sum(), places)
        return pool.take(given.rng.permutation(np.minimum(chosen, len(pool) - 1)))
