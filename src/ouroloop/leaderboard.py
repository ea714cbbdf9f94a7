"""The command that runs the leaderboard, and shows it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ouroloop.errors import ConfigError, did_you_mean, shown
from ouroloop.options import Address, BoardPreset, Executor, Workers

if TYPE_CHECKING:
    from ouroloop.study.config import StudyConfig

_IDEAL = ["loop.model.kind=empirical", "loop.train=null", "loop.data.num_examples=200"]
_IDEAL_GENERATIONS = 25  # minutes on one core; by then drift (t/m) has gone further than the network's by its last


_Folder = Annotated[
    Path | None,
    typer.Option(
        help="Where leaderboard.json is read and written; by default experiments/results of the working directory, "
        "where only the preset's own loops are written."
    ),
]


def leaderboard(
    context: typer.Context,
    preset: BoardPreset = "leaderboard",
    learner: Annotated[
        Literal["network", "empirical"],
        typer.Option(help="The preset's network, or the ideal learner with m = 200."),
    ] = "network",
    workers: Workers = None,
    on: Executor = "local",
    address: Address = None,
    folder: _Folder = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run and print only this method beside the baseline; again for more."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Run nothing, write nothing, and print the board so far.")
    ] = False,
) -> int:
    """Run what is missing from the comparison of methods, and print the board of what is done so far.

    Finished loops on record or in `leaderboard.json` are not run again, unless they are deleted there.
    """
    from rich.console import Console

    name, whole, study, kept = _read(preset, learner == "empirical", context.args, method or [])
    console = Console()
    with console.status("loading libraries"):
        from ouroloop.console import say
        from ouroloop.record.track import Store
        from ouroloop.report.board import show_board, write_board
        from ouroloop.report.leaderboard import board
        from ouroloop.report.outcomes import RESULTS, file_of, read_filed
        from ouroloop.study.driver import run_study
    is_named, folder = folder is not None, folder or RESULTS
    filed = read_filed(file_of(name, folder))
    missing = study.without([fingerprint for fingerprint, outcome in filed.items() if not outcome.has_failed])
    failed = 0 if show or not missing.loops() else run_study(missing, kept, console, workers, on, address)
    store, (own, of_whole) = Store.found(), map(_fingerprints, (study, whole))
    rows = board(study, store, kept, filed)
    show_board(rows, console, study, is_whole=not own < of_whole)
    is_written = not show and (is_named or kept == name)
    if kept != name:
        said = f"These are not the preset's own loops: they are kept as study {kept}."
        say(console, said if show or is_written else f"{said} Not written: --folder says where.")
    if is_written:
        if own < of_whole:  # a part of the preset is run and shown; what is written stays whole
            study, rows, own = whole, board(whole, store, name, filed), of_whole
        for path in write_board(rows, study, folder, name, [filed[key] for key in filed if key in of_whole - own]):
            say(console, f"Written: {path}")
        if count := len(filed.keys() - of_whole - own):
            say(
                console,
                f"{count} loop{'s' * (count > 1)} that the preset no longer gives are no longer in it",
                "yellow",
            )
    return 1 if failed else 0


def _fingerprints(study: "StudyConfig") -> set[str]:
    return {loop.fingerprint() for loop in study.loops()}


def _read(
    preset: str, is_ideal: bool, overrides: list[str], methods: Sequence[str] = ()
) -> "tuple[str, StudyConfig, StudyConfig, str]":
    """The board's name, the whole study that it is of, the part of it that is asked for, and what its runs are kept as.

    Loops that are not the preset's own get a study of their own: a study is of one configuration for good. The ideal
    learner's task is derived from the network's, which is validated first.
    """
    from ouroloop.presets import load_preset, preset_name
    from ouroloop.study.config import StudyConfig

    whole, fixed = load_preset(preset, [], StudyConfig), list[str]()
    if is_ideal:
        fixed = [*_IDEAL, f"loop.num_generations={min(whole.loop.num_generations, _IDEAL_GENERATIONS)}"]
        whole = load_preset(preset, fixed, StudyConfig)
    study = load_preset(preset, [*fixed, *overrides], StudyConfig)
    if not study.methods:
        raise ConfigError(f"{shown(preset)} compares no methods; the preset leaderboard does")
    if study.loop.data.testbed.distribution is None:
        raise ConfigError(
            f"{shown(preset)} is on {study.loop.data.kind}, whose true distribution is not known: `ouroloop sweep` "
            "compares its methods"
        )
    name, others = preset_name(preset) + ("-ideal" if is_ideal else ""), _fingerprints(study) - _fingerprints(whole)
    trial = f"-{hashlib.sha256(''.join(sorted(others)).encode()).hexdigest()[:8]}" if others else ""
    return name, whole, _narrowed(study, methods), name + trial


def _narrowed(study: "StudyConfig", names: Sequence[str]) -> "StudyConfig":
    """The study with these methods alone, beside those that change nothing, in the cycles of these methods."""
    for name in names:
        if name not in study.methods:
            there_are = ", ".join(study.methods)
            raise ConfigError(f"no method {shown(name)}{did_you_mean(name, study.methods)}; there are: {there_are}")
    if not names:
        return study
    kept = [name for name, method in study.methods.items() if name in names or not method.changes]
    theirs = [study.methods[name].cycles or study.cycles for name in names]
    return study.only(kept, [cycle for cycle in study.cycles if any(cycle in cycles for cycles in theirs)])
