"""What becomes of S_t before it is learnt from: named steps, each of which keeps some of the texts.

A step is a class in a module of `science/curation/`, which has its fields and what it does with texts in one place.
It is known here by its name alone: what a configuration needs to know of it, it says itself.
"""

from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from ouroloop.config.section import Number, Section
from ouroloop.schema import allowed, below

_METHODS = "ouroloop.science.curation"  # imported when a configuration names a step: it stands above this room


class Oracle(StrEnum):
    """What a step may ask for beside the samples of M_t, their log-probabilities and D_{t-1}; in no order."""

    VERIFIER = "verifier"
    GRAMMAR = "grammar"
    ORIGINAL_DATA = "original_data"
    FRESH_DATA = "fresh_data"
    PREVIOUS_MODEL = "previous_model"
    ORIGINAL_STATISTICS = "original_statistics"


class Step(Section):
    """One step of a curation. A subclass is known by the default of its `name` as soon as it is defined."""

    name: str
    """Which step it is."""

    needs: ClassVar[frozenset[Oracle]] = frozenset()
    """What it is given; asking for anything else is an error."""
    needs_network: ClassVar[bool] = False
    """Whether it makes no sense of a model that is a list of texts."""
    uses_sampler: ClassVar[bool] = False
    """Whether it makes use of how M_t was sampled from."""
    known: ClassVar[dict[str, type["Step"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        name = cls.model_fields["name"].default
        if isinstance(name, str):
            cls.known[name] = cls

    @property
    def num_candidates(self) -> float:
        """What is drawn at first, for it to choose from. Unit: multiples of m."""
        return 1.0


def _step(value: Any) -> Any:
    """The step that a mapping, or a name alone, stands for."""
    if isinstance(value, Step):
        return value
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise ValueError(f"got {value!r}, allowed is a step: its name, or {{name: …}} with its fields")
    import_module(_METHODS)
    kind = Step.known.get(str(given.get("name", "")))
    if kind is None:
        raise ValueError(f"got {given.get('name')!r}, allowed is {', '.join(sorted(Step.known))}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, [kind.model_fields["name"].default, *first["loc"]]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"unknown key {where!r}; allowed here: {', '.join(below(kind, ''))}") from None
        if first["type"] == "value_error":
            raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        raise ValueError(f"{where}: got {first['input']!r}, allowed is {allowed(kind, first['loc'])[1]}") from None


class CurationConfig(Section):
    """What becomes of the texts of M_t before they are S_t's part of D_t."""

    steps: list[Annotated[SerializeAsAny[Step], BeforeValidator(_step)]] = Field(default=[])
    """Applied in this order, each to what the one before it kept: names, or {name: …} with fields; none keeps all.
    docs/curation.md lists them."""
    max_drawn: Number = Field(default=8.0, ge=1, le=1_000)
    """So much is drawn from M_t at most, until m texts are kept. Unit: multiples of m."""

    @property
    def needs(self) -> frozenset[Oracle]:
        return frozenset[Oracle]().union(*(step.needs for step in self.steps))

    @property
    def label(self) -> str:
        return "+".join(step.name for step in self.steps)
