"""What becomes of S_t before it is learnt from: named steps, each of which keeps some of the texts.

A step is a class in a module of `science/curation/`, which has its fields and what it does with texts in one place.
Here it is known by its name alone: what a configuration needs to know about a step, the step says itself.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum, StrEnum
from importlib import import_module
from inspect import getsource
from itertools import pairwise
from types import FunctionType
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from ouroloop.config.section import Number, Section
from ouroloop.errors import ConfigError, did_you_mean, shown
from ouroloop.schema import Described, allowed, below, fields, message

_METHODS = "ouroloop.science.curation"  # imported when a configuration names a step: it is in a layer above this one


class Oracle(StrEnum):
    """What a step may ask for beside the samples of M_t and their log-probabilities; in no order."""

    VERIFIER = "verifier"
    GRAMMAR = "grammar"
    ORIGINAL_DATA = "original_data"
    FRESH_DATA = "fresh_data"
    PREVIOUS_MODEL = "previous_model"
    ORIGINAL_STATISTICS = "original_statistics"
    TRAINING_SET = "training_set"


class Role(IntEnum):
    """What a step does, in the order in which steps can follow one another."""

    FILTERS = 0
    """Keeps some of its texts: the more it gets, the more it keeps."""
    CHOOSES = 1
    """Keeps m at most, and does better with more to choose from."""
    REPLACES = 2
    """Keeps m at most, some of which M_t did not write."""


class Step(Section):
    """One step of a curation. A subclass is known by the default of its `name` as soon as it is defined."""

    name: str
    """Which step it is."""

    needs: ClassVar[frozenset[Oracle]] = frozenset()
    """The oracles that it is given; asking for any other is an error."""
    needs_network: ClassVar[bool] = False
    """Whether it can do nothing with a model that is a list of texts."""
    role: ClassVar[Role] = Role.FILTERS
    """Decides what may come before it, and after it."""
    uses_sampler: ClassVar[bool] = False
    """Whether it makes use of how M_t was sampled from: it is told how probable texts are at temperature 1."""
    known: ClassVar[dict[str, type["Step"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        name = cls.model_fields["name"].default
        if not isinstance(name, str):
            return
        known = cls.known.get(name)
        if known is not None and known.__module__.startswith("ouroloop.") and known.__module__ != cls.__module__:
            raise ConfigError(f"step {cls.__name__}: {name!r} is a step of ouroloop; choose another name")
        cls.known[name] = cls

    @classmethod
    def own_source(cls) -> str:
        """Digest of the methods and constants that are not this program's: an edited step is another step.

        Empty for a step that came with this program, whose code every generation names.

        Raises:
            ConfigError: a method has no source, such as one typed at Python's own prompt.
        """
        kinds = [each for each in cls.__mro__ if issubclass(each, Step) and not each.__module__.startswith("ouroloop.")]
        try:
            sources = [part for each in kinds for part in (*map(getsource, _methods(each)), *_constants(each))]
        except OSError:
            raise ConfigError(f"step {cls.__name__}: write it in a file or a notebook; its source is needed") from None
        return hashlib.sha256("".join(sources).encode()).hexdigest()[:12] if kinds else ""

    @property
    def num_candidates(self) -> float:
        """How much is drawn at first, for it to choose from. Unit: multiples of m."""
        return 1.0


def _methods(kind: type) -> list[FunctionType]:
    """What its body defines: functions, and those behind properties and class methods."""
    held = ("fget", "func", "__func__")  # by a property, a cached property, a class method
    parts = [next((getattr(part, of) for of in held if hasattr(part, of)), part) for part in vars(kind).values()]
    return [part for part in parts if isinstance(part, FunctionType) and part.__module__ == kind.__module__]


def _constants(kind: type) -> Iterator[str]:
    """What its body sets beyond the attributes of `Step`, where it is plain data."""
    for name, value in vars(kind).items():
        if not name.startswith("__") and not hasattr(Step, name):
            with suppress(TypeError):  # a method, or an object whose text would differ in each process
                yield f"{name}={json.dumps(value, sort_keys=True, default=_in_order)}"


def _in_order(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError


def known_steps() -> Mapping[str, type[Step]]:
    """Each step by its name: those of ouroloop, and others whose class is defined by now."""
    import_module(_METHODS)
    return Step.known


def with_steps(described: Iterable[Described]) -> Iterator[Described]:
    """The fields of a configuration and, below `curation.steps`, those of each step that there is."""
    for field in described:
        yield field
        if field.key.endswith("curation.steps"):
            for name, kind in sorted(known_steps().items()):
                yield from (inner for inner in fields(kind, None, f"{field.key}.{name}.") if inner.key[-5:] != ".name")


def _step(value: Any) -> Any:
    """The step that a mapping, or a name alone, stands for."""
    if isinstance(value, Step):
        return value
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(name := given.get("name"), str):
        how = "its name, or {name: …} with its fields, a space after each colon"
        raise ValueError(f"got {shown(value)}, allowed is a step: {how}")
    kind = known_steps().get(name)
    if kind is None:
        near = did_you_mean(name, Step.known)
        raise ValueError(f"got {shown(name)}{near}, allowed is {', '.join(sorted(Step.known))}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, [kind.model_fields["name"].default, *first["loc"]]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"unknown key {where!r}; allowed here: {', '.join(below(kind, ''))}") from None
        if first["type"] == "value_error":
            raise ValueError(f"{where}: {message(first)}") from None
        got = "it is missing" if first["type"] == "missing" else f"got {first['input']!r}"
        raise ValueError(f"{where}: {got}, allowed is {allowed(kind, first['loc'])[1]}") from None


_AnyStep = Annotated[SerializeAsAny[Step], BeforeValidator(_step, json_schema_input_type=str | Step)]


class CurationConfig(Section):
    """What becomes of the texts of M_t before they are S_t's part of D_t."""

    steps: list[_AnyStep] = Field(default=[])
    """Names, or {name: …} with fields, each applied to what the one before it kept; an empty list keeps all.
    docs/curation.md lists them."""
    max_drawn: Number = Field(default=8.0, ge=1, le=1_000)
    """The most that is drawn from M_t until m texts are kept. Unit: multiples of m."""

    @model_validator(mode="after")
    def _can_be_filled(self) -> Self:
        for before, after in pairwise(self.steps):
            if before.role is after.role is Role.CHOOSES:
                raise ValueError(
                    f"{after.name} cannot come after {before.name}, which leaves m texts at most and nothing to choose "
                    "from: use only one of the two"
                )
            if after.role < before.role:
                right = ", ".join(step.name for step in sorted(self.steps, key=lambda step: step.role))
                raise ValueError(
                    f"{after.name} cannot come after {before.name}, which gives m texts at most however many are "
                    f"drawn: write [{right}]"
                )
        hungriest = max(self.steps, key=lambda step: step.num_candidates, default=None)
        if hungriest is not None and (needed := hungriest.num_candidates) > self.max_drawn:
            raise ValueError(
                f"max_drawn {self.max_drawn:g} must be at least the {needed:g} candidates of {hungriest.name}"
            )
        return self

    @property
    def needs(self) -> frozenset[Oracle]:
        return frozenset[Oracle]().union(*(step.needs for step in self.steps))

    @property
    def label(self) -> str:
        return "+".join(step.name for step in self.steps)

    def _identified(self, given: dict[str, Any]) -> dict[str, Any]:
        for step, one in zip(self.steps, given["steps"], strict=True):
            if source := step.own_source():
                one["source"] = source
        return super()._identified(given)
