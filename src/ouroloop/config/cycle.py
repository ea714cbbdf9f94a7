"""How the training set of the next generation is put together."""

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from ouroloop.config.section import Proportion, Section


class DataCycle(StrEnum):
    """How D_t is put together; the definitions are in `science/cycle.py`."""

    FULL_SYNTHETIC = "full_synthetic"
    BALANCED = "balanced"
    INCREMENTAL = "incremental"
    EXPANDING = "expanding"
    FRESH_MIX = "fresh_mix"

    @property
    def takes_proportion(self) -> bool:
        return self not in (DataCycle.FULL_SYNTHETIC, DataCycle.BALANCED)


class CycleConfig(Section):
    kind: DataCycle = DataCycle.FULL_SYNTHETIC
    """How D_t is put together from D_0, fresh data and what the models wrote."""
    synthetic_proportion: Proportion | None = None
    """λ. Incremental and fresh mix: portion of D_t taken from S_t. Expanding: portion of what is added.
    Full synthetic and balanced have no λ. Unit: share."""

    @model_validator(mode="after")
    def _proportion_belongs_to_kind(self) -> Self:
        if self.kind.takes_proportion and self.synthetic_proportion is None:
            raise ValueError(f"{self.kind.value} needs cycle.synthetic_proportion, a number from 0 to 1")
        if not self.kind.takes_proportion and self.synthetic_proportion is not None:
            raise ValueError(
                f"{self.kind.value} takes no cycle.synthetic_proportion (given {self.synthetic_proportion:g}); "
                "leave it out or choose incremental, expanding or fresh_mix"
            )
        return self

    def canonical(self) -> "CycleConfig":
        """The one name of a cycle with two: incremental at λ = 1 replaces all of D_{t-1}, which is full synthetic."""
        if self.kind is DataCycle.INCREMENTAL and self.synthetic_proportion == 1:
            return CycleConfig(kind=DataCycle.FULL_SYNTHETIC)
        return self

    @property
    def effective_proportion(self) -> float:
        """λ as a number that every cycle has: what models wrote of the new data in D_t, 1 where that is all of it."""
        return 1.0 if self.synthetic_proportion is None else self.synthetic_proportion

    @property
    def proportion_label(self) -> str:
        """λ as shown in tags; full synthetic is incremental at λ = 1, balanced has none."""
        return "none" if self.kind is DataCycle.BALANCED else f"{self.effective_proportion:g}"
