"""A share of what models did not write, in every training set."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Oracle, Role
from ouroloop.config.section import Number
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.dataset import Dataset

Share = Field(gt=0, le=1)


class OriginalBuffer(CurationStep):
    """Puts texts of D_0 in the place of the last ones that M_t wrote: a share of m, chosen anew in each generation."""

    name: Literal["original_buffer"] = "original_buffer"
    """Puts texts of D_0 in the place of some."""
    share: Number = Share
    """Of m, one text at least. Unit: share."""
    which: Literal["tail", "any"] = "tail"
    """Of D_0, those that M_t finds least probable, or a random part."""

    role: ClassVar = Role.REPLACES
    needs: ClassVar = frozenset({Oracle.ORIGINAL_DATA, Oracle.PREVIOUS_MODEL})

    def keep(self, pool: Pool, given: Given) -> Pool:
        original, count = given.original_data, _count(self.share, given.wanted)
        chosen = given.rng.permutation(len(original))
        if self.which == "tail":
            chosen = chosen[np.argsort(given.log_probs_at_1(original.texts)[chosen], kind="stable")]
        return _beside(pool, original.take(chosen[:count]), given.wanted)


class FreshBuffer(CurationStep):
    """Puts fresh texts in the place of the last ones that M_t wrote."""

    name: Literal["fresh_buffer"] = "fresh_buffer"
    """Puts fresh texts in the place of some."""
    share: Number = Share
    """Of m, one text at least. Unit: share."""

    role: ClassVar = Role.REPLACES
    needs: ClassVar = frozenset({Oracle.FRESH_DATA})

    def keep(self, pool: Pool, given: Given) -> Pool:
        return _beside(pool, given.fresh_data(_count(self.share, given.wanted)), given.wanted)


def _count(share: float, wanted: int) -> int:
    return max(1, round(share * wanted))


def _beside(pool: Pool, others: Dataset, wanted: int) -> Pool:
    """The last of M_t's texts give way, those of another buffer only where there are no more of them."""
    first = np.argsort(~np.isnan(pool.log_probs), kind="stable")
    return pool.take(np.sort(first[: max(0, wanted - len(others))])).with_others(others)
