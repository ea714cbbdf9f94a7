"""What goes wrong with a page: text that a model wrote becomes part of it, or it needs something it does not have."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.report.page import fitted, page
from ouroloop.report.tables import Table

HOSTILE = [
    "<script>alert(1)</script>",
    "</script>",
    "<!--",
    "]]>",
    "{{SCRIPT}}",
    "{{TITLE}}",
    "\u2028",
    "&lt;b&gt;",
    "'\"`",
]
COLUMNS = ("loop", "generation", "rank", "count", "share", "verdict", "depth", "expression")


def expressions(texts: list[str]) -> Table:
    return Table(COLUMNS, [("loop", 1, rank, 1, 0.5, "malformed", "", text) for rank, text in enumerate(texts, 1)])


def built(texts: list[str], title: str = "title", sentence: str = "sentence") -> str:
    return page(title, [sentence], {"kind": "study"}, {"expressions": expressions(texts)})


class Reader(HTMLParser):
    """The elements of a page, and the text inside each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_leaves_its_place(hostile: str) -> None:
    clean, dirty = read(built(["text"])), read(built([hostile], title=hostile, sentence=hostile))
    assert [tag for tag, _ in dirty.elements] == [tag for tag, _ in clean.elements]
    assert dirty.scripts[1] == clean.scripts[1]
    assert dirty.texts.count(hostile) == 2  # heading and sentence, as they were given
    assert json.loads(dirty.scripts[0])["tables"]["expressions"]["rows"][0][-1] == hostile


@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    data: Any = json.loads(read(built([text])).scripts[0])
    assert data["tables"]["expressions"]["rows"][0][-1] == text


def test_a_page_asks_for_nothing() -> None:
    html = built(["text"])
    for tag, attributes in read(html).elements:
        for key in ("src", "href", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), tag
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|innerHTML|document\.write|\beval\(", html)
    assert "default-src 'none'" in html


def test_a_long_study_still_fits() -> None:
    """36 loops of 400 generations: fewer texts, then fewer generations, but never without the last one."""
    text = "( not True ) " * 15
    rows = [(f"loop-{k}", t, rank, 1, 0.1, "True", 1, text) for k in range(36) for t in range(401) for rank in (1, 2)]
    kept = fitted({"expressions": Table(COLUMNS, rows)})
    assert {row[2] for row in kept["expressions"].rows} == {1}
    assert {row[0] for row in kept["expressions"].rows} == {f"loop-{k}" for k in range(36)}
    assert {0, 400} <= {row[1] for row in kept["expressions"].rows} < set(range(401))
    assert len(page("title", [], {}, kept)) < 3_000_000
    few = {"expressions": Table(COLUMNS, rows[:20])}
    assert fitted(few) == few
