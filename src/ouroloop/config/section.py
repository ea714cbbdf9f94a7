"""What every section of a configuration is: frozen, validated, without a free-form key; and its kinds of number."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, Strict


@dataclass(frozen=True)
class Added:
    """Marks a field that 0.2 did not have, and whose default is what was done before: `Annotated[Whole, Added()]`."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def changed(self, **values: Any) -> Self:
        """The same with other values, validated anew.

        A mapping given for a section changes that section, as in a preset; so does one within it, where {} clears.
        """
        given = self.model_dump()
        for key, value in values.items():
            before: Any = given.get(key)
            if isinstance(value, dict) and isinstance(before, dict):
                given[key] = _merged(taken_over(before, value), value)
            else:
                given[key] = value.model_dump() if isinstance(value, BaseModel) else value
        return type(self).model_validate(given)

    def unusual(self) -> dict[str, Any]:
        """The fields that were `Added` and are not at their default, as JSON."""
        added = _added(type(self))
        return {name: value for name, value in self.identity().items() if name in added}

    def identity(self) -> dict[str, Any]:
        """As JSON, without the fields that were `Added` and are at their default: an older loop keeps its digests."""
        return self._identified(self.model_dump(mode="json"))

    def _identified(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the identity keeps of all that is `given`."""
        added = _added(type(self))
        for name, value in self:
            if name in added and value == added[name]:
                del given[name]
            elif isinstance(value, Section):
                given[name] = value._identified(given[name])
        return given


def _merged(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        key: before[key] | value
        for key, value in change.items()
        if isinstance(value, dict) and value and isinstance(before.get(key), dict)
    }
    return {**before, **change, **inner}


def taken_over(
    before: Mapping[str, Any], now: Mapping[str, Any], usual: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """What of a section stays under what is said now: nothing of another kind, and of another model type no options.

    `usual` is what holds for a kind or a type that was not said before.
    """
    old = {**usual, **before}
    is_other_kind = now.get("kind", old.get("kind")) not in (None, old.get("kind"))
    is_other_kind |= now.get("pretrained") is not None and before.get("pretrained") is None
    is_other_type = now.get("model_type", old.get("model_type")) != old.get("model_type")
    if is_other_kind:
        return {}
    return {key: value for key, value in before.items() if key != "options" or not is_other_type}


@cache
def _added(section: type[Section]) -> dict[str, Any]:
    """The fields that were `Added`, with their defaults."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in section.model_fields.items()
        if any(isinstance(mark, Added) for mark in field.metadata)
    }


RENAMED = {"initialisation": "truth_label", "initialisations": "truth_labels"}
"""What fields were called before 0.2.0, and what they are called now."""


def with_new_names(value: Any) -> Any:
    """A section with any old names in it replaced, each with a warning."""
    old = [key for key in value if key in RENAMED] if isinstance(value, dict) else []
    for key in old:
        warnings.warn(f"{key} has been called {RENAMED[key]} since 0.2.0", FutureWarning, stacklevel=2)
    return {RENAMED.get(key, key): inner for key, inner in value.items()} if old else value


# Strict: `true` is not a number, and 1.0 not a whole one
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Proportion = Annotated[Number, Field(ge=0, le=1)]
Temperature = Annotated[Number, Field(gt=0, le=10)]
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]
