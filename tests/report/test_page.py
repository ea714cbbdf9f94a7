"""What goes wrong with a page: text that a model wrote becomes part of it, or it needs something it does not have."""

import base64
import gzip
import json
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from ouroloop.plain import visible
from ouroloop.report import panels
from ouroloop.report.captions import MISSING, notes
from ouroloop.report.figures import drawings
from ouroloop.report.page import Facts, page
from ouroloop.report.render import png
from ouroloop.report.results import Results
from ouroloop.report.tables import figure_tables, frame, loops

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
    "var(--nothing)",
    "', 1) || alert(1) || ('",
    "x\x01y",
    "\ufffe",
    "\u202ename\u200b",
]
TEXTS = ("loop", "generation", "rank", "count", "share", "verdict", "depth", "expression")
FACTS = Facts("study", "lead", "", "", {})
EMPTY = Results("study", None, [])
SQUARE = vl_convert.svg_to_png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')


def tables(**given: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {**figure_tables(EMPTY), "loops": loops(EMPTY), **given}


def expressions(texts: list[str]) -> pd.DataFrame:
    return frame(TEXTS, [("loop", 1, rank, 1, 0.5, "malformed", "", text) for rank, text in enumerate(texts, 1)])


def built(texts: list[str], title: str = "title", sentence: str = "sentence") -> str:
    facts = FACTS._replace(lead=sentence, progress=sentence, spent=sentence, configuration={title: sentence})
    return page(title, [sentence], facts, tables(expressions=expressions(texts)), {})


def embedded(html: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(read(html).scripts[0])))
    return data


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
    assert dirty.scripts[1:] == clean.scripts[1:]
    # Heading and setting; lead, progress, verdict, time and its value: as they were given, but for a typeset D_0
    assert sum(hostile in text for text in dirty.texts) >= 7


@cache
def drawing_of(name: str) -> str:
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    kept = frame(columns, [(name, t, 2, 0.9, 0.8, 1.0, None, None, 1.0) for t in range(3)])
    return drawings(tables(retention=kept))["retention"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_name_leaves_its_place_in_a_drawing(hostile: str) -> None:
    clean, dirty = (read(drawing_of(name)) for name in ("name", hostile))
    assert [tag for tag, _ in dirty.elements] == [tag for tag, _ in clean.elements]
    assert not any(key.startswith("on") or key == "href" for _, attributes in dirty.elements for key in attributes)
    assert visible(hostile) in dirty.texts  # as it is, but for what is hidden; a control character would end us


@pytest.mark.parametrize("name", ['my class="x" loop', "var(--s0)", '<a class="b">', 'role="img"'])
def test_a_name_that_looks_like_a_drawing_is_drawn_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawing_of(name)
    assert name in read(drawn).texts
    assert " class=" not in "".join(re.findall(r"<[^>]*>", drawn))
    given: list[str] = []
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda svg, scale: given.append(svg) or SQUARE)
    png(drawn)
    assert name in read(given[0]).texts
    assert "var(--" not in "".join(re.findall(r"<[^>]*>", given[0]))


@settings(max_examples=25)
@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert embedded(built([text]))["tables"]["expressions"]["rows"][0][-1] == text


def test_a_page_asks_for_nothing() -> None:
    html = built(["text"])
    for tag, attributes in read(html).elements:
        for key in ("src", "href", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), tag
    _, vega, own = read(html).scripts
    assert not re.search(
        r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|innerHTML|document\.write|\beval\(", html.replace(vega, "")
    )
    assert "ast: true" in own  # expressions are interpreted, so the policy need not allow them to be evaluated
    policy = next(
        attributes["content"] for tag, attributes in read(html).elements if tag == "meta" and "http-equiv" in attributes
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_a_picture_says_what_it_leaves_out() -> None:
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    kept = frame(columns, [(f"λ = {i}", t, 1, 0.9, 0.9, 0.9, None, None, None) for i in range(30) for t in range(3)])
    many = ("measure", "title", *columns[:-1], "real", "control")
    rows = [("mauve", "MAUVE", *row[:-1], None, None) for row in kept.itertuples(index=False)]
    heat = frame(("loop", "generation", "depth", "share"), [(f"s{i}", t, "1", 1.0) for i in range(7) for t in range(3)])
    pictures = {
        **drawings(tables(retention=kept)),
        **panels.drawing({"measures": frame(many, rows)}),
        **drawings({"depth": heat}, 3),
    }
    for name, said in {
        "retention": "24 of 30 settings",
        "measures": "24 of 30 settings",
        "depth": "3 of 7 loops",
    }.items():
        assert f"{said}, evenly chosen; all are in {name}.csv" in read(pictures[name]).texts
    few = kept[kept["cell"] != "λ = 0"].head(72)
    assert "evenly chosen" not in drawings(tables(retention=few))["retention"]


def test_a_long_study_still_fits() -> None:
    """36 loops of 400 generations: fewer texts, then fewer generations, but never without the last one."""
    text = "( not True ) " * 5
    rows = [(f"loop-{k}", t, rank, 1, 0.1 + t / 1e4, "True", 1, f"{text}{(9973 * k + 104729 * t + rank) ** 5:x}")
            for k in range(36) for t in range(401) for rank in (1, 2)]  # fmt: skip
    html = page("title", [], FACTS, tables(expressions=frame(TEXTS, rows)), {})
    kept = embedded(html)["tables"]["expressions"]["rows"]
    assert {row[0] for row in kept} == {f"loop-{k}" for k in range(36)}
    assert {0, 400} <= {row[1] for row in kept} <= set(range(401))
    assert embedded(html)["tables"]["expressions"]["total"] == len(rows) > len(kept)  # as the page says
    assert len(html) < 1_500_000
    assert (
        len(
            embedded(page("t", [], FACTS, tables(expressions=frame(TEXTS, rows[:20])), {}))["tables"]["expressions"][
                "rows"
            ]
        )
        == 20
    )


def test_a_figure_without_data_says_what_would_fill_it() -> None:
    html = built(["text"])
    for name in ("retention", "half_life", "unique", "composition", "depth"):
        assert MISSING[name] in notes(tables()).values()
    assert "This figure needs a generation with <code>diversity_retention</code>" in html


def test_a_caption_speaks_of_what_is_drawn() -> None:
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    lone = notes(tables(retention=frame(columns, [("a", 0, 1, 1.0, 1.0, 1.0, None, None, None)])))["retention"]
    assert "band" not in lone
    assert "paper" not in lone
    both = notes(tables(retention=frame(columns, [("a", 0, 3, 1.0, 1.0, 1.0, None, None, 1.0)])))["retention"]
    assert "band" in both
    assert "paper" in both


LIVES = ("cell", "loop", "cycle", "proportion", "seed", "half_life", "reached", "median", "paper")


def lives(*rows: tuple[float | None, int | None, int | None]) -> pd.DataFrame:
    """Of loops at these λ, with these half-lives, which are the medians too, and these of the paper."""
    return frame(LIVES, [(f"λ = {λ}", f"{λ}", "incremental", λ, "1", own, 9, own, paper) for λ, own, paper in rows])


@pytest.mark.parametrize(
    ("rows", "joins", "paper"),
    [
        ([(0.5, None, 8), (1.0, 3, 5)], False, "Dotted: the paper."),  # one median is a point
        ([(0.5, 7, None), (1.0, 3, None)], True, ""),
        ([(1.0, 3, 5)], False, "A dash: the paper."),
        ([(0.5, 7, None), (1.0, 3, 5)], True, "A dash: the paper."),
        ([(None, 3, 5)], False, ""),  # where there is no λ the paper has no mark
    ],
)
def test_a_caption_names_the_lines_and_marks_that_are_drawn(rows: list[Any], joins: bool, paper: str) -> None:
    given = tables(half_life=lives(*rows))
    said, drawn = notes(given)["half_life"], drawings(given)["half_life"]
    assert ("joins medians" in said) is joins
    assert said.partition("△: a loop that ended before it had lost half.")[2 if "△" in said else 0].endswith(paper)
    assert ("the paper" in said) is ("the paper" in drawn) is bool(paper)  # there in the legend
    paths = [attributes for tag, attributes in read(drawn).elements if tag == "path"]
    dots = [path for path in paths if path.get("stroke-dasharray") == "1,3.5" and "L" in (path["d"] or "")]
    assert bool(dots) is paper.startswith("Dotted")


KEPT = ("cell", "cycle", "proportion", "generation", "seeds", "mean", "interval_low", "interval_high", "paper")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0.5, 9, 0.4, None), (1.0, 9, 0.1, None)], "at t = 9, against the synthetic proportion λ. Mark: mean over "
         "seeds; bar: its 95 % interval."),
        ([(0.5, 9, None, None), (1.0, 7, None, None)], "where each setting ends, at t = 7 to 9, against the synthetic "
         "proportion λ. One mark per setting."),
        ([(0.5, 9, None, 0.3), (None, 9, None, 0.2)], "at t = 9, against the synthetic proportion λ. One mark per "
         "setting. Cycles without λ are at “no λ”. A dash: the paper."),
        ([(0.5, 9, None, 0.3), (1.0, 9, None, 0.2)], "at t = 9, against the synthetic proportion λ. One mark per "
         "setting. Dotted: the paper."),
    ],
)  # fmt: skip
def test_what_is_left_is_drawn_by_proportion(rows: list[Any], said: str) -> None:
    table = frame(KEPT, [(f"λ = {λ}", "incremental", λ, t, 3, 0.5, low, low and 0.7, paper)
                         for λ, t, low, paper in rows])  # fmt: skip
    given = tables(kept=table)
    assert notes(given)["kept"] == f"Diversity kept {said}"
    paths = [attributes for tag, attributes in read(drawings(given)["kept"]).elements if tag in ("path", "line")]
    bars = [path for path in paths if path.get("opacity") == "0.5"]
    assert len(bars) == sum(low is not None for *_, low, _ in rows)
    dots = [path for path in paths if (path.get("stroke-dasharray"), path.get("stroke-width")) == ("1,3.5", "1.9")]
    assert bool(dots) is ("Dotted" in said)


def test_the_paper_is_not_said_to_be_one_run_where_it_is_the_mean_of_five() -> None:
    """Figures 8 and 9: those that start from False or from both."""
    columns = ("cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low", "interval_high", "paper")
    kept = frame(columns, [("truth_label = false_only", t, 5, 0.9, 0.8, 1.0, 0.8, 1.0, 0.9) for t in range(3)])
    assert "a single run; the mean of five where D_0 is not all True" in notes(tables(retention=kept))["retention"]
    said = notes(tables(retention=kept.assign(cell="λ = 1")))["retention"]
    assert said.endswith("a single run.")
