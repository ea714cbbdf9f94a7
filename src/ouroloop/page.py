"""The report as one HTML page that needs nothing else: no network, no other file.

Model text enters it in two ways only: as JSON in which no tag can end or begin, from where the script
puts it into text nodes, and through `html.escape`. The page's own policy lets no other script run, and
no request leave.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ouroloop.outcome import MOST_FREQUENT
from ouroloop.table import Table

# Of each table, so that all together stay under 5 MB
_MAX_TEXT, _MAX_NUMBERS = 2_100_000, 680_000


def page(title: str, sentences: list[str], facts: Mapping[str, Any], tables: Mapping[str, Table]) -> str:
    """The page; `facts` are what is known besides the tables: kind, lead, progress, spent, configuration."""
    script = _part("page.js")
    compact = {name: _compact(table) for name, table in tables.items()}
    filled = {
        "TITLE": html.escape(title),
        "VERDICT": "\n  ".join(f"<p>{_typeset(sentence)}</p>" for sentence in sentences),
        "SCRIPT-HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "STYLE": _part("page.css"),
        "SCRIPT": script,
        "DATA": _json({"facts": facts, "tables": compact}),
    }
    # One pass: what is filled in is not looked at again
    return re.sub(r"{{([A-Z-]+)}}", lambda gap: filled[gap[1]], _part("page.html"))


def _typeset(sentence: str) -> str:
    return html.escape(sentence).replace("D_0", "D<sub>0</sub>").replace(" = ", "\u00a0=\u00a0")


def fitted(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables as far as they fit on a page: fewer texts of each generation, then fewer generations."""
    return {name: _fitted(table) for name, table in tables.items()}


def _fitted(table: Table) -> Table:
    if "generation" not in table.columns:
        return table
    generation = table.columns.index("generation")
    rows, last, every = table.rows, max((row[generation] for row in table.rows), default=0), 1
    limit = _MAX_TEXT if "rank" in table.columns else _MAX_NUMBERS
    if "rank" in table.columns:
        rank, most = table.columns.index("rank"), MOST_FREQUENT
        while most > 1 and _size(rows) > limit:
            most -= 1
            rows = [row for row in rows if row[rank] <= most]
    while _size(rows) > limit and every < last:
        every *= 2
        rows = [row for row in rows if row[generation] % every == 0 or row[generation] == last]
    return Table(table.columns, rows)


def _size(rows: Sequence[tuple[Any, ...]]) -> int:
    """Of the rows as JSON, about: a number takes six characters."""
    return sum(len(value) + 3 if isinstance(value, str) else 6 for row in rows for value in row)


def _compact(table: Table) -> dict[str, Any]:
    """Five digits are more than a screen shows."""
    rows = [[float(f"{value:.5g}") if isinstance(value, float) else value for value in row] for row in table.rows]
    return {"columns": table.columns, "rows": rows}


def _json(data: Any) -> str:
    """JSON that is inert inside a script element, whatever its strings hold."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _part(name: str) -> str:
    return files("ouroloop").joinpath(name).read_text(encoding="utf-8")
