"""Methods that are compared: what each changes of a loop, and what it may know, read off what it declares."""

from typing import Annotated, Any

from pydantic import Field

from ouroloop.config import LoopConfig, Oracle, Section
from ouroloop.config.cycle import DataCycle

KNOWLEDGE = (
    "data only",
    "sampler",
    "previous model",
    "statistics of D_0",
    "D_0 kept",
    "fresh data",
    "oracle",
)
"""What a method may know, each more than the one before; a method stands where the most that it knows is."""

_OF_ORACLE = {
    Oracle.PREVIOUS_MODEL: "previous model",
    Oracle.ORIGINAL_STATISTICS: "statistics of D_0",
    Oracle.ORIGINAL_DATA: "D_0 kept",
    Oracle.FRESH_DATA: "fresh data",
    Oracle.GRAMMAR: "oracle",
    Oracle.VERIFIER: "oracle",
}


MethodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .-]{0,39}$")]
"""MLflow keeps it as part of a key."""


class MethodConfig(Section):
    """One entry of a comparison: what it changes of the study's loop."""

    description: str = ""
    """What it does, in a sentence."""
    changes: dict[str, Any] = Field(default={})
    """Sections of the loop with the fields that differ: {curation: {steps: [unique]}}; {} is the baseline."""
    cycles: list[DataCycle] | None = None
    """Of the study's, those that it is run with; null for all."""


def knowledge(loop: LoopConfig, usual: LoopConfig) -> str:
    """The most that the loop makes use of beside its texts: of oracles, earlier models, the sampler and D_0.

    `usual` is the same loop without the method. What the cycle alone mixes in is no knowledge of the method.
    """
    known = {_OF_ORACLE[oracle] for oracle in loop.curation.needs}
    if loop.cycle.kind is not usual.cycle.kind:
        known.add("D_0 kept")
    train = loop.train
    if train is not None and train.num_previous != 0:
        known.add("previous model")
    is_matched = train is not None and train.loss_temperature != 1
    if loop.sampling != usual.sampling or is_matched or any(step.uses_sampler for step in loop.curation.steps):
        known.add("sampler")
    return max(known, key=KNOWLEDGE.index, default=KNOWLEDGE[0])
