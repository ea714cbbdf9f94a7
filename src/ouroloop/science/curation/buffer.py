"""A share of what models did not write, in every training set."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Oracle
from ouroloop.config.section import Number
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.dataset import Dataset

Share = Field(gt=0, le=1)


class OriginalBuffer(CurationStep):
    """Puts texts of D_0 in the place of the last ones: a share of m, chosen anew in each generation."""

    name: Literal["original_buffer"] = "original_buffer"
    """Puts texts of D_0 in the place of some."""
    share: Number = Share
    """Of m. Unit: share."""
    which: Literal["tail", "any"] = "tail"
    """Of D_0, those that M_t finds least probable, or a random part."""

    needs: ClassVar = frozenset({Oracle.ORIGINAL_DATA, Oracle.PREVIOUS_MODEL})

    def keep(self, pool: Pool, given: Given) -> Pool:
        original, count = given.original_data, round(self.share * given.wanted)
        chosen = given.rng.permutation(len(original))
        if self.which == "tail":
            chosen = chosen[np.argsort(given.log_probs_at_1(original.texts)[chosen], kind="stable")]
        return _beside(pool, original.take(chosen[:count]), given.wanted)


class FreshBuffer(CurationStep):
    """Puts fresh texts in the place of the last ones."""

    name: Literal["fresh_buffer"] = "fresh_buffer"
    """Puts fresh texts in the place of some."""
    share: Number = Share
    """Of m. Unit: share."""

    needs: ClassVar = frozenset({Oracle.FRESH_DATA})

    def keep(self, pool: Pool, given: Given) -> Pool:
        return _beside(pool, given.fresh_data(round(self.share * given.wanted)), given.wanted)


def _beside(pool: Pool, others: Dataset, wanted: int) -> Pool:
    room = max(0, wanted - len(others))
    return pool.take(np.arange(min(room, len(pool)))).with_others(others)
