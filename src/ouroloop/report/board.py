"""The leaderboard as it is shown: a table on the terminal, files for programs and readers, quality against cost."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ouroloop.console import fitted, say
from ouroloop.record import stores
from ouroloop.report.leaderboard import BARS, BEST, KEEP_M1, Row, not_chosen, record, times, trained
from ouroloop.report.methods import curves, drawing, table
from ouroloop.report.outcomes import Outcome, file_of
from ouroloop.report.render import png
from ouroloop.science.metrics import RETENTION
from ouroloop.science.statistics import Interval
from ouroloop.study.config import KNOWLEDGE, StudyConfig

_COLUMNS = {
    "coverage": "coverage",
    RETENTION: "retention",
    "grammar_membership": "in grammar",
    "unique_fraction": "distinct",
    "kl_forward_nats": "KL",
}
_HEADINGS = ("", "method", "seeds", "knows", "keeps", *_COLUMNS.values(), "over", "drawn", "trained")
_NOTE = (
    "Mean over seeds at the last generation [95 % interval], for coverage also (area under the curve). Only methods "
    "with all seeds are ranked; those that coverage cannot tell apart (95 %, paired seeds) share a rank. over: how "
    f"many ranked methods it is told apart from and beats. keeps: whether {BARS}. drawn, trained: texts and "
    "seconds over the baseline's with the same seeds; seconds (least to most over seeds) only where both ran on the "
    "same kind of processor."
)
_WORD = 10  # width that keeps each word of a method's name, or of what it knows, whole


def show_board(rows: Sequence[Row], console: Console, config: StudyConfig, is_whole: bool = True) -> None:
    """Print a table for each cycle, and what is missing from it; of a whole board also who should be run elsewhere."""
    for cycle in dict.fromkeys(row.cycle for row in rows):
        of_cycle = [row for row in rows if row.cycle == cycle]
        if scored := [row for row in of_cycle if row.scores]:
            console.print(fitted(_table(scored, _title(cycle, config)), console))
        filed = [row.runs[seed] for row in of_cycle for seed in row.filed]
        if commits := dict.fromkeys(commit[:7] for outcome in filed for commit in outcome.commits):
            say(console, f"* From the file, computed at {', '.join(commits)}")
        for line in _absent(of_cycle):
            say(console, line)
    apart = [
        name for name, method in config.methods.items() if not {*(method.cycles or config.cycles)} & {*config.cycles}
    ]
    if apart:
        say(console, f"Not run with any of these cycles: {', '.join(apart)}")
    if is_whole and (names := not_chosen(rows, config)):
        cycles = ", ".join(cycle.value for cycle in config.cycles[1:])
        said = f"Among the best {BEST} of {config.cycles[0].value}, and not run with {cycles}: {', '.join(names)}. "
        say(console, f"{said}The `cycles` of the preset say which methods are.")
    say(console, _NOTE, "dim")


def _absent(rows: Sequence[Row]) -> list[str]:
    """What of a cycle failed, is still missing, or cannot be run: a line for each that there is."""
    lines = []
    if failed := [f"{row.method} (seeds {_listed(row.failures)})" for row in rows if row.failures]:
        lines.append(f"Failed, and so without a rank: {', '.join(failed)}")
    run = [row for row in rows if row.method != KEEP_M1 and not row.reason]
    if missing := sum(row.missing for row in run):
        wanted = sum(row.wanted for row in run)
        none = [row.method for row in run if row.missing == row.wanted]
        lines.append(
            f"Loops still missing from {rows[0].cycle}: {missing} of {wanted}"
            + (f", all those of {', '.join(none)}" if none else "")
        )
    if cannot := [f"{row.method} ({row.reason})" for row in rows if row.reason]:
        lines.append(f"Not applicable: {', '.join(cannot)}")
    return lines


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _title(cycle: str, config: StudyConfig) -> str:
    return f"{cycle}, t = {config.loop.num_generations}"


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _HEADINGS:
        is_text = heading in ("method", "knows")
        table.add_column(heading, justify="left" if is_text else "right", min_width=_WORD if is_text else None)
    for row in rows:
        table.add_row(*_cells(row, "*" * bool(row.filed)))
    return table


def _cells(row: Row, mark: str = "") -> list[str]:
    """What is said of a row, as the headings have it; `mark` follows its number of seeds."""
    scores = [_shown(row, key) for key in _COLUMNS]
    seconds, spread = trained(row.cost)
    costs = [times(row.cost.get("num_drawn")), seconds + f" ({spread})" * bool(spread)]
    keeps = {True: "yes", False: "no", None: "–"}[row.keeps]
    rank, over = ("–", "–") if row.rank is None else (f"{row.rank}", f"{row.beats}")
    seeds = f"{len(row.outcomes)}" + f"/{row.wanted}" * (not row.is_whole) + mark
    return [rank, row.method, seeds, row.knows, keeps, *scores, over, *costs]


def _in_markdown(rows: Sequence[Row], config: StudyConfig, name: str) -> str:
    """The same tables for a page: where a loop was computed is in the file for programs."""
    said = f"# {name}\n\n{_NOTE}\n"
    for cycle in dict.fromkeys(row.cycle for row in rows):
        of_cycle = [row for row in rows if row.cycle == cycle]
        rule = ["---" if heading in ("method", "knows") else "--:" for heading in _HEADINGS]
        cells = [_cells(row) for row in of_cycle if row.scores]
        lines = [f"| {' | '.join(line)} |" for line in (_HEADINGS, rule, *cells)] if cells else []
        parts = (f"## {_title(cycle, config)}", "\n".join(lines), *_absent(of_cycle))
        said += "".join(f"\n{part}\n" for part in parts if part)
    return said


def _shown(row: Row, key: str) -> str:
    score = row.scores.get(key)
    if score is None:
        return "–"
    text = _with_limits(score.last)
    return f"{text} ({score.area.mean:.3f})" if key == "coverage" else text


def _with_limits(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:.3f}"
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"  # no ±: seldom as far below as above


def write_board(
    rows: Sequence[Row], config: StudyConfig, folder: Path, name: str, others: Sequence[Outcome] = ()
) -> list[Path]:
    """Write `NAME.json`, its tables as `NAME.md`, quality against cost and by generation as pictures, if it is new.

    `others` are loops of the file that are not among the rows; they stay in it.

    Raises:
        ConfigError: the folder cannot be written.
    """
    loops = [
        outcome.as_record(method=row.method, cycle=row.cycle, seed=seed)
        for row in rows
        for seed, outcome in sorted(row.runs.items())
    ]
    loops += [outcome.as_record() for outcome in others]
    if not loops:
        return []
    stores.require_writable(folder)
    file = file_of(name, folder)
    content = {
        "study": name,
        "num_generations": config.loop.num_generations,
        "learner": config.loop.model.kind,
        "seeds": config.seeds,
        "is_complete": not any(row.missing for row in rows),
        "knowledge": KNOWLEDGE,
        "rows": record(rows),
    }
    written = {
        file: _written(content, loops).encode(),
        file.with_suffix(".md"): _in_markdown(rows, config, name).encode(),
    }
    images = {"board": file.with_suffix(".png"), "coverage_by_method": folder / f"{name}-coverage.png"}
    if all(image.exists() for image in images.values()) and all(
        path.exists() and path.read_bytes() == new for path, new in written.items()
    ):
        return []
    drawn = drawing({"board": table(rows), "coverage_by_method": curves(rows)})
    written |= {images[figure]: png(picture) for figure, picture in drawn.items()}
    for path, new in written.items():
        _put(path, new)
    return list(written)


def _put(path: Path, content: bytes) -> None:
    """Write all of it or nothing: the file may be all that is left of other machines' loops."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _written(content: Mapping[str, Any], loops: Sequence[Mapping[str, Any]]) -> str:
    """The file as JSON, with one line for each loop."""
    lines = ",\n".join(f"    {json.dumps(one)}" for one in loops)
    return json.dumps({**content, "loops": []}, indent=2).removesuffix("[]\n}") + f"[\n{lines}\n  ]\n}}\n"
