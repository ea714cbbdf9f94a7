"""From a preset, and what the command line changes in it, to a configuration.

A preset may name a `base`, another preset that it changes; overrides change it further (`--cycle.kind=incremental`).
What is wrong ends in one `ConfigError` of one line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from ouroloop.config import (
    RENAMED,
    ConfigError,
    CycleConfig,
    LogicData,
    LoopConfig,
    ModelConfig,
    TrainConfig,
    taken_over,
    with_new_names,
)
from ouroloop.errors import did_you_mean, shown
from ouroloop.preset_files import NotYamlError, find, parse, read
from ouroloop.schema import allowed, below, fields, is_key, keys, message
from ouroloop.study.config import StudyConfig
from ouroloop.study.method import MethodError

Config = TypeVar("Config", LoopConfig, StudyConfig)
Tree = dict[str, Any]

# What a study spans, and the field of the study that says it
_SPANNED = {
    "loop.seed": "seeds",
    "loop.cycle.kind": "cycles",
    "loop.cycle.synthetic_proportion": "synthetic_proportions",
    "loop.data.truth_label": "truth_labels",
    "loop.sampling.temperature": "temperatures",
}
# The letters that the paper and the README use for fields
_LETTERS = {
    "m": "data.num_examples",
    "λ": "cycle.synthetic_proportion",
    "lambda": "cycle.synthetic_proportion",
    "T": "sampling.temperature",
}
_USUAL = {
    "data": {"kind": LogicData.model_fields["kind"].default},
    "model": {key: ModelConfig.model_fields[key].default for key in ("kind", "model_type")},
    "cycle": {"kind": CycleConfig.model_fields["kind"].default},
}
"""What holds of a section that does not say its kind or type."""


def load_preset(preset: str, overrides: Sequence[str], kind: type[Config]) -> Config:
    """The preset of that name or path with `group.field=value` overrides applied.

    Raises:
        ConfigError: no such preset, not YAML, an unknown key, a value out of range.
    """
    tree, said = _read(preset)
    has_loop = "loop" in tree
    if has_loop != (kind is StudyConfig):
        command = "sweep" if has_loop else "run"
        raise ConfigError(f"{preset} is a {'study' if has_loop else 'loop'}: use `ouroloop {command} {preset}`")
    return _overridden(tree, overrides, kind, preset, said)


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration with overrides applied.

    Raises:
        ConfigError: an unknown key, a value out of range.
    """
    return _overridden(config.model_dump(mode="json"), overrides, type(config), "configuration", {})


def _overridden(tree: Tree, overrides: Sequence[str], kind: type[Config], name: str, said: Tree) -> Config:
    change, before = _changes(overrides, kind), _spanned_in(tree)
    whole = _merged(tree, change)
    try:
        config = kind.model_validate(whole)
    except ValidationError as error:
        raise ConfigError(f"{name}: {_one_line(error, kind, whole)}") from None
    if isinstance(config, StudyConfig):
        news = {key: value for key, value in _spanned_in(change).items() if value != before.get(key)}
        _refuse_unheard(config, said | news)
    return config


def is_study(preset: str) -> bool:
    """Whether the preset is of a study, and not of a loop."""
    return "loop" in _read(preset).tree


def load_any(preset: str, overrides: Sequence[str] = ()) -> LoopConfig | StudyConfig:
    """A preset of either kind, with overrides applied; see `load_preset`."""
    if is_study(preset):
        return load_preset(preset, overrides, StudyConfig)
    return load_preset(preset, overrides, LoopConfig)


def preset_name(preset: str, name: str | None = None) -> str:
    """What a preset's runs are kept under: `name` or, without one, what its file is called.

    Raises:
        ConfigError: it has characters that a store cannot search for, or too many.
    """
    called = re.sub(r"\.ya?ml$", "", Path(preset).name) if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", called):
        what = "a preset" if name is None else "what runs are kept under"
        raise ConfigError(f"{what} is named by up to 100 letters, digits, '_', '.' and '-', not {shown(called)}")
    return called


def current_key(key: str) -> str:
    """Today's form of a dotted key, which may still have a name from before 0.2.0."""
    section, dot, name = key.rpartition(".")
    return f"{section}{dot}{RENAMED.get(name, name)}"


def unknown_key(kind: type[BaseModel], key: str, also: Iterable[str] = (), dashes: str = "") -> str:
    """What is wrong with a key, which one is near it, and which there are; on the command line also the options."""
    options = list(also) if "." not in key else []
    section, inner = key.rpartition(".")[0], below(kind, key)
    here = ", ".join([*options, *inner])
    of_loop = _LETTERS.get(key, key)
    if key in _LETTERS or is_key(kind, f"loop.{of_loop}"):
        field = of_loop if kind is LoopConfig else _SPANNED.get(f"loop.{of_loop}", f"loop.{of_loop}")
        near = f" (did you mean {dashes}{field}?)"
    else:
        known = [*keys(kind), *(f"{section}.{name}" for name in inner if section)]
        near = did_you_mean(dashes + key, [*options, *(dashes + one for one in known)])
    what = "option" if dashes else "key"
    rest = f"; allowed here: {here}" if here else f": {shown(section)} has no fields"
    return f"unknown {what} {shown(dashes + key)}{near}{rest}"


class _Read(NamedTuple):
    tree: Tree
    said: Tree
    """By dotted key, what the study itself, not the loop that it is based on, says about what it spans."""


def _read(preset: str, beside: Path | None = None, seen: tuple[Path, ...] = ()) -> _Read:
    path = find(preset, beside)
    place = path.resolve()
    if place in seen:
        raise ConfigError(f"{path} is its own base: {' -> '.join(each.stem for each in (*seen, place))}")
    tree, seen = _with_new_names(read(path)), (*seen, place)

    def base_of(section: Tree) -> _Read:
        base = section.pop("base")
        if not isinstance(base, str):
            raise ConfigError(f"{path}: base: got {shown(base)}, allowed is the name of a preset")
        return _read(base, path.parent, seen)

    loop, said = tree.get("loop"), _spanned_in(tree)
    has_own_base = isinstance(loop, dict) and "base" in loop
    if isinstance(loop, dict) and has_own_base:
        tree["loop"] = _merged(base_of(loop).tree, loop)
    if "base" not in tree:
        return _Read(tree, said)
    below_it = base_of(tree)
    if has_own_base:
        below_it.tree.pop("loop", None)
    return _Read(_merged(below_it.tree, tree), below_it.said | said)


def _with_new_names(tree: Tree) -> Tree:
    """The tree with today's field names, under which fields are merged and looked up."""
    named: Tree = with_new_names(tree)
    inner = {key: value for key, value in named.items() if key in ("loop", "data") and isinstance(value, dict)}
    return named | {key: _with_new_names(value) for key, value in inner.items()}


def _spanned_in(tree: Tree) -> Tree:
    found: Tree = {}
    for key in _SPANNED:
        value: Any = tree
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[key] = value
    return found


def _refuse_unheard(config: StudyConfig, said: Tree) -> None:
    """Refuse values in a study's own loop, other than defaults, that are not among those which it spans and runs."""
    runs: dict[str, Sequence[Any]] = {
        "loop.seed": config.seeds,
        "loop.cycle.kind": config.cycles,
        "loop.cycle.synthetic_proportion": [each for kind in config.cycles for each in config.proportions(kind)],
        "loop.data.truth_label": config.truth_labels,
        "loop.sampling.temperature": config.temperatures,
    }
    usual = {field.key: field.default for field in fields(StudyConfig)}
    for key, value in said.items():
        if value != usual[key] and value not in runs[key]:
            name = _SPANNED[key]
            raise ConfigError(f"a study spans {key}, so {value} would not be run: write {name}: [{value}]")


def _changes(overrides: Sequence[str], kind: type[Config]) -> Tree:
    change: Tree = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {shown(override)}; overrides are written --group.field=value")
        key = current_key(key)
        if not is_key(kind, key):
            raise ConfigError(unknown_key(kind, key))
        if key in _SPANNED and kind is StudyConfig:
            raise ConfigError(f"a study spans {key}: write --{_SPANNED[key]}=[{value}]")
        said = _value(kind, key, value)
        for part in reversed(key.split(".")):
            said = {part: said}
        _set(change, (), _with_new_names(said))
    return change


def _value(kind: type[Config], key: str, text: str) -> Any:
    """What an override says: the text itself where a text is wanted and it is not quoted, as a path may be anything."""
    is_text = allowed(kind, key.split("."))[1] in ("text", "text, or null")
    if is_text and not re.match(r"""['"]|(null|Null|NULL|~|)$""", text):
        return text
    try:
        return parse(text)
    except NotYamlError:
        if is_text:
            return text
        raise ConfigError(
            f"cannot read the value of --{key}, {shown(text)}; it must be a number, a word or a list"
        ) from None


class _Whole(Tree):
    """A section that keeps nothing of what was there before; {} asks for one."""


def _set(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Set a value; a mapping sets each of its fields as the dotted key would."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _set(tree, (*path, key), inner)
        return
    for key in path[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = _Whole() if key in tree else {}
        tree = tree[key]
    tree[path[-1]] = _Whole() if value == {} else value


def _merged(base: Mapping[str, Any], change: Mapping[str, Any], path: str = "") -> Tree:
    """`base` with what `change` says; {} clears a section."""
    merged = dict(base)
    for key, value in change.items():
        inner = merged.get(key)
        if isinstance(value, dict) and value and isinstance(inner, str | int | float):
            raise ConfigError(f"unknown key '{path}{key}.{next(iter(value))}': {path}{key} has no fields")
        is_change = isinstance(value, dict) and value and not isinstance(value, _Whole)
        if is_change and isinstance(inner, dict):
            value = _merged(taken_over(inner, value, _USUAL.get(key, {})), value, f"{path}{key}.")
        merged[key] = value
    return merged


def _one_line(error: ValidationError, kind: type[BaseModel], tree: Tree) -> str:
    """The most telling of all that is wrong: what is unknown, else all that is missing, else the first wrong value."""
    errors = error.errors(include_url=False)
    lacking = [allowed(kind, each["loc"])[0] for each in errors if each["type"] == "missing"]
    missing = list(dict.fromkeys([*lacking, *_lacking_training(tree)]))
    for each in errors:
        if each["type"] in ("extra_forbidden", "invalid_key"):
            return _extra(kind, each)
    if missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    first = errors[0]
    where, words = allowed(kind, first["loc"])
    if isinstance(method := first.get("ctx", {}).get("error"), MethodError):
        return f"{method.where}: {_one_line(method.error, LoopConfig, {})}"
    if first["type"] == "value_error":
        return f"{where}: {message(first)}" if where else message(first)
    if first["type"] not in get_args(ErrorType):  # our own
        words = message(first)
    return f"{where}: got {shown(first['input'])}, allowed is {words}"


def _lacking_training(tree: Tree) -> list[str]:
    """The required fields of `train` where a network has no such section, which pydantic alone would not list."""
    prefix, loop = ("loop.", tree["loop"]) if "loop" in tree else ("", tree)
    model = loop.get("model") if isinstance(loop, dict) else None
    if (
        not isinstance(model, dict)
        or {**_USUAL["model"], **model}["kind"] != _USUAL["model"]["kind"]
        or loop.get("train") is not None
    ):
        return []
    return [f"{prefix}train.{name}" for name, field in TrainConfig.model_fields.items() if field.is_required()]


def _extra(kind: type[BaseModel], error: ErrorDetails) -> str:
    *path, name = error["loc"]
    section = allowed(kind, path)[0]
    key = f"{section}.{name}" if section else str(name)
    if is_key(kind, key):  # of another kind of section than the given one, which is the last that pydantic names
        return f"{key} does not go with {section}.kind={path[-1]}"
    return unknown_key(kind, key)
