"""Where studies stand: what ran, runs, failed and is left, and what came of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ouroloop.config import ConfigError
from ouroloop.console import duration, fitted, percent, say, sparkline
from ouroloop.plain import visible
from ouroloop.record import locks, stores
from ouroloop.science.metrics import ALWAYS, RETENTION, half_life
from ouroloop.study.config import StudyConfig
from ouroloop.study.recorded import recorded_studies
from ouroloop.study.search import Search
from ouroloop.study.task import Recorded, State, Task

if TYPE_CHECKING:  # MLflow takes seconds to import, and is not always asked
    from ouroloop.record.run import Run
    from ouroloop.record.track import Store

_UNSCALED = "diversity_levenshtein"  # over D_0's, this is retention
RUN_STATES: dict[str, State] = {"RUNNING": "runs", "FINISHED": "done", "KILLED": "stopped", "FAILED": "failed"}


def reached(run: "Run") -> int:
    """The last generation on a loop's record, from what was read of it already."""
    return run.steps.get(ALWAYS, 0)


def read_progress(task: Task, run: "Run") -> bool:
    """Take over how far the loop has come according to the record; return whether that is further than was known."""
    task.worker, task.copied = run.tag("worker"), int(run.value("copied") or 0)
    if reached(run) <= task.reached:
        return False
    retention = {step: kept for step, kept in run.history(RETENTION) if step > 0}
    task.reached, task.retention = reached(run), retention  # both, or neither if Ctrl-C comes in between
    note_retention(task, run.metrics)
    return True


def note_retention(task: Task, metrics: Mapping[str, float]) -> None:
    """Note the retention of the generation that was reached last, and how high retention could be at most."""
    kept = metrics.get(RETENTION)
    if kept is not None:
        task.retention[task.reached] = kept
    if kept:
        task.ceiling = kept / metrics[_UNSCALED]


def status(name: str | None) -> list[dict[str, Any]]:
    """What ran, runs, failed and is left, as a record for each study: its loops, their states, seconds left.

    The loops of a preset that belong to no study make up a record too. Creates nothing, and asks MLflow only for what
    it alone knows: lone loops, and how far the loops of a study whose driver is gone had come.

    Raises:
        ConfigError: there is no such study or preset, or a store cannot be opened.
    """
    studies = {study.name: study for study in recorded_studies()}
    if name in studies:
        return [_as_found(studies[name])]
    lone = _lone_records()
    if name is None:
        return [*map(_as_found, studies.values()), *lone.values()]
    if name not in lone:
        raise ConfigError(f"no study {name!r}; there are: {', '.join([*studies, *lone]) or 'none'}")
    return [lone[name]]


def _as_found(study: Recorded) -> dict[str, Any]:
    """The record of a study as another process finds it."""
    try:
        config, tasks = study.config, study.tasks()
    except ConfigError as error:
        return {"study": study.name, "kind": "unknown", "loops": [], "seconds_left": None, "error": str(error)}
    assert config is not None
    begun = [task for task in tasks.values() if task.state in ("runs", "stopped")]
    if begun and not locks.study_is_driven(study.name):
        for task in begun:
            task.state = "stopped"
        from ouroloop.record.track import Store

        with suppress(ConfigError):  # without the record, what was noted last has to do
            for run in reversed(Store.existing().unfinished_loops(study.name)):
                known = tasks.get(run.tag("fingerprint") or "")
                if known is not None:
                    read_progress(known, run)
    return study_record(study.name, config, list(tasks.values()), study.num_asked)


def _lone_records() -> dict[str, dict[str, Any]]:
    if stores.known("lone loop") == []:
        return {}
    from ouroloop.record.history import history
    from ouroloop.record.track import Store

    store, records = Store.found(), dict[str, dict[str, Any]]()
    for run in store.lone_loops() if store else ():
        study = run.tag("study") or ""
        is_dead = run.status == "RUNNING" and not locks.is_alone_held(study, run.tag("fingerprint") or "")
        record = records.setdefault(study, {"study": study, "kind": "loop", "loops": [], "seconds_left": None})
        total = int(run.entity.data.params.get("num_generations", 0))
        kept = [value for step, value in history(run, [RETENTION])[RETENTION].items() if step > 0]
        state: State = "stopped" if is_dead else RUN_STATES[run.status]
        record["loops"].append(_row(run.name, state, reached(run), total, kept))
    return records


def _row(
    loop: str, state: State, done: int, of: int, kept: Sequence[float] = (), error: str | None = None,
    worker: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {"loop": loop, "state": state, "generation": done, "num_generations": of, RETENTION: list(kept),
            "error": error, "worker": worker}  # fmt: skip


def study_record(name: str, config: StudyConfig, tasks: Sequence[Task], num_asked: int) -> dict[str, Any]:
    """The record of one study, as `status` gives it: the loops that were begun, and those of a grid that wait.

    `num_asked` is how many loops the sampler of a pareto study has chosen, some of them more than once.
    """
    known = {task.key for task in tasks}
    waiting = config.loops(known) if config.kind == "grid" else []
    rows = [
        _row(config.label(task.loop), task.state, task.reached, task.loop.num_generations,
             [kept for _, kept in sorted(task.retention.items())], task.error,
             task.worker if task.state == "runs" else None)
        for task in tasks
    ]  # fmt: skip
    rows += [_row(config.label(loop), "waits", 0, loop.num_generations) for loop in waiting]
    still = len(waiting)
    if config.kind == "search":
        still = Search(config, tasks).loops_left()
    elif config.kind == "pareto":
        still = max(0, config.pareto.num_trials - num_asked)
    left = seconds_left(tasks, still * config.loop.num_generations)
    return {"study": name, "kind": config.kind, "loops": rows, "seconds_left": left}


def fitted_status(studies: list[dict[str, Any]], console: Console) -> Table:
    """`status_table` for this console; where no line has to be folded, a thousand loops are one row of many lines.

    rich then takes a quarter of the time, and shows the same.
    """
    table = status_table(studies, as_one=True)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        return table
    return fitted(status_table(studies), console)


def status_table(studies: list[dict[str, Any]], running_only: bool = False, as_one: bool = False) -> Table:
    """The records of `status`: below each study's name a row for each loop or, `as_one`, one row of as many lines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for heading in ("loop", "state", "done", "kept", "curve"):
        table.add_column(
            heading, no_wrap=heading != "state", justify="right" if heading in ("done", "kept") else "left"
        )
    captions = []
    for study in studies:
        table.add_section()
        table.add_row(Text(visible(study["study"]), style="bold"))
        rows = [_shown(loop) for loop in study["loops"] if loop["state"] == "runs" or not running_only]
        for row in [map("\n".join, zip(*rows, strict=True))] if as_one and rows else rows:
            table.add_row(*map(Text, row))  # no markup is looked for
        counts = Counter(loop["state"] for loop in study["loops"])
        said = study.get("error") or ", ".join(f"{count} {state}" for state, count in counts.items())
        caption = f"{study['study']}: {said}"
        left = study["seconds_left"]
        caption = visible(caption)
        captions.append(caption if left is None else f"{caption}; about {duration(left)} left")
    table.caption = Text("\n".join(captions))
    return table


def _shown(loop: Mapping[str, Any]) -> tuple[str, ...]:
    """A loop as a row of `status_table`."""
    kept = loop[RETENTION]
    state = loop["error"] or " on ".join(filter(None, [loop["state"], loop["worker"]]))
    done = f"{loop['generation']}/{loop['num_generations']}"
    return (
        visible(loop["loop"]),
        visible(" ".join(state.split())),
        done,
        f"{kept[-1]:.1%}" if kept else "–",
        sparkline(kept, width=14),
    )


def seconds_left(tasks: Sequence[Task], still_to_come: int = 0) -> float | None:
    """Estimate from the pace of the generations computed so far, with as many loops at once as now; None without one.

    A single loop cannot be divided, so this is never less than what the longest one takes. `still_to_come` is how many
    generations there are, at most, in loops that nobody has begun.
    """
    running = [task.loop.num_generations - task.reached for task in tasks if task.state == "runs"]
    stopped = [task.loop.num_generations - task.reached for task in tasks if task.state == "stopped"]
    seconds, computed = sum(task.seconds for task in tasks), sum(task.computed for task in tasks)
    if not (computed and running):
        return None
    return seconds / computed * max((still_to_come + sum(stopped) + sum(running)) / len(running), *running, 0)


class StudyLines:
    """A study for those who read a log: a line whenever a loop has come further, with the time left for all of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[str, int]] | None = None

    def show(self, record: Mapping[str, Any]) -> None:
        """Print what is new since the last record; `record` is one of `status.study_record`."""
        now = {loop["loop"]: (loop["state"], loop["generation"]) for loop in record["loops"]}
        before, self._shown = self._shown, now
        left = "" if record["seconds_left"] is None else f"  about {duration(record['seconds_left'])} left"
        for loop in record["loops"]:
            name, kept = loop["loop"], loop["diversity_retention"]
            if before is None or now[name] == before.get(name, ("waits", 0)):
                continue
            say(
                self._console,
                f"{name:<28} {loop['state']:<7} generation {loop['generation']:>3}/{loop['num_generations']}"
                f"  retention {f'{kept[-1]:.1%}' if kept else '–':>6}{left}",
            )


def newest_loops(store: "Store", name: str, config: StudyConfig) -> "list[Run]":
    """The loop runs of a study, the newest of each configuration, by name: in order of cycle, proportion and seed.

    There may be thousands, so each carries only its tags and the metrics that a study shows or asks for.
    """
    wanted = {*config.loop.data.testbed.headline.values(), RETENTION, ALWAYS, _UNSCALED}
    loops: dict[str | None, Run] = {}
    for loop in store.each(level="loop", study=name):  # the newest first
        loops.setdefault(loop.tag("fingerprint"), loop.narrowed(wanted))
    return sorted(loops.values(), key=lambda loop: _by_number(loop.name))


def _by_number(name: str) -> list[str | float]:
    """The sort key of a name: s2 comes before s10, and 0.25 before 0.5."""
    return [float(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def study_table(name: str, loops: "Sequence[Run]", headline: Mapping[str, str]) -> Table:
    """The result of each loop of a study at the last generation that it reached; `headline` is word -> measure."""
    from ouroloop.record.history import history

    said = f"{name}: each loop's last generation t; kept: diversity over D_0's; half: first t that kept less than half"
    title = Text(visible(said), "table.title")
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("loop", overflow="fold")  # gives way where the terminal is narrow: figures stay whole
    for heading in ("t", *headline, "kept", "half"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    for loop in loops:
        retention = history(loop, [RETENTION])[RETENTION]
        last, life = reached(loop), half_life(retention)
        metrics = last_metrics(loop)
        if _mark(loop) == "†":
            table.caption = "† ended early: nothing depended on it any more"
        table.add_row(
            Text(loop.name),
            f"{last}{_mark(loop)}",
            *(percent(metrics, key) for key in headline.values()),
            percent(metrics, RETENTION),
            f"{life}" if life is not None else f"> {last}" if RETENTION in metrics else "–",
            sparkline([kept for t, kept in sorted(retention.items()) if t > 0], width=6),
        )
    return table


def last_metrics(loop: "Run") -> dict[str, float]:
    """The metrics of the last generation; none before the first, since those of step 0 are D_0's."""
    return loop.metrics if reached(loop) else {}


def _mark(loop: "Run") -> str:
    """What the table says of a loop that is not finished: little, or its columns would not fit a terminal."""
    if loop.status == "FINISHED":
        return ""
    return "†" if loop.is_pruned else f" {RUN_STATES[loop.status]}"
