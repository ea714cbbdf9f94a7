"""The command line: parse, check, call, and say in one line what went wrong."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ouroloop import __version__
from ouroloop.config import ConfigError, LoopConfig, ModelConfig, flatten
from ouroloop.presets import load_preset, preset_name
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted, catch_signals
from ouroloop.study.config import StudyConfig

_MODEL_HELP = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL-ID, runs:/RUN-ID or a saved folder"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 done, 1 it failed, 2 bad input, 128 + n stopped by signal n."""
    catch_signals()
    try:
        options, extra = _parser().parse_known_args(arguments)
        options.overrides = _overrides(extra, options)
        return int(options.run(options))
    except ConfigError as error:
        print(f"ouroloop: {stores.masked(str(error))}", file=sys.stderr)
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
    sweep.add_argument("--workers", type=_positive, help="loops at a time; default 1, with Ray what its machines take")
    sweep.add_argument("--on", choices=["local", "ray"], default="local", help="processes of this machine, or Ray")
    sweep.add_argument("--address", help="of a running Ray cluster; without one Ray is started on this machine")
    sweep.add_argument(
        "--dry-run", action="store_true", help="print the cells and an estimate of time and disk, run nothing"
    )
    sweep.set_defaults(run=_sweep)

    status = command("status", "What ran, runs, failed and is left.")
    status.add_argument("study", nargs="?", help="only this study, or the lone loops of this preset")
    status.add_argument("--json", action="store_true", help="for programs instead of people")
    status.set_defaults(run=_status)

    report = command("report", "Write what a study or loop found as one HTML page, with its figures and data.")
    report.add_argument("name", metavar="STUDY-or-LOOP", help="a study, the preset of a lone loop, or a run id")
    report.add_argument("--folder", default="", help="where to, default mlruns/reports/NAME")
    report.set_defaults(run=_report)

    _add_model_commands(command)
    _add_clean(command)

    ui = command("ui", "The MLflow UI over mlruns/, on this machine only.")
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    ui.set_defaults(run=_ui)
    return parser


def _add_model_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    register = command("register", "Register each cell's models at the stages of its collapse, under stable names.")
    register.add_argument(
        "study", help="a study, or the preset of lone loops; again after more seeds, it brings up to date"
    )
    register.set_defaults(run=_register)

    sample = command(
        "sample",
        "Expressions from a model, each with its verdict: a table, or tab-separated lines in a pipe.",
        "Example: ouroloop sample models:/ouroloop-incremental-0.25@onset -n 20 --prompt='( not'",
    )
    sample.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    sample.add_argument("-n", type=_positive, default=20, help="how many, default 20")
    sample.add_argument("--temperature", type=_temperature, help="default: the one at which its loop sampled")
    sample.add_argument("--prompt", default="", help="words that every expression begins with")
    sample.add_argument("--seed", type=_seed, default=0, help="the same seed, the same expressions; default 0")
    sample.set_defaults(run=_sample)

    compare = command(
        "compare",
        "What the second model can no longer write: the expressions of D_0 whose probability fell most.",
        "Example: ouroloop compare models:/ouroloop-incremental-0.25@healthy models:/ouroloop-incremental-0.25@onset",
    )
    compare.add_argument(
        "models",
        metavar="STUDY-or-MODEL",
        nargs="+",
        help=f"a study: its cells' first stage and last; or two models, {_MODEL_HELP}",
    )
    compare.add_argument("-n", type=_positive, default=20, help="how many expressions to list, default 20")
    compare.add_argument("--temperature", type=_temperature, default=1.0, help="of both models' softmax, default 1")
    compare.add_argument("--json", action="store_true", help="everything, for programs")
    compare.set_defaults(run=_compare)


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


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to 10")
    return value


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
    with console.status("loading libraries"):
        from ouroloop.console import LoopView
        from ouroloop.loop.attempt import run_alone
        from ouroloop.loop.generation import load_libraries
        from ouroloop.record.track import Store

        load_libraries(config)
        _check_model(config)
    study = preset_name(options.preset)
    store = Store.open()
    with LoopView(console) as view:
        run = run_alone(config, store, name=f"{study}-{config.label}", preset=study, new=options.new, observer=view)
    console.print(view.table())
    console.print(f"Recorded as run {run.id}. Look at it: [bold]make ui[/bold]", highlight=False, soft_wrap=True)
    return 0


def _check_model(config: LoopConfig) -> None:
    """Before anything is recorded; torch is imported for a network only."""
    if isinstance(config.model, ModelConfig):
        from ouroloop.learner.network.batches import packed_attention
        from ouroloop.learner.network.model import build_model
        from ouroloop.learner.network.sampling import require_causal

        model = build_model(config.model, 0)
        require_causal(model)
        if config.train is not None and config.train.batching == "packed":
            with packed_attention(model):
                pass  # entering it refuses a model that it would change


def _show_loop(config: LoopConfig) -> int:
    from rich.console import Console

    from ouroloop.study.estimate import cost, cost_line, loop_totals

    size = "no network: the model is its training set"
    if isinstance(config.model, ModelConfig):
        from ouroloop.learner.network.model import build_model, num_parameters

        size = f"{num_parameters(build_model(config.model, 0)):,} parameters without position embeddings"
    console = Console()
    for key, value in flatten(config).items():
        console.print(f"{key} = {value}", highlight=False, markup=False)
    console.print(f"\n{size}", highlight=False)
    with console.status("timing a few steps"):
        of = cost(config)
    console.print(cost_line(loop_totals(config, of), of), highlight=False, soft_wrap=True)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    config = load_preset(options.preset, options.overrides, StudyConfig)
    from rich.console import Console

    console = Console()
    if options.dry_run:
        from ouroloop.study.estimate import cost, cost_line, plan_table, study_totals

        console.print(plan_table(config))
        with console.status("timing a few steps"):
            of = cost(config.loop)
        console.print(cost_line(study_totals(config, of), of, options.workers or 1), highlight=False, soft_wrap=True)
        return 0
    stores.require_writable()
    with console.status("loading libraries"):
        from ouroloop.record.track import Store
        from ouroloop.report.page import write_report
        from ouroloop.study.answer import study_answer
        from ouroloop.study.driver import run_study
        from ouroloop.study.status import study_table

        if options.workers in (None, 1) and options.on == "local":
            _check_model(config.loop)
    name = preset_name(options.preset)
    store = Store.open()
    failed = run_study(config, name, store, console, options.workers, options.on, options.address)
    console.print(study_table(store, name))
    for line in study_answer(name):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    page = write_report(store, name, stores.runs_folder() / "reports" / name)
    console.print(f"Report: {page}\nRuns: [bold]make ui[/bold]", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console

    from ouroloop.study.status import status, status_table

    studies = status(options.study)
    if options.json:
        print(json.dumps(studies, indent=2))
    else:
        Console().print(status_table(studies))
    return 0


def _report(options: argparse.Namespace) -> int:
    from ouroloop.record.track import Store
    from ouroloop.report.page import write_report

    folder = Path(options.folder) if options.folder else stores.runs_folder() / "reports" / options.name
    print(write_report(Store.open(), options.name, folder))
    return 0


def _register(options: argparse.Namespace) -> int:
    from rich.console import Console

    from ouroloop.console import print_listing
    from ouroloop.record.track import Store
    from ouroloop.report.registry import register

    rows = register(Store.existing(), options.study)
    print_listing(Console(), ("model", "alias", "version", "outcome"), rows, f"{options.study}: registered models")
    return 1 if any(row.outcome.startswith("failed") for row in rows) else 0


def _sample(options: argparse.Namespace) -> int:
    from rich.console import Console

    from ouroloop.console import print_listing, verdict_and_depth
    from ouroloop.report.models import find_model

    found = find_model(options.model)
    temperature = options.temperature or found.sampling.temperature
    texts = found.write(options.n, temperature, options.prompt, options.seed)
    rows = [(*verdict_and_depth(text), text) for text in texts]
    title = f"{len(texts)} expressions from {found.name} at temperature {temperature:g}"
    print_listing(Console(), ("verdict", "depth", "expression"), rows, title)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from ouroloop.record.track import Store
    from ouroloop.report.compare import compare, compare_study, print_comparison
    from ouroloop.report.models import find_model

    left_out: list[str] = []
    match options.models:
        case [study]:
            comparisons, left_out = compare_study(Store.existing(), study, options.temperature)
        case [before, after]:
            comparisons = [compare(find_model(before), find_model(after), options.temperature)]
        case _:
            raise ConfigError(f"compare takes a study or two models, not {len(options.models)} names")
    if options.json:
        print(json.dumps([comparison.record(options.n) for comparison in comparisons], indent=2))
    else:
        for comparison in comparisons:
            print_comparison(Console(), comparison, options.n)
    for reason in left_out:
        print(reason, file=sys.stderr)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from ouroloop.record.clean import age_seconds, clean

    age = age_seconds(options.older_than)
    stores.require_writable()
    from ouroloop.record.track import Store

    freed = clean(Store.open(), age, options.dry_run)
    for kind in freed:
        print(f"{kind.num_bytes / 1e6:>10,.1f} MB  {kind.count:>6,} {kind.kind}")
    total = sum(kind.num_bytes for kind in freed)
    print(f"{total / 1e6:>10,.1f} MB  {'would be freed' if options.dry_run else 'freed'}")
    return 0


def _ui(options: argparse.Namespace) -> int:
    stores.require_writable()
    from ouroloop.record.track import Store
    from ouroloop.report.ui import prepare, serve

    tree, loops = (f"http://127.0.0.1:{options.port}{page}" for page in prepare(Store.open()))
    print(f"MLflow UI over {stores.masked(stores.tracking_uri())}\n  {tree}\n  {loops}\nCtrl-C ends it.", flush=True)
    return serve(options.port)


if __name__ == "__main__":
    raise SystemExit(main())
