"""Where presets lie, and how their YAML is read: fast enough for a help page, and as input that may be hostile.

Knows nothing about what a preset may say: `presets` does.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ouroloop.errors import ConfigError, did_you_mean, shown

HERE = Path("experiments")
_PACKAGE = Path(__file__).parent
# In a wheel beside the modules; an editable installation has them in its checkout
_SHIPPED = _PACKAGE / HERE if (_PACKAGE / HERE).is_dir() else _PACKAGE.parents[1] / HERE

_MAX_BYTES = 50_000  # the longest preset that ships has 1,200
_MAX_BRACKETS = 500  # the parser takes seconds for some thousands nested in one another
_MAX_VALUES = 10_000  # aliases counted as often as they are used
_MAX_DIGITS = 40


def find(preset: str, beside: Path | None = None) -> Path:
    """The file of a preset: by its path, else by its name in `experiments/` here, else among those that ship.

    What a preset in the folder `beside` builds upon is looked for there first.

    Raises:
        ConfigError: there is none.
    """
    file = f"{preset}.yaml"
    own = [beside / preset, beside / file] if beside else []
    try:
        for path in (*own, Path(preset), HERE / file, _SHIPPED / file):
            if path.is_file():
                return path
        if Path(preset).exists() and not Path(preset).is_dir():
            raise ConfigError(f"{preset} is not a regular file")
    except (OSError, ValueError) as error:  # a name that no file system takes
        raise ConfigError(f"no preset {shown(preset)}: {getattr(error, 'strerror', error)}") from None
    names = known_presets()
    there_are = ", ".join(names) or f"none in {HERE}/"
    raise ConfigError(f"no preset {shown(preset)}{did_you_mean(preset, names)}; there are: {there_are}")


def known_presets() -> list[str]:
    return sorted({path.stem for folder in (HERE, _SHIPPED) for path in folder.glob("*.yaml") if path.is_file()})


def described_presets(studies: bool, methods: bool = False) -> dict[str, str]:
    """The first sentence of each loop's description, or each study's, by name; one that cannot be read is left out.

    With `methods`, only the studies that compare methods where the true distribution is known, which text's is not.
    """

    @cache
    def tree(path: Path) -> dict[str, Any]:
        try:
            return read(path)
        except ConfigError:
            return {}

    def said(key: str, section: dict[str, Any], path: Path, seen: tuple[Path, ...] = ()) -> Any:
        base = section.get("base")
        if key in section or not isinstance(base, str) or path in seen[:-1]:  # a loop's base may be in its own file
            return section.get(key)
        try:
            below = find(base, path.parent)
        except ConfigError:
            return None
        return said(key, tree(below), below, (*seen, path))

    def has_board(path: Path) -> bool:
        loop = said("loop", tree(path), path)
        data = said("data", loop, path) if isinstance(loop, dict) else None
        is_text = isinstance(data, dict) and data.get("kind") == "text"
        return said("methods", tree(path), path) is not None and not is_text

    paths = {name: find(name) for name in known_presets()}
    return {
        name: re.split(r"(?<=\.)\s", str(tree(path).get("description", "")))[0]
        for name, path in paths.items()
        if tree(path) and (said("loop", tree(path), path) is not None) == studies and (has_board(path) or not methods)
    }


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a preset.

    Raises:
        ConfigError: it cannot be read, or is no YAML of a sane size.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} has more than {_MAX_BYTES:,} bytes, which no preset needs")
    try:
        tree = parse(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8, which every preset must be") from None
    except NotYamlError as error:
        raise ConfigError(f"{path} is not valid YAML{error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, as the other presets do")
    return tree


class NotYamlError(ValueError):
    """Says where and why, in words that follow "is not valid YAML"."""


def parse(text: str) -> Any:
    """The text read as YAML 1.2: `1e-5` is a number, `yes` and `1:30` are words, and no key may occur twice.

    Raises:
        NotYamlError: it is not YAML, or too much of it.
    """
    if len(text) > _MAX_BYTES:
        raise NotYamlError(": it is too long")
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise NotYamlError(f": it has more than {_MAX_BRACKETS} brackets")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - ours is the SafeLoader, and less
        if _num_values(value) > _MAX_VALUES:
            raise NotYamlError(f": it has more than {_MAX_VALUES:,} values")
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise NotYamlError(f"{line}: {error.problem}") from None
    except NotYamlError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError):  # `!!int x` and the like
        raise NotYamlError("") from None
    return value


def _num_values(value: Any) -> int:
    """How many values a tree has, counted to just above the most that is allowed: an alias may contain itself."""
    count, pending = 0, [value]
    while pending and count <= _MAX_VALUES:
        inner = pending.pop()
        count += 1
        if isinstance(inner, dict):
            pending += inner.values()
        elif isinstance(inner, list):
            pending += inner
    return count


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain words and numbers, and nothing else that a tag could name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    problem = f"{shown(key.value)} occurs twice, first in line {lines[key.value]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                lines[key.value] = line
        # Not SafeLoader's, which merges what `<<` names, over and over
        mapping: dict[Any, Any] = yaml.constructor.BaseConstructor.construct_mapping(self, node, deep)
        return mapping


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > _MAX_DIGITS:
        raise yaml.constructor.ConstructorError(None, None, f"a number of {len(text):,} digits", node.start_mark)
    return int(text, 0) if text[1:2] in ("x", "o") else int(text)


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "float", "str", "seq", "map")
}
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     "-+.0123456789"),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
