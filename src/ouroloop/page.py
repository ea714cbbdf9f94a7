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
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ouroloop.outcome import MOST_FREQUENT
from ouroloop.table import Table

_MAX_TEXT_CHARACTERS = 2_500_000  # of model text on a page, so that it stays under 5 MB


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


def shortened(expressions: Table) -> Table:
    """The table with as many texts of each generation as fit on a page, at least the most frequent one."""
    rank, text = expressions.columns.index("rank"), expressions.columns.index("expression")
    for most in range(MOST_FREQUENT, 1, -1):
        rows = [row for row in expressions.rows if row[rank] <= most]
        if sum(len(row[text]) for row in rows) <= _MAX_TEXT_CHARACTERS:
            return Table(expressions.columns, rows)
    return Table(expressions.columns, [row for row in expressions.rows if row[rank] == 1])


def _compact(table: Table) -> dict[str, Any]:
    """Five digits are more than a screen shows."""
    rows = [[float(f"{value:.5g}") if isinstance(value, float) else value for value in row] for row in table.rows]
    return {"columns": table.columns, "rows": rows}


def _json(data: Any) -> str:
    """JSON that is inert inside a script element, whatever its strings hold."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _part(name: str) -> str:
    return files("ouroloop").joinpath(name).read_text(encoding="utf-8")
