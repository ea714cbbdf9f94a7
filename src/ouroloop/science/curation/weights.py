"""Importance weights: samples of a sharpened model, weighted so that they stand for the model itself."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Role
from ouroloop.config.section import Number
from ouroloop.science.curation.step import CurationStep, Given, Pool


class Weighted(CurationStep):
    """Resamples by M_t's probability at temperature 1 over that with which a text was drawn.

    Where temperature acts on whole texts that is M_t^(1-1/T) but for a factor; on tokens it is their product, which
    the model knows. Systematic resampling: a text of weight w, of weights that sum to m, is kept floor(w) or ceil(w)
    times. What was not drawn cannot come back: weights cure the sharpening, and not the tail that a sample loses.
    Never more than there are to choose from: what earlier steps left short is not made up for by repetition.
    """

    name: Literal["weighted"] = "weighted"
    """Resamples by M_t's probability at temperature 1 over that with which a text was drawn."""
    candidates: Number = Field(default=2.0, ge=1, le=1_000)
    """What it resamples from: more are cut by sampling noise less. Unit: multiples of m."""

    role: ClassVar = Role.CHOOSES
    uses_sampler: ClassVar = True

    @property
    def num_candidates(self) -> float:
        return self.candidates

    def keep(self, pool: Pool, given: Given) -> Pool:
        if not len(pool):
            return pool
        distinct = list(dict.fromkeys(pool.texts))
        at_1 = dict(zip(distinct, given.log_probs_at_1(distinct).tolist(), strict=True))
        log_w = np.array([at_1[text] for text in pool.texts]) - pool.log_probs
        if np.isnan(log_w).any():
            raise ValueError("weighted: a text that M_t did not write has no weight; bring it in after this step")
        if np.isneginf(log_w).all():  # `min_p` cuts at temperature 1 whatever was drawn at a higher one
            return pool.take(np.empty(0, np.int64))
        weights = np.exp(log_w - log_w.max())
        count = min(given.wanted, len(pool))
        places = (given.rng.random() + np.arange(count)) / count
        chosen = np.searchsorted(np.cumsum(weights) / weights.sum(), places)
        return pool.take(given.rng.permutation(np.minimum(chosen, len(pool) - 1)))
