"""The command that runs the leaderboard, and shows it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from ouroloop.errors import ConfigError, did_you_mean, shown
from ouroloop.options import Address, BoardPreset, Executor, Workers

if TYPE_CHECKING:
    from ouroloop.record.track import Store
    from ouroloop.report.outcomes import Outcome
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

    asked = _read(preset, learner == "empirical", context.args, method or [])
    console = Console()
    with console.status("loading libraries"):
        from ouroloop.console import say
        from ouroloop.record.track import Store
        from ouroloop.report.board import show_board, write_board
        from ouroloop.report.leaderboard import board
        from ouroloop.report.outcomes import RESULTS, file_of, read_filed
        from ouroloop.study.driver import run_study
    is_named, folder = folder is not None, folder or RESULTS
    file, failed = file_of(asked.name, folder), 0
    if not show and (missing := asked.missing(read_filed(file), Store.found())):
        failed = run_study(missing, asked.kept, console, workers, on, address)
    store, filed = Store.found(), read_filed(file)  # which may have changed in the meantime: that may take days
    rows = board(asked.study, store, asked.kept, filed)
    show_board(rows, console, asked.study, is_whole=asked.is_whole)
    is_written = not show and (is_named or asked.kept == asked.name)
    if asked.kept != asked.name:
        said = f"These are not the preset's own loops: they are kept as study {asked.kept}."
        say(console, said if show or is_written else f"{said} Not written: --folder says where.")
    if is_written:
        if not asked.is_whole:  # a part is run and shown; what is written stays whole
            rows = board(asked.whole, store, asked.kept, filed)
        others = filed.keys() - _fingerprints(asked.whole)
        stay = [key for key in filed if key in others & _fingerprints(asked.usual)]
        for path in write_board(rows, asked.whole, folder, asked.name, [filed[key] for key in stay]):
            say(console, f"Written: {path}")
        if count := len(others) - len(stay):
            say(
                console,
                f"{count} loop{'s' * (count > 1)} that the preset no longer gives are no longer in it",
                "yellow",
            )
    return 1 if failed else 0


def _fingerprints(study: "StudyConfig") -> set[str]:
    return {loop.fingerprint() for loop in study.loops()}


class _Asked(NamedTuple):
    name: str
    """The board's."""
    usual: "StudyConfig"
    """The preset's own."""
    whole: "StudyConfig"
    """The study that is on record: with the preset's loops or, where others are asked for, with those."""
    study: "StudyConfig"
    """The part of it that is asked for."""
    kept: str
    """What its runs are kept as. Loops that are not the preset's own get a study of their own: a study is of one
    configuration for good, but for more values of what spans it."""

    @property
    def is_whole(self) -> bool:
        return _fingerprints(self.study) == _fingerprints(self.whole)

    def missing(self, filed: "Mapping[str, Outcome]", store: "Store | None") -> "StudyConfig | None":
        """The whole study without what is not asked for, or is in the file; None where nothing else is left of it."""
        done = {key for key, outcome in filed.items() if not outcome.has_failed}
        if not self.study.without(done).loops():
            return None
        runs = [] if store is None else store.one_loop_each(self.kept)
        finished = {run.tag("fingerprint") for run in runs if run.status == "FINISHED"}  # part of the study on record
        return self.whole.without(done | _fingerprints(self.whole) - _fingerprints(self.study) - finished)


def _read(preset: str, is_ideal: bool, overrides: list[str], methods: Sequence[str] = ()) -> _Asked:
    """What is asked for; the ideal learner's task is derived from the network's, which is validated first."""
    from ouroloop.presets import load_preset, preset_name
    from ouroloop.study.config import StudyConfig

    usual, fixed = load_preset(preset, [], StudyConfig), list[str]()
    if is_ideal:
        fixed = [*_IDEAL, f"loop.num_generations={min(usual.loop.num_generations, _IDEAL_GENERATIONS)}"]
        usual = load_preset(preset, fixed, StudyConfig)
    study = load_preset(preset, [*fixed, *overrides], StudyConfig)
    if not study.methods:
        raise ConfigError(f"{shown(preset)} compares no methods; the preset leaderboard does")
    if study.loop.data.testbed.distribution is None:
        raise ConfigError(
            f"{shown(preset)} is on {study.loop.data.kind}, whose true distribution is not known: `ouroloop sweep` "
            "compares its methods"
        )
    name = kept = preset_name(preset) + ("-ideal" if is_ideal else "")
    if _fingerprints(study) <= _fingerprints(usual):
        whole = usual.changed(loop=study.loop)  # it may say where loops run, and what they keep
    else:
        whole, fixed_for_good = study, json.dumps(study.fixed, sort_keys=True, default=str)
        kept += f"-{hashlib.sha256(fixed_for_good.encode()).hexdigest()[:8]}"
    return _Asked(name, usual, whole, _narrowed(study, methods), kept)


def _narrowed(study: "StudyConfig", names: Sequence[str]) -> "StudyConfig":
    """The study with these methods alone, beside those that change nothing, in the cycles of these methods."""
    from pydantic import ValidationError

    from ouroloop.schema import message

    for name in names:
        if name not in study.methods:
            there_are = ", ".join(study.methods)
            raise ConfigError(f"no method {shown(name)}{did_you_mean(name, study.methods)}; there are: {there_are}")
    if not names:
        return study
    kept = [name for name, method in study.methods.items() if name in names or not method.changes]
    theirs = {name: study.methods[name].cycles or study.cycles for name in names}
    cycles = [cycle for cycle in study.cycles if any(cycle in own for own in theirs.values())]
    if not cycles:
        said = ", ".join(f"{shown(name)} only with {', '.join(own)}" for name, own in theirs.items())
        raise ConfigError(f"nothing to run with {', '.join(study.cycles)}: {said}")
    try:
        return study.only(kept, cycles)
    except ValidationError as error:  # none of them applies to this learner
        raise ConfigError(message(error.errors()[0])) from None
