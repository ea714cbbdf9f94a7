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
    """Replaces the last texts that M_t wrote with texts of D_0: a share of m, chosen anew in each generation."""

    name: Literal["original_buffer"] = "original_buffer"
    """Replaces some texts with texts of D_0."""
    share: Number = Share
    """Share of m, at least one text. Unit: share."""
    which: Literal["tail", "any"] = "tail"
    """Which texts of D_0: those that M_t finds least probable, or a random part."""

    role: ClassVar = Role.REPLACES
    needs: ClassVar = frozenset({Oracle.ORIGINAL_DATA, Oracle.PREVIOUS_MODEL})

    def keep(self, pool: Pool, given: Given) -> Pool:
        original, count = given.original_data, _count(self.share, given.wanted)
        chosen = given.rng.permutation(len(original))
        if self.which == "tail":
            chosen = chosen[np.argsort(given.log_probs_at_1(original.texts)[chosen], kind="stable")]
        return _beside(pool, original.take(chosen[:count]), given.wanted)


class FreshBuffer(CurationStep):
    """Replaces the last texts that M_t wrote with fresh texts."""

    name: Literal["fresh_buffer"] = "fresh_buffer"
    """Replaces some texts with fresh texts."""
    share: Number = Share
    """Share of m, at least one text. Unit: share."""

    role: ClassVar = Role.REPLACES
    needs: ClassVar = frozenset({Oracle.FRESH_DATA})

    def keep(self, pool: Pool, given: Given) -> Pool:
        return _beside(pool, given.fresh_data(_count(self.share, given.wanted)), given.wanted)


def _count(share: float, wanted: int) -> int:
    return max(1, round(share * wanted))


def _beside(pool: Pool, others: Dataset, wanted: int) -> Pool:
    """The last of M_t's texts give way to others, those of another buffer only where none of M_t's are left."""
    first = np.argsort(~np.isnan(pool.log_probs), kind="stable")
    return pool.take(np.sort(first[: max(0, wanted - len(others))])).with_others(others)
