"""Quality-diversity: an archive whose cells are filled evenly, whatever the model writes most."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Role
from ouroloop.config.section import Number, Whole
from ouroloop.science.curation.step import CurationStep, Given, Pool


class Archived(CurationStep):
    """Fills the cells of an archive in turns: first a text for each cell, then a second one, until m are kept.

    A cell is what texts have in common: on logic nesting, how many of each operator, and length, in steps of
    `coarseness`. Nothing of it says whether a text is right; the more probable ones of a cell come first, as MAP-Elites
    keeps an elite.

    Source: the archive of arXiv 1504.04909, its quality M_t's own probability.
    """

    name: Literal["archived"] = "archived"
    """Fills the cells of an archive by nesting, operators and length in turns, the most probable first."""
    candidates: Number = Field(default=2.0, ge=1, le=1_000)
    """What it chooses from. Unit: multiples of m."""
    coarseness: Whole = Field(default=4, ge=1)
    """Lengths and counts are told apart by steps of this many. Unit: tokens."""

    role: ClassVar = Role.CHOOSES

    @property
    def num_candidates(self) -> float:
        return self.candidates

    def keep(self, pool: Pool, given: Given) -> Pool:
        cells: dict[tuple[int, ...], list[int]] = {}
        for place in np.argsort(-pool.log_probs, kind="stable"):
            cells.setdefault(self._cell(pool.texts[place], given), []).append(int(place))
        turn = np.full(len(pool), 0)
        for cell in cells.values():
            turn[cell] = np.arange(len(cell))
        among = given.rng.permutation(len(pool))  # in the last turn, which not all cells get, chance decides
        chosen = among[np.argsort(turn[among], kind="stable")][: given.wanted]
        return pool.take(np.sort(chosen))

    def _cell(self, text: str, given: Given) -> tuple[int, ...]:
        nesting, *counts = given.features(text)
        return nesting, *(count // self.coarseness for count in counts)
