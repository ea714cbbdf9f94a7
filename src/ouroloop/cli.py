"""The command line: parse, check, call, and say in one line what went wrong."""

import atexit
import gc
import io
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from ouroloop import __version__
from ouroloop.errors import ConfigError, did_you_mean, shown
from ouroloop.leaderboard import leaderboard
from ouroloop.options import (
    Address,
    AnyPreset,
    BoardCommand,
    Command,
    Commands,
    Count,
    Executor,
    Json,
    LoopCommand,
    LoopPreset,
    Name,
    Port,
    Seed,
    Study,
    StudyCommand,
    StudyPreset,
    Temperature,
    Workers,
    recorded,
)
from ouroloop.plain import visible

# Everything else is imported by the command that needs it: a help page and a typing mistake are answered at once
if TYPE_CHECKING:
    from ouroloop.report.compare import Comparison

_MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL-ID, runs:/RUN-ID or a saved folder"
_UI = "ouroloop ui (make ui in a checkout)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 128 + n stopped by signal n."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without λ is no reason to lose a loop
    atexit.register(gc.freeze)  # else the process looks at all its objects before it ends, which takes seconds
    given = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = _note
    try:
        return int(_app(given or ["--help"], prog_name="ouroloop", standalone_mode=False) or 0)
    except (Exception, _interrupted()) as error:
        code, line = _explained(error)
    print(f"ouroloop: {visible(' '.join(line.splitlines()))}", file=sys.stderr)
    return code


def _note(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning in one line, without the code that it comes from."""
    print(f"ouroloop: note: {visible(str(message))}", file=sys.stderr)


def _interrupted() -> type[BaseException]:
    """The class to catch; evaluated, and imported, only when something was raised."""
    from ouroloop.record.liveness import Interrupted

    return Interrupted


def _explained(error: BaseException) -> tuple[int, str]:
    """Exit code, and what to say; what nobody foresaw is raised again."""
    from ouroloop.record import stores
    from ouroloop.record.liveness import Interrupted
    from ouroloop.record.urls import masked

    if isinstance(error, Interrupted):
        return 128 + error.signum, "stopped; the same command picks up where it left off"
    if isinstance(error, ConfigError):
        return 2, masked(str(error))
    if isinstance(error, TyperException):
        context, said = getattr(error, "ctx", None), error.format_message().replace(": Value error, ", ": ")
        return 2, f"{said.rstrip('.')}; see {context.command_path if context else 'ouroloop'} --help"
    if stores.is_full(error):
        return 2, str(stores.no_room())
    raise error


_app = typer.Typer(
    cls=Commands,
    help="Model collapse where truth is decidable: run the self-consuming training loop and watch it.",
    epilog="Any field of a preset can be overridden: --group.field=value. `ouroloop config` lists them all.",
    rich_markup_mode=None,  # brackets stay brackets, and help takes half the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ouroloop {__version__}")
        raise typer.Exit


@_app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@_app.command(
    cls=LoopCommand,
    epilog="Example: ouroloop run laptop --cycle.kind=incremental --cycle.synthetic_proportion=0.25 --seed=3",
    options_metavar="[--group.field=value …] [OPTIONS]",
)
def run(
    context: typer.Context,
    preset: LoopPreset,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and an estimate of time and disk.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Start over, even if such a loop exists.")] = False,
    name: Name = None,
) -> int:
    """Run one loop. With the same configuration and seed, resume a stopped loop or show a finished one."""
    from rich.console import Console

    from ouroloop.config import LoopConfig
    from ouroloop.console import say
    from ouroloop.presets import load_preset, preset_name

    kept, loop, console = preset_name(preset, name), load_preset(preset, context.args, LoopConfig), Console()
    if dry_run:
        from ouroloop.study.estimate import show_loop

        show_loop(loop, console)
        return 0
    with console.status("loading libraries"):
        from ouroloop.api import perform
    done = perform(loop, kept, console, new)
    say(console, f"Recorded as run {done.id}. Look at it: {_UI}")
    return 0


@_app.command(
    cls=StudyCommand,
    epilog="Example: ouroloop sweep sweep-laptop --seeds=[1,2,3] --loop.num_generations=25",
    options_metavar="[--group.field=value …] [OPTIONS]",
)
def sweep(
    context: typer.Context,
    preset: StudyPreset,
    workers: Workers = None,
    on: Executor = "local",
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and an estimate of time and disk.")
    ] = False,
    name: Name = None,
) -> int:
    """Run a study over the synthetic proportion. The same command again runs only what is missing."""
    from rich.console import Console

    from ouroloop.console import say
    from ouroloop.presets import load_preset, preset_name
    from ouroloop.study.config import StudyConfig

    kept, study, console = preset_name(preset, name), load_preset(preset, context.args, StudyConfig), Console()
    with console.status("loading libraries"):
        from ouroloop.api import load
        from ouroloop.study.driver import run_study
        from ouroloop.study.estimate import show_study
    if dry_run:
        show_study(study, console, workers or 1)
        return 0
    failed = run_study(study, kept, console, workers, on, address)
    say(console, f"Report: {load(kept).report()}\nRuns: {_UI}")
    return 1 if failed else 0


_app.command(cls=BoardCommand, options_metavar="[--group.field=value …] [OPTIONS]")(leaderboard)


@_app.command(cls=Command)
def config(
    preset: AnyPreset = None,
) -> int:
    """Print every field, of steps too: value, default, unit and meaning. In a study, a loop's begin with `loop.`."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from ouroloop.config import LoopConfig, with_steps
    from ouroloop.presets import load_any
    from ouroloop.schema import fields, spelled

    console, of = Console(), None if preset is None else load_any(preset)
    if not console.is_terminal:
        print("key", "value", "default", "unit", "what it is", sep="\t")
    for key, *values, unit, meaning in with_steps(fields(type(of) if of else LoopConfig, of)):
        value, default = map(spelled, values)
        if console.is_terminal:
            console.print(Text.assemble((key, "bold"), f" = {value} {unit}  ", (f"default {default}", "dim")))
            console.print(Padding(Text(meaning), (0, 0, 0, 4)))
        else:
            print(key, value, default, unit, meaning, sep="\t")
    return 0


@_app.command(cls=Command)
def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="Only this study, or this preset's lone loops.", autocompletion=recorded),
    ] = None,
    as_json: Json = False,
) -> int:
    """Show what ran, runs, failed and is left."""
    from rich.console import Console

    from ouroloop.record import stores

    known = stores.known("study", "queue")
    if study and known is not None and study not in known:
        raise ConfigError(
            f"no study {shown(study)}{did_you_mean(study, known)}; there are: {', '.join(known) or 'none'}"
        )
    studies = []
    if known != []:
        from ouroloop.study.status import status as read_status

        studies = read_status(study)
    if as_json:
        print(json.dumps(studies, indent=2))
    elif not studies:
        print(f"nothing has run in {stores.asked()} yet")
    else:
        from ouroloop.study.status import fitted_status

        console = Console()
        console.print(fitted_status(studies, console))
    return 0


@_app.command(cls=Command)
def report(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY-or-LOOP",
            help="A study, the preset of a lone loop, or a run id.",
            autocompletion=recorded,
        ),
    ],
    folder: Annotated[Path | None, typer.Option(help="Where to write it; by default mlruns/reports/NAME.")] = None,
) -> int:
    """Write a page about what a study or loop found, with its figures and data beside it."""
    from ouroloop.record import stores

    stores.require_recorded(name, "study", "run")
    from ouroloop.api import load

    print(load(name).report(folder))
    return 0


@_app.command(cls=Command)
def register(study: Study) -> int:
    """Register the models of each collapse stage. Each cell has a stable name; run again, this brings it up to date."""
    from ouroloop.record import stores

    stores.require_recorded(study, "study")
    from rich.console import Console

    from ouroloop.console import print_listing
    from ouroloop.record.track import Store
    from ouroloop.report.registry import register as register_study

    rows = register_study(Store.existing(), study)
    print_listing(Console(), ("model", "alias", "version", "outcome"), rows, f"{study}: registered models")
    return 1 if any(row.outcome.startswith("failed") for row in rows) else 0


@_app.command(
    cls=Command, epilog="Example: ouroloop sample models:/ouroloop-incremental-0.25@onset -n 20 --prompt='( not'"
)
def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{_MODEL}.")],
    count: Count = 20,
    temperature: Annotated[float | None, Temperature] = None,
    prompt: Annotated[str, typer.Option(help="What every text begins with.")] = "",
    seed: Seed = 0,
) -> int:
    """Write texts with a model, and judge them where possible. The default temperature is that of its loop."""
    from ouroloop.report.models import find_model

    found = find_model(model)
    from rich.console import Console

    from ouroloop.console import print_listing

    temperature = found.fitted.config.temperature if temperature is None else temperature
    texts = found.write(count, temperature, prompt, seed)
    rows = [found.testbed.row(text) for text in texts]
    title = f"{len(texts)} texts from {found.name} at temperature {temperature:g}"
    print_listing(Console(), found.testbed.columns, rows, title)
    return 0


@_app.command(
    cls=Command,
    epilog="Example: ouroloop compare models:/ouroloop-balanced@healthy models:/ouroloop-balanced@onset",
)
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY-or-MODELS",
            help=f"A study, to compare each cell's first stage with its last; or two models, {_MODEL}.",
        ),
    ],
    count: Count = 20,
    temperature: Annotated[float, Temperature] = 1.0,
    as_json: Json = False,
) -> int:
    """Show what a later model can no longer write: the texts of D_0 whose probability fell most."""
    from ouroloop.record import stores
    from ouroloop.report.models import require_model

    if len(models) > 2:
        raise ConfigError(f"compare takes a study or two models, not {len(models)} names")
    if len(models) == 1:
        stores.require_recorded(models[0], "study")
    else:
        for model in models:
            require_model(model)
    comparisons, left_out = _comparisons(models, temperature)
    if as_json:
        print(json.dumps([comparison.record(count) for comparison in comparisons], indent=2))
    else:
        from rich.console import Console

        from ouroloop.report.compare import print_comparison

        for comparison in comparisons:
            print_comparison(Console(), comparison, count)
    for reason in left_out:
        print(visible(reason), file=sys.stderr)
    return 0


def _comparisons(models: list[str], temperature: float) -> "tuple[list[Comparison], list[str]]":
    from ouroloop.record.track import Store
    from ouroloop.report.compare import compare as compare_models
    from ouroloop.report.compare import compare_study
    from ouroloop.report.models import find_model

    if len(models) == 1:
        return compare_study(Store.existing(), models[0], temperature)
    before, after = map(find_model, models)
    return [compare_models(before, after, temperature)], []


@_app.command(cls=Command)
def clean(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Unused for: a number and m(inutes), h, d or w; 30d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
) -> int:
    """Free what nothing needs any more. Results stay."""
    from ouroloop.record.clean import age_seconds
    from ouroloop.record.clean import clean as free
    from ouroloop.record.track import Store

    age = age_seconds(older_than)
    freed = free(Store.existing(), age, dry_run)
    for kind in freed:
        print(f"{kind.num_bytes / 1e6:>10,.1f} MB  {kind.count:>6,} {kind.kind}")
    total = sum(kind.num_bytes for kind in freed)
    print(f"{total / 1e6:>10,.1f} MB  {'would be freed' if dry_run else 'freed'}")
    return 0


@_app.command(cls=Command)
def ui(port: Port = 5000) -> int:
    """Open the MLflow UI over mlruns/, on this machine only."""
    from ouroloop.record.track import Store
    from ouroloop.report.ui import open_ui

    return open_ui(Store.existing(), port)


if __name__ == "__main__":
    raise SystemExit(main())
