"""The program from Python, in a notebook cell or a script: what the commands do, and results as an object."""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel
from rich.console import Console

from ouroloop import presets
from ouroloop.config import ConfigError, LoopConfig
from ouroloop.console import LoopView, fitted
from ouroloop.errors import shown
from ouroloop.learner import require_runnable
from ouroloop.loop.attempt import run_alone
from ouroloop.loop.loop import prepared_testbed
from ouroloop.record import stores
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report.results import Loop, Results, read_results
from ouroloop.study.config import StudyConfig
from ouroloop.testbed.base import Sample

# What draws, and what drives studies, is imported where it is used: a loop needs neither
if TYPE_CHECKING:  # torch comes with it
    from ouroloop.report.compare import Comparison
    from ouroloop.report.models import FoundModel
    from ouroloop.report.stages import Entry

Overrides = Mapping[str, Any]
"""Dotted keys and their values: {"cycle.kind": "balanced"}."""
_SURROGATES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
"""How JSON, but not YAML, spells a character beyond U+FFFF."""
Preset = str | PathLike[str]
"""The name or the path of a preset."""


class StudyResults(Results):
    """What a study or a lone loop found, so far; `results[name]` is one of its loops, by its name."""

    def __repr__(self) -> str:
        first, more = ", ".join(self.names[:3]), len(self.loops) - 3
        return f"<StudyResults {self.title!r}: {first}{f' and {more} more loops' if more > 0 else ''}>"

    def __len__(self) -> int:
        return len(self.loops)

    def __iter__(self) -> Iterator[str]:
        """The names, as with any mapping."""
        return iter(self.names)

    def __getitem__(self, loop: str) -> "StudyResults":
        chosen = [one for one in self.loops if loop in (one.name, one.run.id)]
        if not chosen:
            raise KeyError(f"no loop {loop!r}; there are: {', '.join(self.names)}")
        return StudyResults(chosen[0].run.id, None, chosen)

    @property
    def names(self) -> list[str]:
        """The names of the loops."""
        return [loop.name for loop in self.loops]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy: loop, seed, generation (0 is D_0), measure, value, stderr (NaN where there is none)."""
        rows = [
            (loop.name, _seed(loop), generation, key, value, errors.get(generation))
            for loop in self.loops
            for key, values in loop.history.items()
            if not key.endswith("_stderr")
            for errors in [loop.history.get(f"{key}_stderr", {})]
            for generation, value in sorted(values.items())
        ]
        columns = ["loop", "seed", "generation", "measure", "value", "stderr"]
        return pd.DataFrame(rows, columns=columns).astype({"value": float, "stderr": float})

    @property
    def settings(self) -> pd.DataFrame:
        """A row for each loop: loop, seed, cell, cycle, synthetic_proportion (NaN where there is none), temperature.

        `metrics.merge(settings)` is what to plot by λ.
        """
        rows = [
            (
                loop.name,
                _seed(loop),
                loop.cell,
                loop.run.tag("cycle"),
                loop.proportion,
                loop.run.value("temperature"),
            )
            for loop in self.loops
        ]
        columns = ["loop", "seed", "cell", "cycle", "synthetic_proportion", "temperature"]
        return pd.DataFrame(rows, columns=columns).astype({"synthetic_proportion": float, "temperature": float})

    @property
    def board(self) -> pd.DataFrame:
        """A row for each method of a study that compares them, best first: what its page has of them.

        Of each score there are mean, `_low` and `_high` (95 % over seeds) at the last generation, and `_area`, the mean
        over generations; costs are over the baseline's; `rank` is None before a method has all its seeds.

        Raises:
            ConfigError: there are no methods, or nothing that ranks them was measured yet.
        """
        from ouroloop.report.methods import board_of, table

        found = table(board_of(self))
        if found.empty:
            raise ConfigError(f"{self.title} has no board: none of its loops has a method and a score that ranks it")
        return found

    def samples(self, generation: int) -> pd.DataFrame:
        """What each loop's M_t wrote, D_0 for 0: a row for each distinct text, the most frequent first.

        Columns: loop, count, share, and what the testbed says of a text, the text last.

        Raises:
            LookupError: no loop has this generation on record.
        """
        found = [(loop, texts) for loop in self.loops if (texts := loop.texts(generation)) is not None]
        if not found:
            last = max((loop.reached for loop in self.loops), default=0)
            raise LookupError(f"{self.title} has no generation {generation!r} on record; the last is {last}")
        rows = [
            (loop.name, *row)
            for loop, texts in found
            for row in Sample.of(texts, loop.testbed).most_frequent(len(texts))
        ]
        return pd.DataFrame(rows, columns=["loop", "count", "share", *found[0][0].testbed.columns])

    def model(self, which: int | str) -> "FoundModel":
        """M_t of the only loop, by t or by the stage that it entered; `results[name]` picks one of several loops.

        Raises:
            LookupError: there are several loops, or it did not enter that stage, or the weights were not kept.
        """
        from ouroloop.report.models import find_model

        if len(self.loops) > 1:
            raise LookupError(f"which loop? use results[name].model({which!r}) with one of: {', '.join(self.names)}")
        [loop] = self.loops
        run = loop.generation(which)
        if run is None or run.model_id is None:
            kept = [
                f"{one.tag('generation')} ({one.tag('stage')})" for one in loop.generations.values() if one.model_id
            ]
            there_are = f"only those of {', '.join(kept)}" if kept else "nor any others"
            is_ideal = loop.config is not None and loop.config.is_ideal
            why = "the ideal learner is its training set" if is_ideal else "keep_weights decides which are kept"
            raise LookupError(f"no weights of {which!r} are on record, {there_are}; {why}")
        return find_model(f"models:/{run.model_id}")

    def compare(self, temperature: float = 1.0) -> "list[Comparison]":
        """What the model of each cell's last stage can no longer write, compared with that of its first.

        A cell that has no two models to compare is left out, with a warning that says why.

        Raises:
            ConfigError: this is a lone loop.
        """
        from ouroloop.report.compare import compare_study

        self._require_study("two models are compared")
        found, left_out = compare_study(Store.existing(), self.name, temperature)
        for reason in left_out:
            warnings.warn(reason, stacklevel=2)
        return found

    def register(self) -> "list[Entry]":
        """Register each cell's models at the stages of its collapse, and return what became of each alias.

        Raises:
            ConfigError: this is a lone loop.
        """
        from ouroloop.report.registry import register

        self._require_study("models are registered")
        return register(Store.existing(), self.name)

    def _require_study(self, done: str) -> None:
        if any(loop.run.id == self.name for loop in self.loops):
            raise ConfigError(f"{self.title} is one loop, and {done} by cell of a study: ouroloop.load(STUDY)")

    def report(self, folder: str | Path | None = None) -> Path:
        """Write the page with its figures and data, by default into `mlruns/reports/NAME`, and return its path."""
        from ouroloop.report.folder import write_report

        return write_report(self, Path(folder) if folder else stores.runs_folder() / "reports" / self.name)


def _seed(loop: Loop) -> int:
    return loop.config.seed if loop.config else int(loop.run.value("seed") or 0)


def load(study_or_loop: str) -> StudyResults:
    """The newest loop of each configuration of a study or preset, or the one with this run id.

    Raises:
        ConfigError: there is none.
    """
    stores.require_recorded(study_or_loop, "study", "run")
    found = read_results(Store.existing(), study_or_loop)
    return StudyResults(found.name, found.study, found.loops)


def load_preset(preset: Preset, overrides: Overrides | None = None, /, **changes: Any) -> LoopConfig | StudyConfig:
    """A preset's configuration; changes are given by dotted keys, or as keywords with `__` for the dot.

    Raises:
        ConfigError: no such preset, an unknown key, a value out of range.
    """
    return presets.load_any(str(preset), _spelled(overrides, changes))


def _spelled(overrides: Overrides | None, changes: Mapping[str, Any]) -> list[str]:
    """The changes as the command line spells them."""
    wanted = {**(overrides or {}), **{key.replace("__", "."): value for key, value in changes.items()}}
    return [f"{key}={_json(key, value)}" for key, value in wanted.items()]


def _json(key: str, value: Any) -> str:
    try:
        text = json.dumps(value, default=_plain)
    except (TypeError, ValueError):
        raise ConfigError(f"{key}: got {shown(value)}, allowed is a value that a preset can hold") from None
    return _SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)


def _plain(value: Any) -> Any:
    """Numbers, texts and lists, as in a preset, for what a script has instead: numpy's, a range, a path, a section."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError


def _chosen(
    preset: str | PathLike[str] | presets.Config, kind: type[presets.Config], spelled: list[str], name: str | None
) -> tuple[presets.Config, str]:
    """The configuration, and the name that its runs are kept under."""
    if isinstance(preset, str | PathLike):
        return presets.load_preset(str(preset), spelled, kind), presets.preset_name(str(preset), name)
    if not isinstance(preset, kind):
        raise ConfigError(f"got {shown(preset)}, allowed is a preset, by name or path, or a {kind.__name__}")
    return presets.changed(preset, spelled), presets.preset_name("python", name)


def run(
    preset: Preset | LoopConfig,
    overrides: Overrides | None = None,
    /,
    *,
    name: str | None = None,
    new: bool = False,
    show: bool = True,
    **changes: Any,
) -> StudyResults:
    """Run one loop, or what is missing of it, and return what it found.

    `name` is what its runs are kept under: by default the preset's name, or "python" for a configuration. `new` starts
    over; `show` shows progress. See `load_preset` for the changes.

    Raises:
        ConfigError: bad input, one line.
    """
    config, study = _chosen(preset, LoopConfig, _spelled(overrides, changes), name)
    return load(perform(config, study, Console(quiet=not show), new).id)


def perform(config: LoopConfig, study: str, console: Console, new: bool = False) -> Run:
    """Run the loop and return its finished run; its progress and its table are printed on the console."""
    require_runnable(config)
    prepared_testbed(config)
    name, store = f"{study}-{config.label}", Store.open()
    with LoopView(console) as view:
        run = run_alone(config, store, name=name, preset=study, new=new, observer=view)
    console.print(fitted(view.table(), console))
    return run


def sweep(
    preset: Preset | StudyConfig,
    overrides: Overrides | None = None,
    /,
    *,
    name: str | None = None,
    workers: int | None = None,
    on: str = "local",
    address: str | None = None,
    show: bool = True,
    **changes: Any,
) -> StudyResults:
    """Run what is missing of a study, `workers` loops at a time, and return what it found.

    Raises:
        ConfigError: bad input, one line.
    """
    from ouroloop.study.driver import run_study

    config, study = _chosen(preset, StudyConfig, _spelled(overrides, changes), name)
    run_study(config, study, Console(quiet=not show), workers, on, address)
    return load(study)


def estimate(
    preset: Preset | LoopConfig | StudyConfig, overrides: Overrides | None = None, /, **changes: Any
) -> tuple[float, int]:
    """Seconds of one worker, and bytes, that a loop or a study takes here, from a few steps that are actually run.

    Raises:
        ConfigError: bad input, one line.
    """
    from ouroloop.study.estimate import cost, loop_totals, study_cost, study_totals

    spelled = _spelled(overrides, changes)
    if isinstance(preset, str | PathLike):
        preset, spelled = presets.load_any(str(preset), spelled), []
    if isinstance(preset, StudyConfig):
        study = presets.changed(preset, spelled)
        return study_totals(study, study_cost(study))
    loop, _ = _chosen(preset, LoopConfig, spelled, None)
    return loop_totals(loop, cost(loop))
