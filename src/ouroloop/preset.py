"""Presets: the YAML files in `experiments/`, and what the command line changes of them.

A preset may name a `base`, another preset that it changes; overrides from the command line change it
further (`--cycle.kind=incremental`). What is wrong ends in one `ConfigError` of one line.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ouroloop.config import ConfigError, LoopConfig, StudyConfig

PRESET_FOLDER = Path("experiments")

Config = TypeVar("Config", LoopConfig, StudyConfig)

# What a study spans, and how it is said there
_SPANNED = {
    "loop.seed": "seeds",
    "loop.cycle.kind": "cycles",
    "loop.cycle.synthetic_proportion": "synthetic_proportions",
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
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {override!r}; overrides are written --group.field=value")
        if key in _SPANNED:
            raise ConfigError(f"a study spans {key}: write --{_SPANNED[key]}=[{value}]")
        try:
            _set(tree, key.split("."), yaml.safe_load(value))
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"cannot read the value of --{override}; it must be a number, a word or a list") from None
    try:
        return kind.model_validate(tree)
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
    if isinstance(tree.get("loop"), dict):
        tree["loop"] = _with_base(tree["loop"], seen)
    base = tree.pop("base", None)
    return tree if base is None else _merged(_read(str(base), seen), tree)


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"unknown key {'.'.join(path)!r}: {key} has no fields")
        tree = inner
    tree[path[-1]] = value


def _one_line(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
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
        inner = kind.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        kind = inner
    return list(kind.model_fields)
