"""Token-level editing: the data stay, and only what a model finds most predictable is written anew."""

from typing import ClassVar, Literal

import numpy as np

from ouroloop.config.curation import Oracle, Role
from ouroloop.config.section import Proportion
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.dataset import Dataset, Source


class Edited(CurationStep):
    """Replaces samples with the texts of D_{t-1}, drawing anew from M_t each token that it is sure enough of.

    A text that comes out unchanged keeps its origin; any other one counts as sampled at t. So the result is a
    semi-synthetic D_{t-1}, whose tail is untouched.

    Source: arXiv 2412.14689, section 4, with M_t as the model that edits.
    """

    name: Literal["edited"] = "edited"
    """Replaces samples with D_{t-1}, the tokens that M_t is surest of drawn anew."""
    threshold: Proportion = 0.99
    """A token is drawn anew where M_t gives it at least this probability. Unit: probability."""

    role: ClassVar = Role.REPLACES
    needs: ClassVar = frozenset({Oracle.PREVIOUS_MODEL, Oracle.TRAINING_SET})
    needs_network: ClassVar = True

    def keep(self, pool: Pool, given: Given) -> Pool:
        before = given.training_set.draw(min(given.wanted, len(given.training_set)), given.rng)
        texts = given.previous_model.edit(before.texts, self.threshold, given.rng)
        is_new = np.array([text != old for text, old in zip(texts, before.texts, strict=True)], dtype=bool)
        sources = np.where(is_new, np.uint8(Source.SAMPLED), before.sources)
        edited = Dataset(tuple(texts), sources, np.where(is_new, np.int32(given.generation), before.generations))
        return Pool(edited, np.full(len(edited), np.nan))
