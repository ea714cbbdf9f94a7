"""A study: many loops over the synthetic proportion, queued in Optuna, recorded in MLflow.

Optuna holds who does what, MLflow holds what came of it. A trial is one loop; a worker takes one after
another until the study needs no more. The same command again runs only what is missing, and a loop that was
stopped goes on in its own run.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import sleep

from optuna import Trial
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from rich.console import Console
from rich.live import Live
from sqlalchemy.exc import SQLAlchemyError

from ouroloop.config import ConfigError, StudyConfig, flatten
from ouroloop.console import LoopView, StudyLines
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted, Pruned, close_dead_runs, running
from ouroloop.record.loading import loading
from ouroloop.record.provenance import create_study
from ouroloop.record.track import Store
from ouroloop.science.cycle import fresh_share
from ouroloop.science.metrics import RETENTION
from ouroloop.study import search
from ouroloop.study.answer import record_results
from ouroloop.study.queue import Queue
from ouroloop.study.status import loop_of, status_table, study_record

_MAX_DEAD = 10  # workers, for each one asked for: some deaths are bad luck, more are a fault
_POLL_SECONDS = 2.0
_CHANGEABLE = ("synthetic_proportions", "truth_labels", "seeds", "description", "keep_weights", "search.precision",
               "pareto.num_trials")  # fmt: skip


def run_study(config: StudyConfig, name: str, store: Store, console: Console, workers: int = 1) -> int:
    """Runs what is missing of the study with so many workers; returns how many of its loops failed.

    Raises:
        ConfigError: a study of that name was started with another configuration.
    """
    with stores.locked(name, "study"):
        close_dead_runs(store)
        queue = Queue.create(name, search.directions(config))
        _refuse_changes(queue, config)
        queue.release_dead()
        queue.add_missing(search.loops_to_queue(queue, config))
        found = store.find(level="study", study=name)
        with running(lambda: found[0] if found else create_study(store, config, name)) as run:
            run.log_tags(place=stores.place())
            queue.study.set_user_attr("run", run.id)
            processes = _Workers(queue, console, workers) if workers > 1 else None
            while queue.trials(TrialState.WAITING, TrialState.RUNNING) or search.wants_more(queue, config):
                if processes is None:
                    work(name, store, console)
                else:
                    processes.watch()
                queue.release_dead()
            record_results(run, store, config, queue)
        close_dead_runs(store)
        failed = [trial for trial in queue.latest() if trial.state is TrialState.FAIL]
        if failed:
            run.end("FAILED")
    return len(failed)


def _within(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is, or lies in, one of these."""
    return any(f"{key}.".startswith(f"{name}.") or f".{key}".endswith(f".{name}") for name in names)


def _refuse_changes(queue: Queue, config: StudyConfig) -> None:
    """More values for what spans the grid extend a study; anything else would make it another one."""
    before = queue.study.user_attrs.get("config")
    if before is not None:
        old, new = flatten(StudyConfig.model_validate(before)), flatten(config)
        extensible = _CHANGEABLE if config.kind == "pareto" else (*_CHANGEABLE, "cycles", "temperatures")
        fixed = [key for key in sorted(old.keys() | new.keys()) if not _within(key, extensible)]
        changed = [key for key in fixed if old.get(key) != new.get(key)]
        if changed:
            shown = ", ".join(f"{key} ({old.get(key)} before, {new.get(key)} now)" for key in changed)
            raise ConfigError(
                f"study {queue.study.study_name!r} exists with another configuration: {shown}; "
                "copy the preset under a new name to start another study"
            )
    queue.study.set_user_attr("config", config.model_dump(mode="json"))


class _TrialView(LoopView):
    """Shows the loop, tells Optuna the diversity of each generation, and ends a loop that nothing depends on."""

    def __init__(self, console: Console, queue: Queue, trial: Trial) -> None:
        super().__init__(console)
        self._queue, self._trial, self._num_computed = queue, trial, 0

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        super().generation_finished(generation, metrics, source)
        kept = metrics.get(RETENTION)
        if kept is None:
            return
        self._queue.report(self._trial, generation, kept)
        if kept > 0:
            self._queue.note(self._trial, **{search.CEILING: kept / metrics["diversity_levenshtein"]})
        if source:
            return
        self._num_computed += 1
        self._queue.note(self._trial, computed=self._num_computed)
        is_last = self._config is not None and generation == self._config.num_generations
        if not is_last and len(self._queue.study.directions) == 1 and self._trial.should_prune():
            raise Pruned


def work(name: str, store: Store, console: Console) -> None:
    """Takes loops of the study until it needs no more; waits while others hold what is left.

    A loop that fails is recorded as FAILED and the next one is taken; an interruption gives the loop
    back, to be gone on with later.
    """
    queue = Queue.load(name)
    if queue is None:
        raise ConfigError(
            f"no study {name!r}; there are: {', '.join(known.study.study_name for known in Queue.all()) or 'none'}"
        )
    with loading(console):  # torch and Lightning among them, which only a worker needs
        from ouroloop.loop.loop import run_loop

    parent = store.get(queue.study.user_attrs["run"])
    while (trial := _next_trial(queue)) is not None:
        loop = loop_of(trial)
        try:
            with stores.locked(name, loop.fingerprint()), queue.alive(trial), _TrialView(console, queue, trial) as view:
                run = run_loop(loop, store, name=loop.label, study=name, parent=parent, observer=view)
            retention = dict(run.history(RETENTION))[loop.num_generations]
        except Interrupted:
            queue.give_back(trial)
            raise
        except stores.HeldElsewhereError:  # somebody runs the very loop; afterwards it is known
            queue.give_back(trial)
            continue
        except Pruned:
            queue.finish(trial, TrialState.PRUNED)
            store.find(level="loop", study=name, fingerprint=loop.fingerprint())[0].log_tags(pruned="yes")
            console.print(f"{loop.label} ended early: it can no longer change the answer", markup=False)
            continue
        except Exception as error:
            if stores.is_full(error):
                with suppress(SQLAlchemyError, StorageInternalError):  # the queue may have no room either
                    queue.give_back(trial)
                raise stores.no_room() from None
            queue.note(trial, error=f"{type(error).__name__}: {error}")
            queue.finish(trial, TrialState.FAIL)
            console.print(f"{loop.label} failed: {type(error).__name__}: {error}", style="red", markup=False)
            continue
        values = [retention, fresh_share(loop.cycle, loop.data.num_examples)]
        queue.finish(trial, TrialState.COMPLETE, *values[: len(queue.study.directions)])


def _next_trial(queue: Queue) -> Trial | None:
    """A trial of ours; None when the study needs none and nobody holds one that might come back."""
    while True:
        config = StudyConfig.model_validate(queue.study.user_attrs["config"])
        search.direct(queue.study, config)
        trial = queue.claim()
        if trial is not None:
            search.suggest(trial, config)
            return trial
        trial = search.ask(queue, config)
        if trial is not None or not queue.trials(TrialState.WAITING, TrialState.RUNNING):
            return trial
        sleep(_POLL_SECONDS)
        queue.release_dead()


class _Workers:
    """Worker processes of a study. One that dies is replaced, as long as loops wait and it is no habit."""

    def __init__(self, queue: Queue, console: Console, count: int) -> None:
        self._queue, self._console, self._count = queue, console, count
        self._name = queue.study.study_name
        self._logs = stores.runs_folder() / "logs"
        self._logs.mkdir(exist_ok=True)
        self._num_dead = 0
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        # Set before torch is imported: no worker may take the cores of another
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._count))}
        command = [sys.executable, "-m", "ouroloop", "worker", self._name]
        with (self._logs / f"{self._name}-worker-{number}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def watch(self) -> None:
        """Starts the workers and shows what they run until all have ended; an interruption ends them too.

        Raises:
            ConfigError: a worker refused its input.
            RuntimeError: workers keep dying.
        """
        try:
            for number in range(1, self._count + 1):
                self._processes[number] = self._start(number)
            lines = StudyLines(self._console)
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                while self._processes:
                    record = study_record(self._queue)
                    if self._console.is_terminal:
                        live.update(status_table([record], running_only=True))
                    else:
                        lines.show(record)
                    sleep(1)
                    self._replace_dead()
            lines.show(study_record(self._queue))
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
                log = (self._logs / f"{self._name}-worker-{number}.log").read_text(errors="replace")
                raise ConfigError(f"worker {number}: {log.strip().splitlines()[-1].removeprefix('ouroloop: ')}")
            if process.returncode == 0:
                continue
            self._console.print(f"worker {number} ended with {process.returncode}; its log is in {self._logs}")
            self._queue.release_dead()
            self._num_dead += 1
            if self._num_dead > _MAX_DEAD * self._count:
                raise RuntimeError(f"workers keep dying; their logs are in {self._logs}")
            if self._queue.trials(TrialState.WAITING):
                self._processes[number] = self._start(number)
