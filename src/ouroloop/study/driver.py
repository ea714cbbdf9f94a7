"""The driver of a study: it alone decides what runs next, hands loops to an executor, and tells Optuna what came back.

Each study has one, ensured by a lock that ends with its process. It may be killed at any time: the same command then
reads from the record what is finished, and unfinished loops go on from their last finished generation.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from itertools import chain
from time import monotonic
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.live import Live

from ouroloop.config import ConfigError, DataCycle, flatten
from ouroloop.console import LoopView, fitted, say
from ouroloop.plain import visible
from ouroloop.record import stores
from ouroloop.record.liveness import Pruned, close_dead_runs, running
from ouroloop.record.locks import HeldElsewhereError, StudyLock, holder
from ouroloop.record.provenance import loop_tags
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.cycle import fresh_share
from ouroloop.study.answer import answer, record_results
from ouroloop.study.config import StudyConfig
from ouroloop.study.executor import InProcess, LoopExecutor, make_executor
from ouroloop.study.search import Search
from ouroloop.study.status import (
    StudyLines,
    newest_loops,
    note_retention,
    reached,
    read_progress,
    status_table,
    study_record,
    study_table,
)
from ouroloop.study.task import Task
from ouroloop.study.trials import Trials
from ouroloop.study.work import LoopResult, require_possible, require_same_corpus, run_one

_POLL_SECONDS = 1.0
_MOST_LOST = 5  # workers that died in one generation of a loop: a few are bad luck, so many are the loop's fault


def run_study(
    config: StudyConfig,
    name: str,
    console: Console,
    workers: int | None = None,
    on: str = "local",
    address: str | None = None,
) -> int:
    """Run what is missing of the study, `workers` loops at a time; return how many of its loops failed.

    Its progress, its table and its answer are printed on the console.

    Raises:
        ConfigError: somebody else drives it, it was started with another configuration, or it cannot run here.
    """
    store = Store.open()
    with _driven(name) as lock, ExitStack() as entered:

        @cache
        def executor() -> LoopExecutor:
            made = make_executor(on, workers, address, store, name)
            entered.callback(made.shutdown, cancel_futures=True)
            made.everywhere(require_possible, config.loop, config.hungriest())
            return made

        if Trials.load(name) is None:  # whatever is wrong is found out before anything is recorded
            executor()
        elif on == "local" and config.loop.data.testbed.is_finite:  # other machines' files are not known here
            require_same_corpus(config.loop, name, newest_loops(store, name, config))
        trials = Trials.create(name, config)
        is_new = trials.config != config
        _refuse_changes(trials, config)
        run = _study_run(store, config, trials)
        close_dead_runs(store, driven=name)
        trials.note(driver=holder())
        with running(lambda: run):
            driver = _Driver(config, store, console, trials, run, lock)
            try:
                if first := driver.next():
                    driver.drive(first, executor())
            finally:
                entered.close()
                close_dead_runs(store, driven=name)
            loops = newest_loops(store, name, config) if driver.has_news else driver.recorded
            if is_new or driver.has_news or run.status != "FINISHED":  # else they are on the run already
                record_results(run, loops, config, driver.tasks)
        failed = sum(task.state == "failed" for task in driver.tasks)
        if failed:
            run.end("FAILED")
    console.print(fitted(study_table(name, loops, config.loop.data.testbed.headline), console))
    for line in answer(config, driver.tasks, loops):
        say(console, line)
    return failed


@contextmanager
def _driven(name: str) -> Iterator[StudyLock]:
    """Hold the study for this process alone."""
    lock = StudyLock(name)
    if not lock.acquire():
        known = Trials.load(name)
        by = known.attributes.get("driver") if known else None
        raise HeldElsewhereError(f"study {name!r} is being run by {by or 'another process'}")
    try:
        yield lock
    finally:
        lock.release()


def _refuse_changes(trials: Trials, config: StudyConfig) -> None:
    """Refuse another configuration: more values for what spans the grid extend a study, anything else makes another."""
    before = trials.config
    if before is not None:
        changed = config.changes_from(before)
        if changed:
            shown = ", ".join(f"{key} ({old} before, {new} now)" for key, (old, new) in changed.items())
            raise ConfigError(
                f"study {trials.name!r} exists with another configuration: {shown}; "
                "another name (--name) starts another study"
            )
    trials.note(config=config.model_dump(mode="json"), elsewhere=sorted(config.elsewhere))


def _study_run(store: Store, config: StudyConfig, trials: Trials) -> Run:
    """The study's run, found or created.

    Raises:
        HeldElsewhereError: it belongs to a study of the same name in another Optuna store that seems to be running.
    """
    own = trials.attributes.get("id") or uuid4().hex
    trials.note(id=own)
    found = store.find(level="study", study=trials.name)
    if not found:
        return _create_study_run(store, config, trials.name, own)
    run = found[0]
    is_other = run.tag("id") not in (None, own) and run.tag("root") != stores.root_id()
    if is_other and run.status == "RUNNING":
        raise HeldElsewhereError(
            f"a study {trials.name!r} of another root is being run by {run.tag('driver')} on the same MLflow store; "
            "take another name (--name) or, if that process is gone, end its run in the MLflow UI"
        )
    run.log_tags(id=own, root=stores.root_id(), driver=holder())
    return run


def _create_study_run(store: Store, config: StudyConfig, name: str, own_id: str) -> Run:
    spanned = {"synthetic_proportion": "chosen"} if config.kind != "grid" else {}
    each = [loop_tags(loop, name) for loop in config.loops()] or [loop_tags(config.loop, name)]
    tags = {key: ",".join(dict.fromkeys(tags[key] for tags in each)) for key in each[0]} | spanned
    own = {"level": "study", "root": stores.root_id(), "id": own_id, "driver": holder()}
    run = store.create(name, None, own | tags)
    methods = {"methods": ", ".join(config.methods)} if config.methods else {}  # names alone: a batch is limited
    run.log_params(flatten(config.model_copy(update={"description": "", "methods": {}})) | methods)
    run.describe(config.description)
    return run


class _Driver:
    """What is known of each loop of the study, and what runs."""

    def __init__(
        self, config: StudyConfig, store: Store, console: Console, trials: Trials, run: Run, lock: StudyLock
    ) -> None:
        self._config, self._store, self._console = config, store, console
        self._trials, self._run, self._lock = trials, run, lock
        self._running: dict[Future[LoopResult], Task] = {}
        self._lost: dict[tuple[str, int], int] = {}  # by task and generation: how many workers were lost in it
        self._alike: dict[str, list[Task]] = {}  # further trials of a loop that was running when it was chosen again
        self._polled, self._watch = monotonic(), _Watch(self, console)
        self._show: Callable[[], None] = lambda: None
        found, self.recorded = trials.recorded(), newest_loops(store, trials.name, config)
        self._known, self._num_asked, self._grid = found.tasks(), found.num_asked, iter(config.loops())
        missing = [*self._gone(), *(task for task in self.tasks if task.state == "failed")]
        self.has_news = bool(missing)
        for task in missing:  # all that is known of it from now on is that it has to run
            del self._known[task.key]
        self._chosen = iter(missing if config.kind == "pareto" else [])

    @property
    def tasks(self) -> list[Task]:
        return list(self._known.values())

    def _gone(self) -> list[Task]:
        """The tasks that are done according to Optuna but not to MLflow's record: there Optuna is wrong."""
        recorded = {run.tag("fingerprint"): run for run in self.recorded}
        gone = []
        for task in self.tasks:
            run = recorded.get(task.key) or recorded.get(task.loop.fingerprint())
            if task.state == "stopped" and run is not None:
                read_progress(task, run)
            is_whole = run is not None and run.status == "FINISHED" and reached(run) >= task.loop.num_generations
            if task.state == "done" and not is_whole:
                gone.append(task)
        if gone:
            say(self._console, f"{len(gone)} finished loops are no longer on record; those still needed are run again")
        return gone

    def drive(self, first: Task, executor: LoopExecutor) -> None:
        """Run this loop, and then others until the study needs no more."""
        with self._shown(executor):
            self._submit(executor, first)
            while self._running:
                done, _ = wait(self._running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                self._poll()
                for future in done:
                    self._finish(self._running.pop(future), future)
                while len(self._running) < executor.workers and (task := self.next()) is not None:
                    self._submit(executor, task)
                self._lock.keep()

    def _submit(self, executor: LoopExecutor, task: Task) -> None:
        self.has_news = True
        task.state, task.error = "runs", None
        self._trials.note_progress(task)
        self._known[task.key] = task
        arguments = (task.loop, self._trials.name, self._run.id, self._config.method(task.loop.fingerprint()))
        if isinstance(executor, InProcess):
            self._watch.task = task
            with self._watch as watch:
                future = executor.submit(run_one, *arguments, watch=watch)
        else:
            future = executor.submit(run_one, *arguments, executor.environment)
        self._running[future] = task

    def next(self) -> Task | None:
        """What to run next: first what was stopped, if it is still asked for; then what the kind of study asks for."""
        for task in self.tasks:
            if task.state == "stopped" and self._is_decided(task):
                task.state = "pruned"
                self._mark_pruned(task)
                self._end(task)
            elif task.state == "stopped" and (self._config.kind != "grid" or self._config.spans(task.loop)):
                return task
        if self._config.kind == "pareto":
            again = next(self._chosen, None)
            return Task(again.loop, again.loop.fingerprint()) if again is not None else self._ask()
        for loop in self._grid if self._config.kind == "grid" else self._search().wanted():
            if (key := loop.fingerprint()) not in self._known or self._known[key].state == "pruned":
                return Task(loop, key)
        return None

    def _search(self) -> Search:
        return Search(self._config, self._known.values())

    def _is_decided(self, task: Task) -> bool:
        """Whether nothing depends on this loop any more."""
        return self._config.kind == "search" and self._search().is_decided(task.loop)

    def _mark_pruned(self, task: Task) -> None:
        """Say so on the run of a loop that was stopped by something else, and that nothing depends on any more."""
        alike = self._store.find(level="loop", study=self._trials.name, fingerprint=task.loop.fingerprint())
        for run in alike[:1]:
            run.log_tags(pruned="yes")

    def _ask(self) -> Task | None:
        """The loop that the sampler chooses. A point that is chosen again is given another seed.

        When all its seeds have been used, it is a loop that is known already.
        """
        while self._num_asked < self._config.pareto.num_trials:
            self._num_asked += 1
            trial = self._trials.ask(self._config)
            chosen = trial.params
            arm = (DataCycle(chosen["cycle"]), chosen["temperature"], round(chosen["synthetic_proportion"], 9))
            loops = {
                loop.fingerprint(): loop for loop in (self._config.loop_at(*arm, seed) for seed in self._config.seeds)
            }
            unused = (key for key in loops if key not in self._known)
            ended = (key for key in loops if key in self._known and self._known[key].state == "done")
            key = next(chain(unused, ended, loops))
            task = Task(loops[key], key)
            self._trials.name_asked(trial, task)
            if key not in self._known or self._known[key].state != "runs":
                return task
            self._alike.setdefault(key, []).append(task)  # what comes of it is told to both
        return None

    def _poll(self) -> None:
        """Read from the record how far the running loops have come, and tell those that nobody needs any more."""
        elapsed = monotonic() - self._polled
        if elapsed < _POLL_SECONDS:  # short loops end faster than anybody reads
            return
        self._polled = monotonic()
        running = {task.key: task for future, task in self._running.items() if not future.done()}
        moved = []
        for run in self._store.running_loops(self._trials.name) if running else ():
            task = running.get(run.tag("fingerprint") or "")
            if task is None:
                continue
            before = task.reached - task.copied
            task.seconds += elapsed
            if read_progress(task, run):
                task.computed += task.reached - task.copied - before
                moved.append(task)
            if run.tag("wanted") != "no" and self._is_decided(task):
                run.log_tags(wanted="no")
        self._trials.note_progress(*moved)
        self._show()

    def watched(self, task: Task, elapsed: float) -> None:
        """Note that a loop of this process has computed a generation.

        Raises:
            Pruned: nothing depends on it any more.
        """
        task.seconds, task.computed = task.seconds + elapsed, task.computed + 1
        if monotonic() - self._polled > _POLL_SECONDS:
            self._polled = monotonic()
            self._trials.note_progress(task)
        if task.reached < task.loop.num_generations and self._is_decided(task):
            raise Pruned

    def _finish(self, task: Task, future: "Future[LoopResult]") -> None:
        error = future.exception()
        if isinstance(error, ConfigError):
            raise getattr(error, "cause", None) or error  # Ray's own text is a traceback in colours
        result = LoopResult("superseded", error=f"{type(error).__name__}: {error}") if error else future.result()
        if result.state == "superseded":
            self._give_back(task, result.error)
            return
        task.state, task.error = result.state, result.error
        if result.ran_short:
            (t, said), more = result.ran_short[0], len(result.ran_short) - 1
            also = f"; too few in {more} later generations" if more else ""
            say(self._console, f"{self._config.label(task.loop)}, t = {t}: {said}{also}", "yellow")
        if result.state == "done":
            if result.num_computed and not task.computed:  # it ended before the record was read
                task.computed = result.num_computed
                task.seconds += monotonic() - self._polled
            task.computed = min(task.computed, task.loop.num_generations - result.num_copied)  # a copy may be read half
            task.retention, task.reached = dict(result.retention), task.loop.num_generations
        if result.state == "done" and task.value is None:
            task.state, task.error = "failed", "its last generation has no retention: D_0 has no diversity"
        self._end(task)

    def _give_back(self, task: Task, reason: str | None) -> None:
        """Put back a loop whose worker was lost; it has failed only if the same generation loses workers repeatedly."""
        where = task.key, task.reached + 1
        self._lost[where] = often = self._lost.get(where, 0) + 1
        task.state = "stopped"
        if often == _MOST_LOST:
            task.state, task.error = "failed", f"{often} workers were lost in generation {where[1]}: {reason}"
            self._end(task)

    def _end(self, task: Task) -> None:
        self.has_news = True
        values = [] if task.value is None else [task.value, fresh_share(task.loop.cycle, task.loop.data.num_examples)]
        for told in (task, *self._alike.pop(task.key, [])):
            self._trials.end(replace(task, number=told.number), self._config, values)
        if task.state == "failed":
            say(self._console, f"{self._config.label(task.loop)} failed: {visible(str(task.error))}", "red")
        elif task.state == "pruned":
            say(self._console, f"{task.loop.label} ended early: it can no longer change the answer")

    def _record(self) -> dict[str, Any]:
        return study_record(self._trials.name, self._config, self.tasks, self._num_asked)

    @contextmanager
    def _shown(self, executor: LoopExecutor) -> Iterator[None]:
        """Show what runs: a table on a terminal, lines elsewhere; a loop of this process shows itself."""
        if isinstance(executor, InProcess):
            yield
        elif self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                self._show = lambda: live.update(status_table([self._record()], running_only=True))
                yield
        else:
            lines = StudyLines(self._console)
            self._show = lambda: lines.show(self._record())
            yield
            self._show()


class _Watch(LoopView):
    """Shows the loops of this process, one after another, and tells the driver how far each has come."""

    task: Task

    def __init__(self, driver: _Driver, console: Console) -> None:
        super().__init__(console)
        self._driver = driver

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        begun = self._started
        super().generation_finished(generation, metrics, source)
        self.task.reached = generation
        note_retention(self.task, metrics)
        if not source:
            self._driver.watched(self.task, monotonic() - begun)
