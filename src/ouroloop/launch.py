"""From a preset to what it starts, or would start: a loop or a study, and what a person sees at its end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from ouroloop.config import LoopConfig, StudyConfig, flatten
from ouroloop.presets import load_preset, preset_name
from ouroloop.record import stores
from ouroloop.record.loading import loading

_UI = "[bold]ouroloop ui[/bold] ([bold]make ui[/bold] in a checkout)"


def run_preset(preset: str, overrides: Sequence[str], dry_run: bool, new: bool) -> int:
    study, config = preset_name(preset), load_preset(preset, overrides, LoopConfig)
    if dry_run:
        return _show_loop(config)
    stores.require_writable()
    with _loading() as console:
        from ouroloop.console import LoopView, fitted
        from ouroloop.loop.generation import load_libraries
        from ouroloop.loop.loop import run_loop
        from ouroloop.record.liveness import close_dead_runs
        from ouroloop.record.track import Store

        load_libraries(config)
        _require_possible(config)
    store = Store.open()
    close_dead_runs(store)
    with stores.locked(study, config.fingerprint()), LoopView(console) as view:
        name = f"{study}-{config.label}"
        done = run_loop(config, store, name=name, study=study, new=new, observer=view)
    console.print(fitted(view.table(), console))
    console.print(f"Recorded as run {done.id}. Look at it: {_UI}", highlight=False, soft_wrap=True)
    return 0


def sweep_preset(preset: str, overrides: Sequence[str], dry_run: bool, workers: int) -> int:
    name, config = preset_name(preset), load_preset(preset, overrides, StudyConfig)
    if dry_run:
        return _show_study(config, workers)
    stores.require_writable()
    with _loading() as console:
        from ouroloop.console import fitted
        from ouroloop.record.track import Store
        from ouroloop.report.page import write_report
        from ouroloop.study.answer import answer
        from ouroloop.study.queue import Queue
        from ouroloop.study.status import study_table
        from ouroloop.study.sweep import run_study

        _require_possible(config.loop)
    store = Store.open()
    failed = run_study(config, name, store, console, workers)
    console.print(fitted(study_table(store, name), console))
    for line in answer(config, Queue.create(name)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    page = write_report(store, name, stores.runs_folder() / "reports" / name)
    console.print(f"Report: {page}\nRuns: {_UI}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


@contextmanager
def _loading() -> Iterator[Console]:
    console = Console()
    with loading(console):
        yield console


def _require_possible(config: LoopConfig) -> None:
    """Before anything is recorded; torch is imported for a network only."""
    if config.model.kind != "transformers" or config.train is None:
        return
    from ouroloop.learner.network.batches import packed_attention
    from ouroloop.learner.network.model import build_model
    from ouroloop.learner.network.sampling import require_causal
    from ouroloop.learner.network.train import build_trainer

    build_trainer(config.train, [])
    model = build_model(config.model, 0)
    require_causal(model)
    if config.train.batching == "packed":
        with packed_attention(model):
            pass  # entering it refuses a model that it would change


def _show_loop(config: LoopConfig) -> int:
    with _loading() as console:
        from ouroloop.study.estimate import cost, cost_line, loop_totals

        _require_possible(config)
    size = "no network: the model is its training set"
    if config.model.kind == "transformers":
        from ouroloop.learner.network.model import build_model, num_parameters

        size = f"{num_parameters(build_model(config.model, 0)):,} parameters without position embeddings"
    for key, value in flatten(config).items():
        console.print(f"{key} = {value}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{size}", highlight=False)
    with console.status("timing a few steps"):
        of = cost(config)
    console.print(cost_line(loop_totals(config, of), of), highlight=False, soft_wrap=True)
    return 0


def _show_study(config: StudyConfig, workers: int) -> int:
    with _loading() as console:
        from ouroloop.study.estimate import cost, cost_line, plan_table, study_totals

        _require_possible(config.loop)
    console.print(plan_table(config))
    with console.status("timing a few steps"):
        of = cost(config.loop)
    console.print(cost_line(study_totals(config, of), of, workers), highlight=False, soft_wrap=True)
    return 0
