"""What a loop starts from: the testbed, and how much of it."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ouroloop.config.section import Section, Whole, with_new_names
from ouroloop.testbed.base import Testbed
from ouroloop.testbed.logic.grammar import TruthLabel, capacity
from ouroloop.testbed.logic.testbed import LogicTestbed


class DataConfig(Section):
    kind: Literal["logic"] = "logic"
    """The testbed: logic expressions, whose truth is decidable."""
    num_examples: Whole = Field(ge=2, le=10_000_000)
    """m, the size of D_0 and of every S_t. Unit: expressions."""
    min_depth: Whole = Field(default=1, ge=1, le=7)
    """Least depth of an expression of the grammar. Unit: operators from root to leaf."""
    max_depth: Whole = Field(default=5, ge=1, le=7)
    """Greatest depth of an expression of the grammar. Unit: operators from root to leaf."""
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY
    """Which expressions D_0 and fresh data hold: True ones only, False ones only, or half of each."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:
        return with_new_names(value)

    @model_validator(mode="after")
    def _fits_the_grammar(self) -> Self:
        if self.min_depth > self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be at most max_depth {self.max_depth}")
        limit = capacity(self.min_depth, self.max_depth, self.truth_label)
        if self.num_examples > limit:
            raise ValueError(
                f"num_examples {self.num_examples:,} must be at most {limit:,}, all the unique "
                f"expressions of depth {self.min_depth} to {self.max_depth} ({self.truth_label.value})"
            )
        return self

    @property
    def testbed(self) -> Testbed:
        return LogicTestbed(self.min_depth, self.max_depth, self.truth_label)

    @property
    def max_length_tokens(self) -> int:
        """Words of the longest expression: 2^d leaves and three words for each of 2^d - 1 operators."""
        return int(4 * 2**self.max_depth - 3)
