"""One entry of a comparison of methods: what it changes in a loop, and what is said where no valid loop results."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from ouroloop.config import DataCycle, LoopConfig, NeedsNetworkError, Section
from ouroloop.errors import did_you_mean
from ouroloop.schema import message

_CHANGEABLE = ("cycle", "curation", "model", "train", "sampling", "keep_weights", "resources")


def is_method_name(name: str) -> bool:
    return re.fullmatch("[A-Za-z0-9][A-Za-z0-9_ .-]{0,39}", name) is not None


def _method_name(name: str) -> str:
    if not is_method_name(name):
        raise ValueError(f"a method is named by up to 40 letters, digits, spaces, '_', '.' and '-', not {name!r}")
    return name


MethodName = Annotated[str, AfterValidator(_method_name)]
"""What a method is called, which MLflow keeps as part of a key."""


class MethodError(ValueError):
    """A method's changes give no valid loop."""

    def __init__(self, name: str, error: ValidationError) -> None:
        self.where, self.error = f"methods.{name}.changes", error
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        super().__init__(f"{self.where}: {at} {message(first)}")


class MethodConfig(Section):
    """One entry of a comparison: what it changes in the study's loop."""

    description: str = ""
    """What it does, in a sentence."""
    changes: dict[str, Any] = Field(default={})
    """Sections of the loop with the fields that differ: {curation: {steps: [unique]}}; {} is the baseline."""
    cycles: list[DataCycle] | None = None
    """Which of the study's cycles it is run with; null for all."""

    @field_validator("changes")
    @classmethod
    def _are_of_a_method(cls, changes: dict[str, Any]) -> dict[str, Any]:
        for key in changes:
            if key not in _CHANGEABLE:
                near = "" if key in LoopConfig.model_fields else did_you_mean(key, _CHANGEABLE)
                raise ValueError(f"a method cannot change {key!r}{near}, only {', '.join(_CHANGEABLE)}")
        return changes


def needs_network(error: ValidationError) -> bool:
    """Whether all that is wrong with a method is that the ideal learner is no network."""
    return all(
        each["loc"][:1] in (("model",), ("train",)) or isinstance(each.get("ctx", {}).get("error"), NeedsNetworkError)
        for each in error.errors(include_url=False)
    )
