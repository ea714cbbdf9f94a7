"""Where studies stand: what ran, runs, failed and is left, and what came of it."""

from collections import Counter
from datetime import datetime
from typing import Any

from optuna import Trial
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ouroloop.config import ConfigError, LoopConfig, StudyConfig
from ouroloop.console import duration, percent, sparkline
from ouroloop.record.lone import lone_loops
from ouroloop.record.track import Run, Store
from ouroloop.science.metrics import RETENTION, half_life
from ouroloop.study.queue import Queue
from ouroloop.study.search import loops_left

RUN_STATES = {"RUNNING": "runs", "FINISHED": "done", "KILLED": "stopped", "FAILED": "failed"}


def loop_of(trial: FrozenTrial | Trial) -> LoopConfig:
    return LoopConfig.model_validate(trial.user_attrs["loop"])


def status(name: str | None) -> list[dict[str, Any]]:
    """What ran, runs, failed and is left, a record for each study: its loops, their states, seconds left.

    The loops of a preset that no study holds make up a record too.

    Raises:
        ConfigError: there is no such study or preset, or a store cannot be opened.
    """
    queues = {queue.study.study_name: queue for queue in Queue.all() if "config" in queue.study.user_attrs}
    if name in queues:
        return [study_record(queues[name])]
    lone = _lone_records()
    if name is None:
        return [*map(study_record, queues.values()), *lone.values()]
    if name not in lone:
        raise ConfigError(f"no study {name!r}; there are: {', '.join([*queues, *lone]) or 'none'}")
    return [lone[name]]


def _lone_records() -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for loop in lone_loops():
        empty: dict[str, Any] = {"study": loop.study, "kind": "loop", "loops": [], "seconds_left": None}
        record = records.setdefault(loop.study, empty)
        record["loops"].append(
            {
                "loop": loop.name,
                "state": "stopped" if loop.is_dead else RUN_STATES[loop.state],
                "generation": loop.reached,
                "num_generations": loop.num_generations,
                RETENTION: loop.retention,
                "error": None,
            }
        )
    return records


def study_record(queue: Queue) -> dict[str, Any]:
    """The record of one study, as `status` gives it."""
    trials = queue.latest()
    loops = [
        {
            "loop": loop_of(trial).label,
            "state": _STATES[trial.state],
            "generation": max(trial.intermediate_values, default=0),
            "num_generations": loop_of(trial).num_generations,
            RETENTION: [value for _, value in sorted(trial.intermediate_values.items())],
            "error": trial.user_attrs.get("error"),
        }
        for trial in trials
    ]
    config = StudyConfig.model_validate(queue.study.user_attrs["config"])
    still_to_come = loops_left(queue, config) * config.loop.num_generations
    left = seconds_left(trials, still_to_come)
    return {"study": queue.study.study_name, "kind": config.kind, "loops": loops, "seconds_left": left}


def status_table(studies: list[dict[str, Any]], running_only: bool = False) -> Table:
    """The records of `status`, a row for each loop below its study's name."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for heading in ("loop", "state", "done", "kept", "curve"):
        table.add_column(
            heading, no_wrap=heading != "state", justify="right" if heading in ("done", "kept") else "left"
        )
    captions = []
    for study in studies:
        table.add_section()
        table.add_row(Text(study["study"], style="bold"))
        for loop in study["loops"]:
            if running_only and loop["state"] != "runs":
                continue
            kept = loop[RETENTION]
            table.add_row(
                loop["loop"],
                escape(loop["error"] or loop["state"]),
                f"{loop['generation']}/{loop['num_generations']}",
                f"{kept[-1]:.1%}" if kept else "–",
                sparkline(kept, width=14),
            )
        counts = Counter(loop["state"] for loop in study["loops"])
        caption = f"{study['study']}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
        left = study["seconds_left"]
        captions.append(caption if left is None else f"{caption}; about {duration(left)} left")
    table.caption = "\n".join(captions)
    return table


def seconds_left(trials: list[FrozenTrial], still_to_come: int = 0) -> float | None:
    """From the pace of the generations computed so far, by as many loops at a time as run now; None without a pace.

    A single loop cannot be shared, so it is never less than what the longest one takes. `still_to_come` are the
    generations of loops that are not chosen yet, at most.
    """
    now = datetime.now()
    spent, computed, waiting, running = 0.0, 0, still_to_come, list[int]()
    for trial in trials:
        left = loop_of(trial).num_generations - max(trial.intermediate_values, default=0)
        if trial.state is TrialState.RUNNING:
            running.append(left)
        elif trial.state is TrialState.WAITING:
            waiting += left
        if trial.datetime_start and trial.user_attrs.get("computed"):
            spent += ((trial.datetime_complete or now) - trial.datetime_start).total_seconds()
            computed += trial.user_attrs["computed"]
    if not (computed and running):
        return None
    return spent / computed * max((waiting + sum(running)) / len(running), *running, 0)


_STATES = {
    TrialState.WAITING: "waits",
    TrialState.RUNNING: "runs",
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "stopped",
    TrialState.PRUNED: "pruned",
}


def newest_loops(store: Store, name: str) -> list[Run]:
    """The loop runs of a study, the newest for each cell, in order of cycle, proportion and seed."""
    newest_last = reversed(store.find(level="loop", study=name))
    loops = {loop.tag("fingerprint"): loop for loop in newest_last}
    return sorted(loops.values(), key=lambda loop: loop.entity.info.run_name)


def study_table(store: Store, name: str) -> Table:
    """The result of each loop of a study, at the last generation that it reached."""
    title = f"{name}: the last generation t of each loop (kept: diversity over D_0's)"
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("loop", no_wrap=True)
    for heading in ("t", "true", "errors", "kept", "half at t"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    for loop in newest_loops(store, name):
        retention = dict(loop.history(RETENTION))
        reached, life = loop.reached, half_life(retention)
        metrics = last_metrics(loop)
        if _mark(loop) == "†":
            table.caption = "† ended early: nothing depended on it any more"
        table.add_row(
            loop.entity.info.run_name,
            f"{reached}{_mark(loop)}",
            percent(metrics, "correctness"),
            percent(metrics, "error_rate"),
            percent(metrics, RETENTION),
            f"> {reached}" if life is None else f"{life}",
            sparkline([kept for _, kept in sorted(retention.items())], width=9),
        )
    return table


def last_metrics(loop: Run) -> dict[str, float]:
    """The metrics of the last generation; none before the first, since those of step 0 are D_0's."""
    return loop.metrics if loop.reached else {}


def _mark(loop: Run) -> str:
    """What the table says of a loop that is not finished: little, or its columns would not fit a terminal."""
    if loop.status == "FINISHED":
        return ""
    return "†" if loop.status == "KILLED" and loop.tag("pruned") == "yes" else f" {RUN_STATES[loop.status]}"
