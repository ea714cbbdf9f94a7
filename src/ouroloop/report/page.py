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
from pathlib import Path
from typing import Any

import yaml

from ouroloop.console import duration
from ouroloop.record.track import Store
from ouroloop.report.figures import pictures
from ouroloop.report.findings import findings_json, headline, progress
from ouroloop.report.results import MOST_FREQUENT, Outcome, read_outcome
from ouroloop.report.tables import Table, figure_tables, loops, metrics
from ouroloop.science.cycle import DatasetError
from ouroloop.study.trials import RETENTION

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
    return files("ouroloop.report").joinpath(name).read_text(encoding="utf-8")


def write_report(store: Store, name: str, folder: Path) -> Path:
    """Writes the report of a study or loop into `folder` and its run, and returns the page.

    `report.html` needs no other file. Beside it: a PNG for each figure and a CSV for its data,
    `loops.csv`, `metrics.csv` (everything that was measured), `findings.json` and `configuration.yaml`.

    Raises:
        ConfigError: no study or loop has this name.
    """
    outcome = read_outcome(store, name)
    figures = figure_tables(outcome)
    sentences = [*headline(outcome), *_answer(outcome)]
    content = page(name, sentences, _facts(outcome), fitted({**figures, "loops": loops(outcome)}))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(content, encoding="utf-8")
    for table_name, table in {**figures, "loops": loops(outcome), "metrics": metrics(outcome)}.items():
        table.write(folder / f"{table_name}.csv")
    (folder / "findings.json").write_text(findings_json(outcome), encoding="utf-8")
    pngs = {f"{picture_name}.png": png for picture_name, png in pictures(figures).items()}
    for file_name, png in pngs.items():
        (folder / file_name).write_bytes(png)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(_configuration(outcome), sort_keys=False))
    _log(outcome, {path.name: content.encode()} | pngs)
    return path


def _answer(outcome: Outcome) -> list[str]:
    """What the sweep recorded of its kind: the safe proportions, λ* or the front; nothing before it ended."""
    try:
        found = json.loads(outcome.study.read_text("answer.json")) if outcome.study else {"answer": []}
        return [str(line) for line in found["answer"]]
    except (DatasetError, ValueError, KeyError):
        return []


def _log(outcome: Outcome, files: Mapping[str, bytes]) -> None:
    """The page and the pictures as artifacts of the study's run, or of the lone loop's; the study says its finding."""
    lone = outcome.loops[0].run if len(outcome.loops) == 1 else None
    run = outcome.study or lone
    if run is not None:
        for name, content in files.items():
            run.log_bytes(f"report/{name}", content)
    if outcome.study:
        outcome.study.describe(_description(outcome))


def _description(outcome: Outcome) -> str:
    """Markdown. Names and numbers only: no text of a model is in it."""
    columns = ("loop", "state", "generation", RETENTION, "correctness", "error_rate", "num_unique", "half_life")
    table = loops(outcome)
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in table.rows:
        values = dict(zip(table.columns, row, strict=True))
        lines.append(" | ".join(f"{v:.4g}" if isinstance(v, float) else f"{v}" for v in map(values.get, columns)))
    finding = [*(f"**{sentence}**" for sentence in headline(outcome)), *_answer(outcome)]
    where = "The whole report is under *Artifacts*: `report/report.html`."
    return "\n\n".join([*finding, where, "\n".join(f"| {line} |" for line in lines)])


def _facts(outcome: Outcome) -> dict[str, Any]:
    configuration = _configuration(outcome)
    seeds = list(dict.fromkeys(loop.seed for loop in outcome.loops))
    m = configuration.get("data.num_examples", "?")
    t = configuration.get("num_generations", "?")
    lead = f"{len(outcome.loops)} loops" if len(outcome.loops) > 1 else "One loop"
    lead += f" of {t} generations, m = {int(m):,} expressions" if m.isdigit() else ""
    lead += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}."
    seconds = sum(sum(loop.history.get("generation_seconds", {}).values()) for loop in outcome.loops)
    spent = f"{duration(seconds)} (h:mm:ss) of training, sampling and measuring in all." if seconds else ""
    return {
        "kind": "study" if outcome.study else "loop",
        "lead": lead,
        "progress": progress(outcome),
        "spent": spent,
        "configuration": configuration | _software(outcome),
    }


def _configuration(outcome: Outcome) -> dict[str, str]:
    """Every parameter with its value, or with all those that the loops have."""
    joined = _joined([loop.run.entity.data.params for loop in outcome.loops])
    return {key: values for key, values in joined.items() if values}


def _software(outcome: Outcome) -> dict[str, str]:
    keys = ("uncommitted_changes", "ouroloop_version", "python", "machine", "packages")
    commits = ", ".join(dict.fromkeys(commit for loop in outcome.loops for commit in loop.commits))
    of_loops = _joined([{key: value for key in keys if (value := loop.run.tag(key))} for loop in outcome.loops])
    return ({"commit": commits} if commits else {}) | of_loops


def _joined(records: list[dict[str, str]]) -> dict[str, str]:
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: ", ".join(sorted({one[key] for one in records if key in one}, key=_numerically)) for key in keys}


def _numerically(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
