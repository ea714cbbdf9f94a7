"""The folder of a report: the page, and beside it pictures, tables, findings and configuration.

Some of it goes onto the run of the study in MLflow too.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from altair.utils.schemapi import debug_mode

from ouroloop.console import in_words
from ouroloop.plain import as_text
from ouroloop.record import stores
from ouroloop.report.figures import drawings
from ouroloop.report.findings import at_end, findings_json, progress, summary
from ouroloop.report.methods import drawing as methods_drawing
from ouroloop.report.methods import methods_tables
from ouroloop.report.page import Facts, page
from ouroloop.report.panels import drawing
from ouroloop.report.render import png
from ouroloop.report.results import Results, all_values, compares_methods, halving
from ouroloop.report.tables import figure_tables, loops, metrics, write_csv
from ouroloop.science.dataset import DatasetError
from ouroloop.science.metrics import RETENTION
from ouroloop.testbed.base import noun_of, words_of

_HEATMAPS = 3  # of depth on the page without scripts; with scripts it has one for each loop
_MOST_ROWS = 50  # in the description of a run, for which MLflow has 8,000 characters


def write_report(results: Results, folder: Path) -> Path:
    """Write the report of a study or loop into `folder`, and onto its run if that may be written; return the page.

    `report.html` needs no other file. Beside it: a PNG for each figure and a CSV for its data,
    `loops.csv`, `metrics.csv` (everything that was measured), `findings.json` and `configuration.yaml`.

    Raises:
        ConfigError: the folder cannot be written.
    """
    stores.require_writable(folder)
    tables = {**figure_tables(results), **methods_tables(results), "loops": loops(results)}
    with debug_mode(False):  # altair would check each part of a figure as it is made; the tests let it
        drawn = drawings(tables) | drawing(tables) | methods_drawing(tables)
        is_many = "depth" in drawn and len(results.loops) > _HEATMAPS
        few = drawings({"depth": tables["depth"]}, _HEATMAPS) if is_many else {}
        sentences = [*summary(results), *_answer(results), *_boardless(results)]
        content = page(results.title, sentences, _facts(results), tables, drawn | few)
    path = folder / "report.html"
    path.write_text(content, encoding="utf-8")
    for name, table in {**tables, "metrics": metrics(results)}.items():
        write_csv(table, folder / f"{name}.csv")
    (folder / "findings.json").write_text(findings_json(results), encoding="utf-8")
    pngs = {f"{name}.png": png(one) for name, one in drawn.items()}
    for file_name, picture in pngs.items():
        (folder / file_name).write_bytes(picture)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(_configuration(results), sort_keys=False))
    if stores.may_be_written():
        _log(results, {path.name: content.encode()} | pngs)
    return path


def _answer(results: Results) -> list[str]:
    """The answer that the sweep recorded: by its kind, safe proportions, λ* or the front; empty before it ended."""
    return [str(line) for line in _recorded_answer(results).get("answer", [])]


def _boardless(results: Results) -> list[str]:
    """Why a study that compares methods has no board here; empty for any other, and where it has one."""
    if not compares_methods(results.study) or results.compared is not None:
        return []
    return [
        "There is no board of its methods: its configuration cannot be read here. If it has a step of your own, import "
        f"the class in Python and call `ouroloop.load({results.name!r}).report()`."
    ]


def _recorded_answer(results: Results) -> dict[str, Any]:
    """What the sweep recorded; only that it is no longer so, if loops that it rests on are gone."""
    try:
        recorded = dict(json.loads(results.study.read_text("answer.json"))) if results.study else {}
    except (DatasetError, ValueError, TypeError):
        return {}
    if gone := {*recorded.get("loops", ())} - {loop.run.id for loop in results.loops}:
        are = "loop is" if len(gone) == 1 else "loops are"
        finish = f"`ouroloop sweep {results.name}` runs what is missing, and answers anew"
        return {"answer": [f"The study has no answer now: {len(gone)} {are} no longer on record; {finish}."]}
    return recorded


def study_metrics(results: Results) -> dict[str, float]:
    """By what MLflow's table of runs compares studies: λ*, and for each cell what is kept and when half is gone.

    `lambda_star/CYCLE-T…`, `kept_at_end/CELL` (mean retention, of the cells that ended last), `half_life/CELL` (mean up
    to the last generation, the loops that did not lose half among them; absent where none lost it). Keys are ASCII, as
    MLflow wants them.
    """
    metrics: dict[str, float] = {}
    for bracket in _recorded_answer(results).get("brackets", []):
        if isinstance(bracket.get("estimate"), int | float):
            metrics[_key("lambda_star", f"{bracket['cycle']}-T{bracket['temperature']:g}")] = float(bracket["estimate"])
    metrics |= {_key("kept_at_end", cell): kept.mean for cell, kept in at_end(results)[1].items()}
    for cell, loops_of_cell in results.cells.items():
        if (lives := halving(loops_of_cell)) is not None and lives.num_events:
            metrics[_key("half_life", cell)] = lives.restricted_mean.mean
    return metrics


def _key(measure: str, of: str) -> str:
    plain = of.replace("λ", "lambda").replace(" = ", "-").replace(", ", " ")
    return f"{measure}/{re.sub(r'[^A-Za-z0-9_. -]', '_', plain)}"[:250]


def _log(results: Results, files: Mapping[str, bytes]) -> None:
    """Log the page and pictures to the study's run, or the lone loop's; a study's description says what was found."""
    lone = results.loops[0].run if len(results.loops) == 1 else None
    run = results.study or lone
    if run is not None:
        run.log_files({f"report/{name}": content for name, content in files.items()})
    if results.study:
        before = results.study.metrics
        new = {key: [(0, value)] for key, value in study_metrics(results).items() if before.get(key) != value}
        results.study.log_series(new, note=_description(results))


def _description(results: Results) -> str:
    """Markdown, of names and numbers only: no text of a model is in it."""
    columns = ["loop", "state", "generation", RETENTION, *results.testbed.headline.values(), "num_unique", "half_life"]
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    table = loops(results)[columns]
    for row in table.head(_MOST_ROWS).itertuples(index=False):
        lines.append(
            " | ".join("" if v is None else f"{v:.4g}" if isinstance(v, float) else as_text(str(v)) for v in row)
        )
    finding = [*(f"**{as_text(sentence)}**" for sentence in summary(results)), *map(as_text, _answer(results))]
    where = "The whole report is under *Artifacts*: `report/report.html`."
    more = [f"{len(table) - _MOST_ROWS} more loops are in the report."] if len(table) > _MOST_ROWS else []
    return "\n\n".join([*finding, where, "\n".join(f"| {line} |" for line in lines), *more])


def _facts(results: Results) -> Facts:
    configuration = _configuration(results)
    seeds = list(dict.fromkeys(loop.seed for loop in results.loops))
    m = configuration.get("data.num_examples", "?")
    t = configuration.get("num_generations", "?")
    noun = noun_of(results.testbed)
    lead = f"{len(results.loops)} loops" if len(results.loops) > 1 else "One loop"
    lead += f" of {t} generations, m = {int(m):,} {noun}" if m.isdecimal() else ""
    lead += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}."
    measure = configuration.get("stages.measure", RETENTION).replace("_", " ")
    lead += f" Stages rest on {measure}; those below healthy need two generations in a row."
    # A copy has the time of its original, to the last bit: each generation counts once, wherever it was computed
    times = {time for loop in results.loops for time in loop.history.get("generation_seconds", {}).items()}
    seconds = sum(seconds for _, seconds in times)
    spent = f"Training, sampling and measuring these generations took {in_words(seconds)}" if seconds else ""
    spent += ", each counted once, however many loops share it." if seconds else ""
    kind = "study" if results.study else "loop"
    about = configuration | _software(results)
    of = results.testbed
    definitions = {title: of.definitions[key] for key, title in of.means.items() if key in of.definitions}
    return Facts(kind, lead, progress(results), spent, about, words_of(of), definitions)


def _configuration(results: Results) -> dict[str, str]:
    """Every parameter with its value, or with all those that the loops have."""
    every = all_values([loop.run.entity.data.params for loop in results.loops])
    return {key: values for key, values in every.items() if values}


def _software(results: Results) -> dict[str, str]:
    keys = ("uncommitted_changes", "ouroloop_version", "python", "machine", "packages")
    commits = ", ".join(dict.fromkeys(commit for loop in results.loops for commit in loop.commits))
    of_loops = all_values([{key: value for key in keys if (value := loop.run.tag(key))} for loop in results.loops])
    return ({"commit": commits} if commits else {}) | of_loops
