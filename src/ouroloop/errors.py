"""What a person can do wrong, in a module that imports none of ours: help and completion need nothing more."""

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import TextWrapper

# For what somebody else's error says. It cuts between words: half of an address would keep its password
_ONE_LINE = TextWrapper(200, max_lines=1, placeholder=" …", break_long_words=False, break_on_hyphens=False)


class ConfigError(ValueError):
    """One line for the person who wrote the preset or typed the command: what was given, what is allowed."""


def shown(value: object) -> str:
    """The value as Python writes it, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:45]}… ({len(text):,} characters)"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint to follow the name of something unknown; empty if nothing known is near it."""
    near = get_close_matches(given[:100], list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def reason(error: BaseException) -> str:
    """What somebody else's error says, to end a line of ours: its first line, and the next if that ends in a colon;
    its type if it says nothing.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines, 1) if not line.rstrip().endswith(":")), len(lines))
    return _ONE_LINE.fill(" ".join(" ".join(lines[:end]).split())) or type(error).__name__


def needs(what: str, library: str, extra: str) -> ConfigError:
    """The error for a missing library that only some users install."""
    return ConfigError(f"{what} needs {library}: pip install 'ouroloop[{extra}]'")
