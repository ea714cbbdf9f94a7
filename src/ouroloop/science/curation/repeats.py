"""Each text once."""

from typing import Literal

import numpy as np

from ouroloop.science.curation.step import CurationStep, Given, Pool


class Unique(CurationStep):
    """Keeps each text once, the first of its kind."""

    name: Literal["unique"] = "unique"
    """Keeps each text once."""

    def keep(self, pool: Pool, given: Given) -> Pool:
        first = {text: i for i, text in reversed(list(enumerate(pool.texts)))}
        return pool.take(np.sort(np.fromiter(first.values(), dtype=np.int64, count=len(first))))
