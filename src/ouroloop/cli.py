"""The command line: parse, check, call, and say in one line what went wrong."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ouroloop import __version__, stores
from ouroloop.config import ConfigError, LoopConfig, StudyConfig, flatten
from ouroloop.preset import load_preset, preset_name
from ouroloop.signals import Interrupted, catch_signals


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 done, 1 it failed, 2 bad input, 128 + n stopped by signal n."""
    catch_signals()
    try:
        options, extra = _parser().parse_known_args(arguments)
        options.overrides = _overrides(extra, options)
        return int(options.run(options))
    except ConfigError as error:
        print(f"ouroloop: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not stores.is_full(error):
            raise
        print(f"ouroloop: {stores.no_room()}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print("ouroloop: stopped; the same command goes on where it was", file=sys.stderr)
        return 128 + interrupted.signum


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ouroloop",
        description="Model collapse where truth is decidable: run the self-consuming training loop and watch it.",
        epilog="Presets are the files in experiments/. Any field of a preset can be overridden: --group.field=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ouroloop {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary, epilog=epilog, allow_abbrev=False)

    run = command(
        "run",
        "Run one loop; the same configuration and seed goes on where it stopped.",
        "Example: ouroloop run laptop --cycle.kind=incremental --cycle.synthetic_proportion=0.25 --seed=3",
    )
    run.add_argument("preset", help="name of a file in experiments/, or a path")
    run.add_argument(
        "--dry-run", action="store_true", help="print the configuration and an estimate of time and disk, run nothing"
    )
    run.add_argument("--new", action="store_true", help="start over, even if such a loop exists")
    run.set_defaults(run=_run)

    sweep = command(
        "sweep",
        "Run a study over the synthetic proportion; the same command finishes what is missing.",
        "Example: ouroloop sweep sweep-laptop --seeds=[1,2,3] --loop.num_generations=25",
    )
    sweep.add_argument("preset", help="name of a study in experiments/, or a path")
    sweep.add_argument("--workers", type=_positive, default=1, help="processes that run loops, default 1")
    sweep.add_argument(
        "--dry-run", action="store_true", help="print the cells and an estimate of time and disk, run nothing"
    )
    sweep.set_defaults(run=_sweep)

    worker = command("worker", "One more worker for a study, on any machine that reaches its stores.")
    worker.add_argument("study", help="a study that `ouroloop sweep` has started")
    worker.set_defaults(run=_worker)

    status = command("status", "What ran, runs, failed and is left.")
    status.add_argument("study", nargs="?", help="only this study")
    status.add_argument("--json", action="store_true", help="for programs instead of people")
    status.set_defaults(run=_status)

    report = command("report", "Write a study's or loop's curves, picture and samples as files.")
    report.add_argument("name", metavar="STUDY-or-LOOP", help="a study, the preset of a lone loop, or a run id")
    report.add_argument("--folder", default="", help="where to, default mlruns/reports/NAME")
    report.add_argument("--samples", type=_positive, nargs="*", default=[1, 10, 25, 50], help="generations to list")
    report.set_defaults(run=_report)

    _add_clean(command)
    ui = command("ui", "The MLflow UI over mlruns/, on this machine only.")
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    ui.set_defaults(run=_ui)
    return parser


def _add_clean(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    clean = command("clean", "Report and free what nothing needs any more; results stay.")
    clean.add_argument(
        "--older-than", required=True, metavar="AGE", help="unused since: a number and m(inutes), h, d, w; 30d"
    )
    clean.add_argument("--dry-run", action="store_true", help="only report")
    clean.set_defaults(run=_clean)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _overrides(extra: list[str], options: argparse.Namespace) -> list[str]:
    if extra and not hasattr(options, "preset"):
        raise ConfigError(f"unknown argument {extra[0]!r}; see --help")
    for argument in extra:
        if not argument.startswith("--") or "=" not in argument:
            raise ConfigError(f"unknown argument {argument!r}; overrides are written --group.field=value")
    return [argument.removeprefix("--") for argument in extra]


def _run(options: argparse.Namespace) -> int:
    config = load_preset(options.preset, options.overrides, LoopConfig)
    if options.dry_run:
        return _show_loop(config)
    stores.require_writable()
    from rich.console import Console

    console = Console()
    with console.status("loading torch, transformers and MLflow"):
        from ouroloop.loop import run_loop
        from ouroloop.model import build_model
        from ouroloop.sample import require_causal
        from ouroloop.track import Store, close_dead_runs
        from ouroloop.view import LoopView

    require_causal(build_model(config.model, 0))
    study = preset_name(options.preset)
    store = Store.open()
    close_dead_runs(store)
    with stores.locked(study, config.fingerprint()), LoopView(console) as view:
        name = f"{study}-{config.label}"
        run = run_loop(config, store, name=name, study=study, new=options.new, observer=view)
    console.print(view.table())
    console.print(f"Recorded as run {run.id}. Look at it: [bold]make ui[/bold]", highlight=False, soft_wrap=True)
    return 0


def _show_loop(config: LoopConfig) -> int:
    from rich.console import Console

    from ouroloop.estimate import cost, cost_line, loop_totals
    from ouroloop.model import build_model, num_parameters

    parameters = num_parameters(build_model(config.model, 0))
    console = Console()
    for key, value in flatten(config).items():
        console.print(f"{key} = {value}", highlight=False, markup=False)
    console.print(f"\n{parameters:,} parameters without position embeddings", highlight=False)
    with console.status("timing a few steps"):
        of = cost(config)
    console.print(cost_line(loop_totals(config, of), of), highlight=False, soft_wrap=True)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    config = load_preset(options.preset, options.overrides, StudyConfig)
    from rich.console import Console

    console = Console()
    if options.dry_run:
        from ouroloop.estimate import cost, cost_line, plan_table, study_totals

        console.print(plan_table(config))
        with console.status("timing a few steps"):
            of = cost(config.loop)
        console.print(cost_line(study_totals(config, of), of, options.workers), highlight=False, soft_wrap=True)
        return 0
    stores.require_writable()
    with console.status("loading torch, transformers and MLflow"):
        from ouroloop.model import build_model
        from ouroloop.queue import Queue
        from ouroloop.report import write_reports
        from ouroloop.results import answer
        from ouroloop.sample import require_causal
        from ouroloop.status import study_table
        from ouroloop.sweep import run_study
        from ouroloop.track import Store

    require_causal(build_model(config.loop.model, 0))
    name = preset_name(options.preset)
    store = Store.open()
    failed = run_study(config, name, store, console, options.workers)
    console.print(study_table(store, name))
    for line in answer(config, Queue.create(name)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    folder = stores.runs_folder() / "reports" / name
    write_reports(store, name, folder, generations=[1, 10, 25, 50])
    console.print(f"Report: {folder}\nLook at it: [bold]make ui[/bold]", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _worker(options: argparse.Namespace) -> int:
    from rich.console import Console

    from ouroloop.sweep import work
    from ouroloop.track import Store

    work(options.study, Store.open(), Console())
    return 0


def _status(options: argparse.Namespace) -> int:
    stores.require_writable()
    from rich.console import Console

    from ouroloop.status import lone_loops, status, status_table
    from ouroloop.track import Store, close_dead_runs

    studies = status(options.study)
    if options.study is None:
        store = Store.open()
        close_dead_runs(store)
        studies += lone_loops(store)
    if options.json:
        print(json.dumps(studies, indent=2))
    else:
        Console().print(status_table(studies))
    return 0


def _report(options: argparse.Namespace) -> int:
    from ouroloop.report import write_reports
    from ouroloop.track import Store

    folder = Path(options.folder) if options.folder else stores.runs_folder() / "reports" / options.name
    for written in write_reports(Store.open(), options.name, folder, options.samples):
        print(written)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from ouroloop.clean import age_seconds, clean

    age = age_seconds(options.older_than)
    stores.require_writable()
    from ouroloop.track import Store

    freed = clean(Store.open(), age, options.dry_run)
    for kind in freed:
        print(f"{kind.num_bytes / 1e6:>10,.1f} MB  {kind.count:>6,} {kind.kind}")
    total = sum(kind.num_bytes for kind in freed)
    print(f"{total / 1e6:>10,.1f} MB  {'would be freed' if options.dry_run else 'freed'}")
    return 0


def _ui(options: argparse.Namespace) -> int:
    stores.require_writable()
    from ouroloop.track import Store

    experiment = Store.open().experiment_id
    address = f"http://127.0.0.1:{options.port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    print(f"MLflow UI over {stores.tracking_uri()}\n  {address}\nCtrl-C ends it.", flush=True)
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", stores.tracking_uri(),
        "--artifacts-destination", str(stores.runs_folder() / "artifacts"),
        "--host", "127.0.0.1", "--port", str(options.port), "--workers", "1",
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    server = subprocess.Popen(command, env=os.environ | quiet)
    try:
        return server.wait()
    except Interrupted:
        server.terminate()
        server.wait()
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
