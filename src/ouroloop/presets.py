"""Presets: the YAML files in `experiments/`, and what the command line changes of them.

A preset may name a `base`, another preset that it changes; overrides from the command line change it
further (`--cycle.kind=incremental`). What is wrong ends in one `ConfigError` of one line.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ouroloop.config import ConfigError, EmpiricalConfig, LoopConfig, ModelConfig
from ouroloop.study.config import StudyConfig

PRESET_FOLDER = Path("experiments")

Config = TypeVar("Config", LoopConfig, StudyConfig)

# What a study spans, and how it is said there
_SPANNED = {
    "loop.seed": "seeds",
    "loop.cycle.kind": "cycles",
    "loop.cycle.synthetic_proportion": "synthetic_proportions",
    "loop.data.initialisation": "initialisations",
    "loop.sampling.temperature": "temperatures",
}


def load_preset(preset: str, overrides: Sequence[str], kind: type[Config]) -> Config:
    """The preset of that name or path with `group.field=value` overrides applied.

    Raises:
        ConfigError: no such preset, not YAML, an unknown key, a value out of range.
    """
    tree = _read(preset)
    is_study = "loop" in tree
    if is_study != (kind is StudyConfig):
        command = "sweep" if is_study else "run"
        raise ConfigError(f"{preset} is a {'study' if is_study else 'loop'}: use `ouroloop {command} {preset}`")
    change: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {override!r}; overrides are written --group.field=value")
        if key in _SPANNED:
            raise ConfigError(f"a study spans {key}: write --{_SPANNED[key]}=[{value}]")
        try:
            _set(change, key.split("."), yaml.safe_load(value))
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"cannot read the value of --{override}; it must be a number, a word or a list") from None
    try:
        return kind.model_validate(_merged(tree, change))
    except ValidationError as error:
        raise ConfigError(f"{preset}: {_one_line(error, kind)}") from None


def preset_name(preset: str) -> str:
    """The name under which a preset's runs are kept.

    Raises:
        ConfigError: it has characters that a store cannot search for.
    """
    name = Path(preset).stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"a preset is named by letters, digits, '_', '.' and '-', not {name!r}")
    return name


def _read(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(preset)
    if not path.suffix:
        path = PRESET_FOLDER / f"{preset}.yaml"
    if preset in seen:
        raise ConfigError(f"{path} is its own base: {' -> '.join((*seen, preset))}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in PRESET_FOLDER.glob("*.yaml"))) or f"none in {PRESET_FOLDER}/"
        raise ConfigError(f"no preset {preset!r} ({path}); there are: {known}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, as the other presets do")
    return _with_base(tree, (*seen, preset))


def _with_base(tree: dict[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    loop = tree.get("loop")
    has_own_base = isinstance(loop, dict) and "base" in loop
    if isinstance(loop, dict):
        tree["loop"] = _with_base(loop, seen)
    base = tree.pop("base", None)
    if base is None:
        return tree
    merged = _merged(_read(str(base), seen), tree)
    return merged | {"loop": tree["loop"]} if has_own_base else merged


def _merged(base: Mapping[str, Any], change: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """`base` with what `change` says; a section of another kind takes nothing over, its fields being others."""
    merged = dict(base)
    for key, value in change.items():
        inner = merged.get(key)
        if isinstance(value, dict) and isinstance(inner, str | int | float):
            raise ConfigError(f"unknown key '{path}{key}.{next(iter(value))}': {path}{key} has no fields")
        if isinstance(value, dict) and isinstance(inner, dict) and value.get("kind") in (None, inner.get("kind")):
            value = _merged(inner, value, f"{path}{key}.")
        merged[key] = value
    return merged


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"unknown key {'.'.join(path)!r}: {key} has no fields")
        tree = inner
    tree[path[-1]] = value


# What pydantic names in the path of an error when a field may be one of several things
_KINDS: dict[str | int, type[BaseModel]] = {"transformers": ModelConfig, "empirical": EmpiricalConfig}
_TAGS = {*_KINDS, "all", "each"}


def _one_line(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in _TAGS)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; allowed here: {', '.join(_fields_at(kind, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{where} is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: got {first['input']!r}, allowed is {message}"


def _fields_at(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for part in path:
        if part in _KINDS:
            kind = _KINDS[part]
            continue
        annotation = kind.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]  # a section, or a section or None
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), kind)
    return list(kind.model_fields)
