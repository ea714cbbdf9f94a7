"""The command that runs the leaderboard, and shows it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ouroloop.options import Executor, StudyPreset, Workers

_IDEAL = ["loop.model.kind=empirical", "loop.train=null", "loop.data.num_examples=200"]  # minutes, of one core
RESULTS = Path("experiments") / "results"


def leaderboard(
    context: typer.Context,
    preset: StudyPreset = "leaderboard",
    learner: Annotated[
        Literal["network", "empirical"], typer.Option(help="The preset's network, or the ideal learner, with m = 200.")
    ] = "network",
    workers: Workers = None,
    on: Executor = "local",
    folder: Annotated[Path | None, typer.Option(help=f"Where leaderboard.json goes; {RESULTS} without it.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Run nothing: the board of what is done.")] = False,
) -> int:
    """Run what is missing of the methods' comparison, and print the board. It shows what is done so far."""
    from rich.console import Console

    from ouroloop.presets import load_preset, preset_name
    from ouroloop.study.config import StudyConfig

    ideal = learner == "empirical"
    overrides = [*(_IDEAL if ideal else []), *context.args]
    study = load_preset(preset, overrides, StudyConfig)
    name, console = preset_name(preset) + ("-ideal" if ideal else ""), Console()
    with console.status("loading libraries"):
        from ouroloop.record.track import Store
        from ouroloop.report.board import show_board, write_board
        from ouroloop.report.leaderboard import board
        from ouroloop.study.driver import run_study
    failed = 0 if show else run_study(study, name, console, workers, on)
    rows = board(study, Store.open(), name)
    show_board(rows, console, study)
    for path in write_board(rows, study, folder or RESULTS, name):
        console.print(f"Written: {path}", highlight=False, soft_wrap=True)
    return 1 if failed else 0
