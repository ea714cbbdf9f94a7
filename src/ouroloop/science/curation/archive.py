"""Quality-diversity: an archive whose cells are filled evenly, whatever the model writes most."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ouroloop.config.curation import Role
from ouroloop.config.section import Number, Whole
from ouroloop.science.curation.step import CurationStep, Given, Pool


class Archived(CurationStep):
    """Fills the cells of an archive in turns: first a text for each cell, then a second one, until m are kept.

    A cell holds texts that have their form in common: on logic their nesting and, in steps of `coarseness`, how many
    there are of each operator and their length. None of this says whether a text is right. The more probable texts of a
    cell come first, as MAP-Elites keeps an elite.

    Source: the archive of arXiv 1504.04909, with M_t's own probability as quality.
    """

    name: Literal["archived"] = "archived"
    """Fills the cells of an archive (nesting, operators, length) in turns, the most probable texts first."""
    candidates: Number = Field(default=2.0, ge=1, le=1_000)
    """How much it chooses from. Unit: multiples of m."""
    coarseness: Whole = Field(default=4, ge=1)
    """Lengths and counts are told apart in steps of this many. Unit: tokens."""

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
        among = given.rng.permutation(len(pool))  # chance decides which cells get the last turn
        chosen = among[np.argsort(turn[among], kind="stable")][: given.wanted]
        return pool.take(np.sort(chosen))

    def _cell(self, text: str, given: Given) -> tuple[int, ...]:
        nesting, *counts = given.features(text)
        return nesting, *(count // self.coarseness for count in counts)
