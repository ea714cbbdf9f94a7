"""A study or a loop as a folder to read and to keep: the page, its figures and their data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ouroloop.cycle import DatasetError
from ouroloop.finding import findings_json
from ouroloop.gallery import pictures
from ouroloop.headline import headline, progress
from ouroloop.outcome import Outcome, read_outcome
from ouroloop.page import fitted, page
from ouroloop.status import RETENTION
from ouroloop.table import figure_tables, loops, metrics
from ouroloop.track import Store
from ouroloop.view import duration


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
