"""What can be configured, read off the sections of `config`: each dotted key, its meaning, and what it may be."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

Kind = type[BaseModel]
Node = dict[str, Any]
"""A part of a JSON schema."""


class Described(NamedTuple):
    """One field."""

    key: str
    value: Any
    """The configuration's value; without a configuration, the default."""
    default: Any
    """`REQUIRED` for a field that has none."""
    unit: str
    meaning: str


REQUIRED = "required"


def message(error: Mapping[str, Any]) -> str:
    """What pydantic says is wrong, or what our own code said to it."""
    return str(error["msg"]).removeprefix("Value error, ")


def fields(kind: Kind, config: BaseModel | None = None, prefix: str = "") -> Iterator[Described]:
    """Every field of a kind of configuration, or of a given one, in order; in place of a section, its fields."""
    for name, field in kind.model_fields.items():
        key = f"{prefix}{name}"
        default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        value = default if config is None else getattr(config, name)
        if isinstance(value, BaseModel):
            yield from fields(type(value), value if config else None, f"{key}.")
        elif config is None and (sections := list(_sections(field.annotation))):
            yield from _without_repetition(fields(section, None, f"{key}.") for section in sections)
        else:
            if config is not None and isinstance(value, list | dict):
                value = config.model_dump(mode="json")[name]
            meaning, _, unit = " ".join((field.description or "").split()).partition(" Unit: ")
            yield Described(key, value, default, unit.removesuffix("."), meaning)


def spelled(value: Any) -> str:
    """The value as it can be written in a preset and on the command line."""
    is_plain = isinstance(value, str) and value.isprintable()
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _sections(annotation: Any) -> Iterator[Kind]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if get_origin(annotation) in (list, dict):  # one field, however many sections it holds
        return
    for part in get_args(annotation):
        yield from _sections(part)


def _without_repetition(alternatives: Iterator[Iterator[Described]]) -> list[Described]:
    return list({field.key: field for each in reversed(list(alternatives)) for field in each}.values())


@cache
def keys(kind: Kind) -> tuple[str, ...]:
    """Every dotted key, of sections too."""
    found: dict[str, None] = {}
    for field in fields(kind):
        parts = field.key.split(".")
        found |= dict.fromkeys(".".join(parts[: length + 1]) for length in range(len(parts)))
    return tuple(found)


def is_key(kind: Kind, key: str) -> bool:
    """Whether this is a field, or an entry of a field that holds entries of any name."""
    parts = key.split(".")
    return len(_walk(kind, parts)[0]) == len(parts)


def below(kind: Kind, key: str) -> list[str]:
    """The names of the fields in the innermost section that a dotted key lies in; a mapping's entry is one too."""
    section = key
    while section and section not in keys(kind):
        section = section.rpartition(".")[0]
    prefix = f"{section}." if section else ""
    names = dict.fromkeys(known[len(prefix) :].split(".")[0] for known in keys(kind) if known.startswith(prefix))
    _, node, definitions = _walk(kind, key.split(".")[:-1])
    return list(names or _resolved(node, definitions).get("properties", {}))


def allowed(kind: Kind, path: Sequence[str | int]) -> tuple[str, str]:
    """The dotted key of a place where pydantic found an error, and in plain words what is allowed there."""
    parts, node, definitions = _walk(kind, path)
    return ".".join(map(str, parts)), _words(node, definitions)


@cache
def _schema(kind: Kind) -> Node:
    return kind.model_json_schema()


def _walk(kind: Kind, path: Sequence[str | int]) -> tuple[list[str | int], Node, Node]:
    """How far the schema goes along a path, which between a section and its field may say which alternative it is."""
    node, walked = _schema(kind), list[str | int]()
    definitions = node.get("$defs", {})
    for place, part in enumerate(path):
        chosen = _called(node, part, definitions) if place < len(path) - 1 else None
        if chosen is not None:
            node = chosen
            continue
        inner = _inner(node, part, definitions)
        if inner is not None:
            node = inner
            walked.append(part)
    return walked, node, definitions


def _called(node: Node, name: str | int, definitions: Node) -> Node | None:
    """The alternative that pydantic calls so: after its kind, or after what its class is called first."""
    alternatives = [_resolved(one, definitions) for one in _alternatives(_resolved(node, definitions))]
    by_class = [one for one in alternatives if one.get("title", "").lower().startswith(str(name))]
    by_kind = [one for one in alternatives if one.get("properties", {}).get("kind", {}).get("const") == name]
    return next(iter(by_class + by_kind), None)


def _inner(node: Node, part: str | int, definitions: Node) -> Node | None:
    node = _resolved(node, definitions)
    for alternative in _alternatives(node):
        if (inner := _inner(alternative, part, definitions)) is not None:
            return inner
    inner = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
    if inner is None and isinstance(part, str):
        names = _resolved(node.get("propertyNames", {}), definitions).get("enum", [part])
        inner = node.get("additionalProperties") if part in names else None
    return inner if isinstance(inner, dict) else None


def _resolved(node: Node, definitions: Node) -> Node:
    name = node.get("$ref", "").rpartition("/")[2]
    return definitions[name] if name else node


def _alternatives(node: Node) -> list[Node]:
    return [*node.get("anyOf", []), *node.get("oneOf", [])]


def _words(node: Node, definitions: Node) -> str:
    node = _resolved(node, definitions)
    if choices := node.get("enum") or ([node["const"]] if "const" in node else []):
        return _listed([repr(choice) for choice in choices], " or ")
    if alternatives := _alternatives(node):
        return _listed(list(dict.fromkeys(_words(one, definitions) for one in alternatives)), ", or ")
    match node.get("type"):
        case "integer":
            return f"a whole number{_range(node, 1)}"
        case "number":
            return f"a number{_range(node, 0)}"
        case "array":
            size = f" of at least {node['minItems']}" if "minItems" in node else ""
            return f"a list{size}, each {_words(node['items'], definitions)}"
        case "object" if names := _resolved(node.get("propertyNames", {}), definitions).get("enum"):
            return f"keys and values, each key {_listed([repr(name) for name in names], ' or ')}"
    return {"boolean": "true or false", "string": "text", "null": "null"}.get(node.get("type", ""), "keys and values")


def _listed(choices: list[str], last: str) -> str:
    *first, final = choices
    return f"{', '.join(first)}{last}{final}" if first else final


def _range(node: Node, step: int) -> str:
    """The range in words; for whole numbers, whose step is 1, every "below" can be said as an "at most"."""
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, under = node.get("maximum"), node.get("exclusiveMaximum")
    if step and above is not None:
        low, above = above + step, None
    if step and under is not None:
        high, under = under - step, None
    if low is not None and high is not None:
        return f" from {low} to {high}"
    bounds = {"above": above, "of at least": low, "below": under, "at most": high}
    words = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
    return f" {' and '.join(words)}" if words else ""
