"""A study: many loops over the synthetic proportion, queued in Optuna, recorded in MLflow.

Optuna holds who does what, MLflow holds what came of it. A trial is one loop; a worker takes one after
another until none waits. The same command again enqueues only what is missing, and a loop that was
stopped goes on in its own run.
"""

import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from time import sleep
from typing import Any

from optuna import Trial
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ouroloop import stores
from ouroloop.config import ConfigError, LoopConfig, StudyConfig, flatten
from ouroloop.queue import Queue
from ouroloop.signals import Interrupted
from ouroloop.track import Run, Store, close_dead_runs, create_study
from ouroloop.view import LoopView, duration, percent, sparkline

RETENTION = "diversity_retention"
_EXTENDABLE = ("cycles", "synthetic_proportions", "temperatures", "seeds")


def run_study(config: StudyConfig, name: str, store: Store, console: Console, workers: int = 1) -> int:
    """Runs what is missing of the study with so many workers; returns how many of its loops failed.

    Raises:
        ConfigError: a study of that name was started with another configuration.
    """
    with stores.locked(name, "study"):
        close_dead_runs(store)
        queue = Queue.create(name)
        _refuse_changes(queue, config)
        queue.study.set_user_attr("config", config.model_dump(mode="json"))
        queue.release_dead()
        loops = config.loops()
        queue.add_missing(loops, [_parameters(loop) for loop in loops])
        found = store.find(level="study", study=name)
        run = found[0] if found else create_study(store, config, name)
        queue.study.set_user_attr("run", run.id)
        with run.running():
            if workers == 1:
                work(name, store, console)
            else:
                _work_together(queue, name, console, workers)
            _record_results(run, store, config, name)
        failed = [trial for trial in latest_trials(queue) if trial.state is TrialState.FAIL]
        if failed:
            run.end("FAILED")
    return len(failed)


def _refuse_changes(queue: Queue, config: StudyConfig) -> None:
    """More values for what spans the grid extend a study; anything else would make it another one."""
    before = queue.study.user_attrs.get("config")
    if before is None:
        return
    old, new = flatten(StudyConfig.model_validate(before)), flatten(config)
    changed = [
        key
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not key.endswith(("description", "keep_weights"))
        and not (key in _EXTENDABLE and set(old[key]) <= set(new[key]))
    ]
    if changed:
        shown = ", ".join(f"{key} ({old.get(key)} before, {new.get(key)} now)" for key in changed)
        raise ConfigError(
            f"study {queue.study.study_name!r} exists with another configuration: {shown}; "
            "copy the preset under a new name to start another study"
        )


def _parameters(loop: LoopConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "cycle": loop.cycle.kind.value,
        "temperature": loop.sampling.temperature,
        "seed": loop.seed,
    }
    if loop.cycle.synthetic_proportion is not None:
        values["synthetic_proportion"] = loop.cycle.synthetic_proportion
    return values


class _TrialView(LoopView):
    """Shows the loop, and tells Optuna the diversity of each generation."""

    def __init__(self, console: Console, trial: Trial) -> None:
        super().__init__(console)
        self._trial = trial

    def generation_finished(self, generation: int, metrics: dict[str, float], resumed: bool) -> None:
        super().generation_finished(generation, metrics, resumed)
        if RETENTION in metrics and not resumed:
            self._trial.report(metrics[RETENTION], generation)


def work(name: str, store: Store, console: Console) -> None:
    """Takes loops from the study's queue until none waits.

    A loop that fails is recorded as FAILED and the next one is taken; an interruption gives the loop
    back, to be gone on with later.
    """
    from ouroloop.loop import run_loop  # torch and Lightning, which only a worker needs

    queue = Queue.load(name)
    if queue is None:
        raise ConfigError(f"no study {name!r}; there are: {', '.join(Queue.names()) or 'none'}")
    parent = store.get(queue.study.user_attrs["run"])
    while (trial := queue.claim()) is not None:
        _suggest_all(trial)
        loop = _loop_of(trial)
        try:
            with stores.locked(name, loop.fingerprint()), queue.alive(trial), _TrialView(console, trial) as view:
                run = run_loop(loop, store, name=loop_name(loop), study=name, parent=parent, observer=view)
        except Interrupted:
            queue.study.tell(trial, state=TrialState.FAIL)
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            queue.study.tell(trial, state=TrialState.FAIL)
            console.print(f"{loop_name(loop)} failed: {type(error).__name__}: {error}", style="red", markup=False)
            continue
        retention = dict(run.history(RETENTION))
        queue.study.tell(trial, retention.get(loop.num_generations), state=TrialState.COMPLETE)


def _work_together(queue: Queue, name: str, console: Console, workers: int) -> None:
    """Starts worker processes and watches them; one that dies is replaced as long as loops wait."""
    folder = stores.runs_folder() / "logs"
    folder.mkdir(exist_ok=True)
    # Set before torch is imported: no worker may take the cores of another
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}

    def start(number: int) -> subprocess.Popen[bytes]:
        with (folder / f"{name}-worker-{number}.log").open("ab") as log:
            command = [sys.executable, "-m", "ouroloop", "worker", name]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    processes = {number: start(number) for number in range(1, workers + 1)}
    try:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while processes:
                if console.is_terminal:
                    live.update(status_table(status(name), running_only=True))
                sleep(1)
                for number, process in list(processes.items()):
                    if process.poll() is None:
                        continue
                    del processes[number]
                    if process.returncode != 0:
                        console.print(f"worker {number} ended with {process.returncode}; its log is in {folder}")
                        queue.release_dead()
                        if queue.trials(TrialState.WAITING):
                            processes[number] = start(number)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def _suggest_all(trial: Trial) -> None:
    """Turns the values that the trial was enqueued with into its parameters, so that Optuna can plot them."""
    loop = _loop_of(trial)
    for key, value in _parameters(loop).items():
        match value:
            case str():
                trial.suggest_categorical(key, [kind.value for kind in type(loop.cycle.kind)])
            case int():
                trial.suggest_int(key, 0, 2**31 - 1)
            case float():
                trial.suggest_float(key, 0.0, 10.0 if key == "temperature" else 1.0)


def loop_name(loop: LoopConfig) -> str:
    proportion = "" if loop.cycle.synthetic_proportion is None else f"-{loop.cycle.synthetic_proportion:g}"
    return f"{loop.cycle.kind.value}{proportion}-T{loop.sampling.temperature:g}-s{loop.seed}"


def latest_trials(queue: Queue) -> list[FrozenTrial]:
    """One trial for each cell, the newest, in the order in which the cells were first enqueued."""
    return list({trial.user_attrs["cell"]: trial for trial in queue.trials()}.values())


def half_life(retention: dict[int, float]) -> int | None:
    """The first generation that keeps less than half of D_0's diversity; None if it was not reached."""
    return next((t for t, kept in sorted(retention.items()) if kept < 0.5), None)


def _record_results(run: Run, store: Store, config: StudyConfig, name: str) -> None:
    """The table of results, as the artifact that the MLflow UI shows on the study run."""
    columns = ["cycle", "synthetic_proportion", "temperature", "seed", "status", "generations", "correctness",
               "error_rate", RETENTION, "num_unique", "half_life", "minutes"]  # fmt: skip
    rows: list[list[Any]] = []
    for loop in _loops(store, name):
        retention = dict(loop.history(RETENTION))
        seconds = sum(value for _, value in loop.history("generation_seconds"))
        last = [loop.metrics.get(key, "") for key in ("correctness", "error_rate", RETENTION, "num_unique")]
        tags = [loop.tag(key) for key in ("cycle", "synthetic_proportion", "temperature", "seed")]
        life = half_life(retention)
        rows.append(
            [*tags, loop.status, len(retention) - 1, *last, "" if life is None else life, round(seconds / 60, 2)]
        )
    run.log_table("results.json", columns, rows)
    table: list[list[Any]] = [columns, ["---"] * len(columns), *rows]
    lines = [f"| {' | '.join(str(value) for value in row)} |" for row in table]
    run.describe(f"{config.description}\n\nThe last generation of each loop:\n\n" + "\n".join(lines))


def _loops(store: Store, name: str) -> list[Run]:
    """The loop runs of a study, the newest for each cell, in order of cycle, proportion and seed."""
    newest_last = reversed(store.find(level="loop", study=name))
    loops = {loop.tag("fingerprint"): loop for loop in newest_last}
    return sorted(loops.values(), key=lambda loop: loop.entity.info.run_name)


def status(name: str | None) -> list[dict[str, Any]]:
    """What ran, runs, failed and is left, a record for each study: its loops, their states, seconds left.

    Raises:
        ConfigError: there is no such study.
    """
    names = Queue.names()
    if name is not None and name not in names:
        raise ConfigError(f"no study {name!r}; there are: {', '.join(names) or 'none'}")
    studies = []
    for study in [name] if name else names:
        queue = Queue.load(study)
        assert queue is not None
        trials = latest_trials(queue)
        loops = [
            {
                "loop": loop_name(_loop_of(trial)),
                "state": _STATES[trial.state],
                "generation": max(trial.intermediate_values, default=0),
                "num_generations": _loop_of(trial).num_generations,
                RETENTION: [value for _, value in sorted(trial.intermediate_values.items())],
                "error": trial.user_attrs.get("error"),
            }
            for trial in trials
        ]
        studies.append({"study": study, "loops": loops, "seconds_left": seconds_left(trials)})
    return studies


def status_table(studies: list[dict[str, Any]], running_only: bool = False) -> Table:
    """The records of `status`, a row for each loop."""
    table = Table(title="studies", title_justify="left", caption_justify="left")
    for heading in ("study", "loop", "state", "done", "kept", "curve"):
        table.add_column(heading, no_wrap=heading in ("loop", "done", "curve"))
    captions = []
    for study in studies:
        for loop in study["loops"]:
            if running_only and loop["state"] != "runs":
                continue
            kept = loop[RETENTION]
            table.add_row(
                study["study"],
                loop["loop"],
                escape(loop["error"] or loop["state"]),
                f"{loop['generation']}/{loop['num_generations']}",
                f"{kept[-1]:.1%}" if kept else "–",
                sparkline(kept[-40:]),
            )
        counts = Counter(loop["state"] for loop in study["loops"])
        caption = f"{study['study']}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
        left = study["seconds_left"]
        captions.append(caption if left is None else f"{caption}; about {duration(left)} left")
    table.caption = "\n".join(captions)
    return table


def seconds_left(trials: list[FrozenTrial]) -> float | None:
    """From the pace of the generations so far, shared by the loops that run; None when there is none yet."""
    now = datetime.now()
    spent, done, remaining = 0.0, 0, 0
    for trial in trials:
        reached = max(trial.intermediate_values, default=0)
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            remaining += _loop_of(trial).num_generations - reached
        if trial.datetime_start and trial.state in (TrialState.RUNNING, TrialState.COMPLETE):
            spent += ((trial.datetime_complete or now) - trial.datetime_start).total_seconds()
            done += reached
    num_running = sum(trial.state is TrialState.RUNNING for trial in trials)
    return spent / done * remaining / num_running if done and num_running else None


def _loop_of(trial: FrozenTrial | Trial) -> LoopConfig:
    return LoopConfig.model_validate(trial.user_attrs["loop"])


_STATES = {
    TrialState.WAITING: "waits",
    TrialState.RUNNING: "runs",
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "stopped",
    TrialState.PRUNED: "pruned",
}


def study_table(store: Store, name: str) -> Table:
    """The result of each loop of a study."""
    table = Table(title=f"{name}: the last generation of each loop (kept: diversity over D_0's)", title_justify="left")
    table.add_column("loop", no_wrap=True)
    for heading in ("correct", "errors", "kept", "half-life"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    for loop in _loops(store, name):
        retention = dict(loop.history(RETENTION))
        life = half_life(retention)
        table.add_row(
            loop.entity.info.run_name,
            percent(loop.metrics, "correctness"),
            percent(loop.metrics, "error_rate"),
            percent(loop.metrics, RETENTION),
            f"> {max(retention, default=0)}" if life is None else f"{life}",
            sparkline([kept for _, kept in sorted(retention.items())][-60:]),
        )
    return table


def cells_table(config: StudyConfig) -> Table:
    """What a study would run."""
    loops = config.loops()
    table = Table(title=f"{len(loops)} loops of {config.loop.num_generations} generations", title_justify="left")
    table.add_column("loop")
    table.add_column("fingerprint")
    for loop in loops:
        table.add_row(loop_name(loop), loop.fingerprint()[:12])
    return table
