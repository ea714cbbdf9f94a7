"""English that is on every machine this program runs on: the sentences of its dependencies' docstrings.

Read from the sources by `ast`; nothing is imported. A library's sentences are kept in the user's cache, by version.
"""

import ast
import gzip
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from ouroloop.errors import ConfigError

NAME = "docstrings"
LIBRARIES = ("altair", "matplotlib", "mlflow", "networkx", "numpy", "optuna", "pandas", "pydantic", "pytorch-lightning",
             "rich", "scikit-learn", "scipy", "sqlalchemy", "sympy")  # fmt: skip
"""Dependencies, direct or not, that document themselves at length. docstrings:NAME,NAME reads only those named."""

SHORTEST, LONGEST = 6, 40
"""Fewest and most words of a sentence."""

_RULES = 1  # version of the rules for what a sentence is: a change makes cached sentences stale
_PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"()`/_*%=<>+.!?-]*[.!?]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[,;:.!?]?")
_HEADING = re.compile(r"^\s*(\w[\w ]*\n\s*[-=~^]{3,}|(Args|Arguments|Parameters|Returns|Raises|Yields|Notes?):)\s*")
_END = re.compile(r"(?<=[a-z)`'\"][.!?])\s+(?=[A-Z])")


def sentences(libraries: Sequence[str]) -> Iterator[str]:
    """Every distinct sentence of each library, in the order of its files.

    Raises:
        ConfigError: one of them is not installed.
    """
    for name in libraries:
        try:
            yield from _cached(distribution(name))
        except PackageNotFoundError:
            raise ConfigError(f"data.path {NAME}: the library {name!r} is not installed") from None


def libraries_of(path: str) -> Sequence[str] | None:
    """The libraries that `docstrings` or `docstrings:NAME,NAME` stands for; None for any other path."""
    kind, _, names = path.partition(":")
    if kind != NAME:
        return None
    return [name.strip() for name in names.split(",") if name.strip()] or LIBRARIES


def versions(libraries: Sequence[str]) -> tuple[str, ...]:
    """The versions, which decide what the libraries say; one that is not installed is left out."""
    found = []
    for name in libraries:
        with suppress(PackageNotFoundError):
            found.append(f"{name}-{distribution(name).version}")
    return tuple(found)


def _cached(library: Distribution) -> list[str]:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "ouroloop" / NAME / f"{library.name}-{library.version}-{_RULES}.txt.gz"
    try:
        return gzip.decompress(path.read_bytes()).decode().split("\n")
    except (OSError, EOFError, ValueError):
        found = list(dict.fromkeys(_read(library)))
    with suppress(OSError):  # a cache that cannot be written only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            aside.write_bytes(gzip.compress("\n".join(found).encode(), mtime=0))
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return found


def _read(library: Distribution) -> Iterator[str]:
    for file in sorted(library.files or (), key=str):
        if file.suffix == ".py" and "tests" not in file.parts:
            with suppress(OSError, SyntaxError, ValueError):
                yield from of_source(Path(str(library.locate_file(file))).read_bytes())


def of_source(source: bytes) -> Iterator[str]:
    """The sentences of all docstrings of a module, paragraph by paragraph.

    Raises:
        SyntaxError: the module is not valid in this version of Python.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                yield from _prose(" ".join(_HEADING.sub("", paragraph).split()))


def _prose(paragraph: str) -> Iterator[str]:
    """Its sentences that are English: no code, no markup, nearly all of it words."""
    for sentence in _END.split(paragraph):
        words = sentence.split(" ")
        if SHORTEST <= len(words) <= LONGEST and _PLAIN.fullmatch(sentence):
            plain = sum(_WORD.fullmatch(word) is not None for word in words)
            if plain >= 0.9 * len(words):
                yield sentence
