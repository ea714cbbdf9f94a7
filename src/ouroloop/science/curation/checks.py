"""Steps that can tell right from wrong: by a verifier, exact, noisy or short-sighted, or by the grammar."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Oracle
from ouroloop.config.section import Proportion, Whole
from ouroloop.science.curation.step import CurationStep, Given, Pool


class Verified(CurationStep):
    """Keeps what a verifier finds right: on logic, expressions that are True (False where all original data is)."""

    name: Literal["verified"] = "verified"
    """Keeps what a verifier finds right."""
    error_rate: Proportion = 0.0
    """How often its verdict on a text that was drawn is wrong, where it has one. Unit: share."""
    max_depth: Whole | None = Field(default=None, ge=1)
    """It sees no deeper than this; null for all depths. Unit: operators from root to leaf."""
    unseen: Literal["drop", "keep"] = "drop"
    """What becomes of a text that is too deep for it."""

    needs: ClassVar = frozenset({Oracle.VERIFIER})

    def keep(self, pool: Pool, given: Given) -> Pool:
        verdicts = {text: given.verify(text, self.max_depth) for text in set(pool.texts)}
        found = [self.unseen == "keep" if (right := verdicts[text]) is None else right for text in pool.texts]
        is_judged = np.array([verdicts[text] is not None for text in pool.texts], dtype=bool)
        errs = (given.rng.random(len(pool)) < self.error_rate) & is_judged
        return pool.where(np.array(found, dtype=bool) ^ errs)


class Grammatical(CurationStep):
    """Keeps what P gives a probability above 0: on logic by truth value, depth, and all leaves being equally deep."""

    name: Literal["grammatical"] = "grammatical"
    """Keeps what the true distribution gives a probability above 0."""

    needs: ClassVar = frozenset({Oracle.GRAMMAR})

    def keep(self, pool: Pool, given: Given) -> Pool:
        good = {text: given.is_in_grammar(text) for text in set(pool.texts)}
        return pool.where([good[text] for text in pool.texts])
