"""A study: many loops over the synthetic proportion, queued in Optuna, recorded in MLflow.

Optuna holds who does what, MLflow holds what came of it. A trial is one loop; a worker takes one after
another until none waits. The same command again enqueues only what is missing, and a loop that was
stopped goes on in its own run.
"""

import os
import subprocess
import sys
from contextlib import suppress
from time import sleep
from typing import Any

from optuna import Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from rich.console import Console
from rich.live import Live

from ouroloop import stores
from ouroloop.config import ConfigError, LoopConfig, StudyConfig, flatten
from ouroloop.queue import Queue
from ouroloop.signals import Interrupted
from ouroloop.status import (
    RETENTION,
    half_life,
    last_metrics,
    latest_trials,
    loop_of,
    newest_loops,
    reached_generation,
    status,
    status_table,
)
from ouroloop.track import Run, Store, close_dead_runs, create_study
from ouroloop.view import LoopView

_MAX_REPLACED = 10  # workers, for each one asked for: some deaths are bad luck, more are a fault
_CHANGEABLE = {"cycles", "synthetic_proportions", "initialisations", "temperatures", "seeds", "description",
               "keep_weights"}  # fmt: skip


def run_study(config: StudyConfig, name: str, store: Store, console: Console, workers: int = 1) -> int:
    """Runs what is missing of the study with so many workers; returns how many of its loops failed.

    Raises:
        ConfigError: a study of that name was started with another configuration.
    """
    with stores.locked(name, "study"):
        close_dead_runs(store)
        queue = Queue.create(name)
        _refuse_changes(queue, config)
        queue.release_dead()
        loops = config.loops()
        queue.add_missing(loops, [_parameters(loop) for loop in loops])
        found = store.find(level="study", study=name)
        run = found[0] if found else create_study(store, config, name)
        run.log_tags(place=stores.place())
        queue.study.set_user_attr("run", run.id)
        with run.running():
            while queue.trials(TrialState.WAITING, TrialState.RUNNING):
                if not queue.trials(TrialState.WAITING):
                    sleep(2)  # workers elsewhere still have some: theirs may come back
                elif workers == 1:
                    work(name, store, console)
                else:
                    _Workers(queue, name, console, workers).watch()
                queue.release_dead()
            _record_results(run, store, config, name)
        close_dead_runs(store)
        failed = [trial for trial in latest_trials(queue) if trial.state is TrialState.FAIL]
        if failed:
            run.end("FAILED")
    return len(failed)


def _refuse_changes(queue: Queue, config: StudyConfig) -> None:
    """More values for what spans the grid extend a study; anything else would make it another one."""
    before = queue.study.user_attrs.get("config")
    if before is not None:
        old, new = flatten(StudyConfig.model_validate(before)), flatten(config)
        fixed = [key for key in sorted(old.keys() | new.keys()) if not _CHANGEABLE & set(key.split("."))]
        changed = [key for key in fixed if old.get(key) != new.get(key)]
        if changed:
            shown = ", ".join(f"{key} ({old.get(key)} before, {new.get(key)} now)" for key in changed)
            raise ConfigError(
                f"study {queue.study.study_name!r} exists with another configuration: {shown}; "
                "copy the preset under a new name to start another study"
            )
    queue.study.set_user_attr("config", config.model_dump(mode="json"))


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
        if RETENTION in metrics:
            with suppress(UpdateFinishedTrialError):  # somebody took us for dead; the loop itself goes on
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
        loop = loop_of(trial)
        try:
            with stores.locked(name, loop.fingerprint()), queue.alive(trial), _TrialView(console, trial) as view:
                run = run_loop(loop, store, name=loop.label, study=name, parent=parent, observer=view)
        except Interrupted:
            queue.finish(trial, TrialState.FAIL)
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            queue.finish(trial, TrialState.FAIL)
            console.print(f"{loop.label} failed: {type(error).__name__}: {error}", style="red", markup=False)
            continue
        retention = dict(run.history(RETENTION))
        queue.finish(trial, TrialState.COMPLETE, retention.get(loop.num_generations))


class _Workers:
    """Worker processes of a study. One that dies is replaced, as long as loops wait and it is no habit."""

    def __init__(self, queue: Queue, name: str, console: Console, count: int) -> None:
        self._queue, self._name, self._console, self._count = queue, name, console, count
        self._logs = stores.runs_folder() / "logs"
        self._logs.mkdir(exist_ok=True)
        self._replaced = 0
        self._processes = {number: self._start(number) for number in range(1, count + 1)}

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        # Set before torch is imported: no worker may take the cores of another
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._count))}
        command = [sys.executable, "-m", "ouroloop", "worker", self._name]
        with (self._logs / f"{self._name}-worker-{number}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def watch(self) -> None:
        """Shows the running loops until every worker has ended; an interruption ends the workers too."""
        try:
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                while self._processes:
                    if self._console.is_terminal:
                        live.update(status_table(status(self._name), running_only=True))
                    sleep(1)
                    self._replace_dead()
        finally:
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                process.wait()

    def _replace_dead(self) -> None:
        for number, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            del self._processes[number]
            if process.returncode == 2:  # bad input, which no replacement mends
                raise ConfigError(f"worker {number} could not start; its log is in {self._logs}")
            if process.returncode == 0:
                continue
            self._console.print(f"worker {number} ended with {process.returncode}; its log is in {self._logs}")
            self._queue.release_dead()
            if self._queue.trials(TrialState.WAITING):
                self._replaced += 1
                if self._replaced > _MAX_REPLACED * self._count:
                    raise RuntimeError(f"workers keep dying; their logs are in {self._logs}")
                self._processes[number] = self._start(number)


def _suggest_all(trial: Trial) -> None:
    """Turns the values that the trial was enqueued with into its parameters, so that Optuna can plot them."""
    loop = loop_of(trial)
    for key, value in _parameters(loop).items():
        match value:
            case str():
                trial.suggest_categorical(key, [kind.value for kind in type(loop.cycle.kind)])
            case int():
                trial.suggest_int(key, 0, 2**31 - 1)
            case float():
                trial.suggest_float(key, 0.0, 10.0 if key == "temperature" else 1.0)


def _record_results(run: Run, store: Store, config: StudyConfig, name: str) -> None:
    """The table of results, as the artifact that the MLflow UI shows on the study run."""
    columns = ["cycle", "synthetic_proportion", "temperature", "seed", "status", "generations", "correctness",
               "error_rate", RETENTION, "num_unique", "half_life", "minutes"]  # fmt: skip
    rows: list[list[Any]] = []
    for loop in newest_loops(store, name):
        retention = dict(loop.history(RETENTION))
        seconds = sum(value for _, value in loop.history("generation_seconds"))
        metrics = last_metrics(loop)
        last = [metrics.get(key, "") for key in ("correctness", "error_rate", RETENTION, "num_unique")]
        tags = [loop.tag(key) for key in ("cycle", "synthetic_proportion", "temperature", "seed")]
        life = half_life(retention)
        rows.append(
            [*tags, loop.status, reached_generation(loop), *last, "" if life is None else life, round(seconds / 60, 2)]
        )
    run.log_table("results.json", columns, rows)
    table: list[list[Any]] = [columns, ["---"] * len(columns), *rows]
    lines = [f"| {' | '.join(str(value) for value in row)} |" for row in table]
    run.describe(f"{config.description}\n\nThe last generation of each loop:\n\n" + "\n".join(lines))
