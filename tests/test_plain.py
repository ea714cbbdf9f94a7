"""What somebody else wrote steers no terminal, turns no line, hides nothing, and is no Markdown."""

import re
from itertools import chain

import pytest

from ouroloop.plain import as_text, visible
from tests.conftest import REPOSITORY

PLACES = (range(0x3000), range(0xD700, 0xE100), range(0xFE00, 0x10000), range(0xE0000, 0xE0200))


def test_a_terminal_is_not_steered() -> None:
    assert visible("\x1b[31mred\x07\t\n\x7f\u202eevil\u2066 \x9b5 é 🐍 שלום") == (
        "␛[31mred␇␉␊␡<U+202E>evil<U+2066> <U+009B>5 é 🐍 שלום"
    )


@pytest.mark.parametrize("hidden", ["\u200b", "\ufeff", "\xad", "\u2062", "\ufffe", "\uffff", "\U000e0041"])
def test_what_is_not_to_be_seen_is_spelled_out(hidden: str) -> None:
    assert visible(f"a{hidden}b") == f"a<U+{ord(hidden):04X}>b"


def test_joiners_stay() -> None:
    """Persian and emoji are written with them."""
    assert visible("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"


def test_the_page_spells_out_the_same() -> None:
    script = (REPOSITORY / "src/ouroloop/report/page.js").read_text()
    found = re.search(r"const HIDDEN = /\((\[.*\])\)/u;", script)
    assert found is not None
    pattern = re.compile(re.sub(r"\\u\{(\w+)\}", lambda code: rf"\U{int(code[1], 16):08x}", found[1]))
    differ = [code for code in chain(*PLACES) if bool(pattern.match(chr(code))) != (visible(chr(code)) != chr(code))]
    assert differ == []


@pytest.mark.parametrize("text", ["<b>\x1b[31m\u202ex", "a\u200b`b`\n# c"])
def test_markdown_of_a_name_hides_nothing_either(text: str) -> None:
    shown = as_text(text)
    assert visible(shown) == shown
    assert "\\<U+20" in shown
