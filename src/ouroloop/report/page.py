"""The report as one HTML page that needs nothing else: no network, no other file.

Its figures are in it as SVG; where scripts may run, Vega draws them again, for the reader to ask and to switch. Text of
a model, a name or a tag enters it in two ways only: as compressed JSON, which the script puts into text nodes, and
through `html.escape`. The page's own policy allows no other script to run, no text to be evaluated as one (Vega
interprets its expressions), and no request to leave.
"""

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from ouroloop.record.history import MOST_FREQUENT
from ouroloop.report import figures
from ouroloop.report.captions import TITLES, notes
from ouroloop.report.layers import names_of
from ouroloop.report.leaderboard import times, trained
from ouroloop.report.looks import DAY, DOTTED, PAPER, PARTS, look
from ouroloop.report.methods import METHODS
from ouroloop.report.panels import measures
from ouroloop.report.render import spec
from ouroloop.testbed.base import as_words, is_share

MOST_DATA = 300_000
"""The most compressed data, in bytes; beyond it, data are thinned out on the page, and whole in the CSV files."""

_MOST_TEXTS = 20_000  # rows of a table; one with more is thinned out before it is compressed at all

_PAIR = ("half_life", "unique")


class Facts(NamedTuple):
    """What is known besides the tables."""

    kind: str
    """Study or loop."""
    lead: str
    progress: str
    """Empty when all is finished."""
    spent: str
    configuration: Mapping[str, str]
    words: Mapping[str, str] = MappingProxyType({"correctness": "True", "error_rate": "malformed"})
    """Measure -> its word, for those of the testbed that the table of loops shows."""
    definitions: Mapping[str, str] = MappingProxyType({})
    """Title of a measure with a panel of its own -> how it is computed."""


def page(
    title: str,
    sentences: Sequence[str],
    facts: Facts,
    tables: Mapping[str, pd.DataFrame],
    drawings: Mapping[str, str],
) -> str:
    """The page. `tables` holds those of the figures and `loops`; `drawings`, an SVG of each figure that has data."""
    script, vega = _part("page.js"), _vega()
    said = notes(tables)
    below = {"measures": _definitions(facts.definitions)}
    if len(tables.get("board", ())):
        below["board"] = _standings(tables["board"])
    sections = {
        name: _section(name, said[name], tables[name], drawings.get(name, ""), below.get(name, "")) for name in said
    }
    of_methods = [sections.pop(name) for name in METHODS if name in sections]
    pair = f'<div class="pair">{"".join(sections.pop(name) for name in _PAIR)}</div>'
    first, *others = sections.values()
    filled = {
        "TITLE": html.escape(title),
        "KIND": facts.kind,
        "LEAD": _typeset(facts.lead),
        "PROGRESS": f'<p class="progress">{html.escape(facts.progress)}</p>' if facts.progress else "",
        "VERDICT": "\n  ".join(f"<p>{_typeset(sentence)}</p>" for sentence in sentences),
        "FIGURES": "\n".join([*of_methods, first, pair, *others]),
        "LOOPS": _loops(tables["loops"], facts.words),
        "SPENT": html.escape(facts.spent),
        "CONFIGURATION": "".join(_setting(*item) for item in facts.configuration.items()),
        "VEGA-HASH": _digest(vega),
        "SCRIPT-HASH": _digest(script),
        "STYLE": _style(),
        "VEGA": vega,
        "SCRIPT": script,
        "DATA": base64.b64encode(_fitted(tables)).decode(),
    }
    # One pass: what was filled in is not searched again
    return re.sub(r"{{([A-Z-]+)}}", lambda gap: filled[gap[1]], _part("page.html"))


def _section(name: str, note: str, table: pd.DataFrame, drawing: str, below: str) -> str:
    heading = f'<h2>{TITLES[name]}</h2>\n  <p class="about">{_typeset(note)}</p>'
    if table.empty:
        heading = heading.replace('class="about"', 'class="absent"')
        return f'<section class="figure" id="{name}">\n  {heading}\n</section>'
    without = (
        "" if drawing else '<noscript><p class="about">Listing texts needs scripts; the CSV has them.</p></noscript>'
    )
    return (
        f'<section class="figure" id="{name}">\n  {heading}\n'
        f'  <div class="drawn" role="img" tabindex="0" aria-label="{TITLES[name]}">{drawing}</div>{without}\n'
        f"{below}</section>"
    )


def _definitions(definitions: Mapping[str, str]) -> str:
    if not definitions:
        return ""
    terms = "".join(f"<dt>{html.escape(title)}</dt><dd>{_typeset(said)}</dd>" for title, said in definitions.items())
    summary = "How each is computed, and which way is worse"
    return f"<details><summary>{summary}</summary><dl class=terms>{terms}</dl></details>\n"


def _typeset(sentence: str) -> str:
    escaped = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(sentence))
    return escaped.replace("D_0", "D<sub>0</sub>").replace(" = ", "\u00a0=\u00a0")


_STANDINGS = {
    "method": "method", "rank": "rank", "knows": "may know", "seeds": "seeds", "coverage": "coverage",
    "coverage_area": "area", "kl_forward_nats": "KL, nats", "diversity_retention": "kept",
    "grammar_membership": "in grammar", "unique_fraction": "distinct", "keeps": "keeps", "beats": "over",
    "num_drawn": "drawn", "train_seconds": "trained",
}  # fmt: skip


def _standings(table: pd.DataFrame) -> str:
    """The board with intervals and shared ranks; under a method its cycle, which the note says where there is one."""
    kinds = {key: "" if key in ("rank", "method", "knows") else " class=number" for key in _STANDINGS}
    head = "".join(f"<th scope=col{kinds[key]}>{name}</th>" for key, name in _STANDINGS.items())
    has_cycles, body = table["cycle"].nunique() > 1, ""
    for row in table.to_dict("records"):
        cells = {key: _standing(key, row) for key in _STANDINGS}
        cells["method"] += f" <small>{row['cycle'].replace('_', ' ')}</small>" if has_cycles else ""
        told = (f"<td{kinds[key]} data-is='{_STANDINGS[key]}'>{cell}</td>" for key, cell in cells.items())
        body += f"<tr>{''.join(told)}</tr>"
    inner = f"<table class='cards board'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="The board">{inner}</div>\n'


def _standing(key: str, row: Mapping[str, Any]) -> str:
    value = row[key]
    if key == "seeds":
        shown = f"{value}" if value == row["wanted"] else f"{value} of {row['wanted']}"
        shown += "*" * bool(row["filed"]) + (f", {row['failed']} failed" if row["failed"] else "")
        return html.escape(row["reason"]) or shown
    if value is None or (key == "beats" and row["rank"] is None):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "num_drawn":
        return times(value)
    if key == "train_seconds":
        shown, spread = trained(row)
        return f"<span>{shown} <small>{spread}</small></span>"
    if not isinstance(value, float):
        return html.escape(str(value))
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if low is None or high is None:
        return _figure(value)
    return f"<span>{_figure(value)} <small>[{_figure(low)}, {_figure(high)}]</small></span>"


def _figure(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _loops(table: pd.DataFrame, words: Mapping[str, str]) -> str:
    names = {
        "loop": "loop",
        "state": "state",
        "generation": "generation",
        "diversity_retention": "diversity kept",
        **words,
        "num_unique": "distinct",
        "half_life": "half gone at",
        "minutes": "minutes",
    }
    head = "".join(
        f"<th scope=col{'' if key in ('loop', 'state') else ' class=number'}>{html.escape(name)}</th>"
        for key, name in names.items()
    )
    rows = table.to_dict("records")
    body = "".join(f"<tr>{''.join(_cell(key, name, row, words) for key, name in names.items())}</tr>" for row in rows)
    return f"<table class=cards><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(key: str, name: str, row: Mapping[str, Any], words: Mapping[str, str]) -> str:
    value = row[key]
    if key == "half_life" and value is None and row["generation"] and row["diversity_retention"] is not None:
        shown = f"&gt; {row['generation']}"
    elif value is None:
        shown = "–"
    elif key == "diversity_retention" or key in words:
        shown = percent(value) if is_share(key) else as_words(key, value)
    else:
        shown = f"{value:,.0f}" if key == "num_unique" else html.escape(str(value))
    kind = "" if key in ("loop", "state") else " class=number"
    return f'<td{kind} data-is="{html.escape(name)}">{shown}</td>'


def percent(share: float) -> str:
    value = 100 * share
    return f"{value:.1f}%" if value == 0 or value >= 10 else f"{value:.2f}%" if value >= 0.1 else f"{value:.1g}%"


def _setting(key: str, value: str) -> str:
    style = " class=long" if len(value) > 24 else ""
    return f"<div{style}><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>"


# ---- what the script gets ---------------------------------------------------------------------------------------


def _fitted(tables: Mapping[str, pd.DataFrame]) -> bytes:
    """Data and definitions, compressed, with fewer texts of each generation, then fewer generations, until they fit."""
    specs, most, every = _specs(tables), MOST_FREQUENT, 1
    num_texts = max(len(tables[name]) for name in ("expressions", "texts") if name in tables)
    while most > 1 and num_texts * most > _MOST_TEXTS * MOST_FREQUENT:
        most -= 1  # to compress everything again and again would take longer than all the rest
    while max(map(len, tables.values())) / every * most / MOST_FREQUENT > _MOST_TEXTS and every < 1_000:
        every *= 2
    packed = _packed(tables, specs, most, every)
    while len(packed) > MOST_DATA and every < 1_000:
        most, every = (max(1, most - 3), every) if most > 1 else (most, 2 * every)
        packed = _packed(tables, specs, most, every)
    return packed


def _thinned(table: pd.DataFrame, most: int, every: int) -> pd.DataFrame:
    if {"rank", "count"} <= set(table.columns) and most < MOST_FREQUENT:
        table = table[table["rank"] <= most]
    is_by_generation = "generation" in table.columns and not {"run", "proportion"} & set(table.columns)
    if every > 1 and is_by_generation and len(table):
        table = table[(table["generation"] % every == 0) | (table["generation"] == table["generation"].max())]
    return table


def _specs(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    scaled = {"retention": figures.retention, "unique": figures.unique}
    specs: dict[str, Any] = dict(figures.figures({name: tables[name] for name in tables.keys() - scaled}))
    if "composition" in specs:
        few, said = figures.fewer("composition", tables["composition"], "cell")
        shown = {"cells": names_of(few, "cell"), "said": said}
        specs["composition"]["usermeta"] = shown  # Vega leaves it alone: which panels the script makes
    if len(tables.get("measures", ())):
        specs["measures"] = spec(measures(tables["measures"], True))
    for name, draw in scaled.items():
        if len(tables[name]):
            specs[name] = {scale: spec(draw(tables[name], True, scale == "log")) for scale in ("linear", "log")}
    return specs


def _packed(tables: Mapping[str, pd.DataFrame], specs: Mapping[str, Any], most: int, every: int) -> bytes:
    columns = {}
    for name in (name for name in TITLES if name in tables):
        table = figures.rows(name, _thinned(tables[name], most, every))
        columns[name] = {"columns": list(table.columns), "rows": _digits(table), "total": len(tables[name])}
    num_looks = max(table["cell"].nunique() for table in tables.values() if "cell" in table.columns)
    given = {
        "tables": columns,
        "specs": specs,
        "looks": [look(i)._asdict() for i in range(num_looks)],
        "paper": {"name": PAPER, "dash": DOTTED},
        "parts": PARTS,
    }
    text = json.dumps(given, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), 6, mtime=0)


def _digits(table: pd.DataFrame) -> list[list[Any]]:
    """A table's rows, numbers rounded to five digits: more than a screen shows."""
    rows = table.to_numpy(dtype=object).tolist()
    return [[float(f"{value:.5g}") if isinstance(value, float) else value for value in row] for row in rows]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _style() -> str:
    day = " ".join(f"--{name}: {color};" for name, color in DAY.items())
    return f":root {{ {day} }}\n{_part('page.css')}"


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed, as `vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed")` makes them."""
    packed = files("ouroloop.report").joinpath("vega.js.gz").read_bytes()
    return f"{{{gzip.decompress(packed).decode()}}}"  # a block: it keeps its names to itself


def _part(name: str) -> str:
    return files("ouroloop.report").joinpath(name).read_text(encoding="utf-8")
