"""What a finished loop measured and wrote, generation by generation, in one file of its run.

MLflow's runs are the record, and what its UI draws from. But MLflow gives a history one metric at a time and a table
one file at a time: for 200 loops of 50 generations that is 9,000 queries and 20,000 files. Whoever wants all of it
reads this file, an artifact `history.jsonl` with a line for D_0 and then one for each generation; where there is none,
as in runs of earlier versions and loops that did not finish, the same is read from the runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from ouroloop.record.run import Run
from ouroloop.science.dataset import DatasetError
from ouroloop.science.metrics import ALWAYS
from ouroloop.testbed.base import Sample, Testbed

MOST_FREQUENT = 10
"""How many texts are listed for a generation."""

Curves = Mapping[str, Mapping[int, float]]
"""Measure -> generation -> value."""

_FILE = "history.jsonl"


class Written(NamedTuple):
    """What one model wrote: its most frequent texts, and how many of all its texts are at each depth."""

    most_frequent: list[tuple[Any, ...]]
    """(count, share, and what the testbed says of the text, such as verdict and depth; the text last)."""
    depths: dict[str, int]
    """How many texts have each depth; `malformed` stands for those that have none."""

    @classmethod
    def of(cls, sample: Sample) -> "Written":
        return cls(sample.most_frequent(MOST_FREQUENT), dict(sample.testbed.tally(sample)))


class Entry(NamedTuple):
    """A generation of a loop, or D_0 as generation 0."""

    generation: int
    metrics: dict[str, float]
    """Finite ones; what is not on record is absent."""
    written: Written
    commit: str
    """That of the software that computed it; empty for D_0."""


class Writer:
    """Keeps the entries of a running loop in a file, so that memory does not grow with their number."""

    @classmethod
    @contextmanager
    def open(cls) -> Iterator["Writer"]:
        with TemporaryFile() as file:
            yield cls(file)

    def __init__(self, file: Any) -> None:
        self._file = file

    def add(self, generation: int, metrics: Mapping[str, float], written: Written, commit: str = "") -> None:
        finite = {key: value for key, value in metrics.items() if isfinite(value)}
        line = {"generation": generation, "commit": commit, "metrics": finite, **written._asdict()}
        self._file.write(json.dumps(line).encode() + b"\n")

    def log(self, run: Run) -> None:
        """Log the file; to be called when everything else is on record, and before the run is FINISHED."""
        self._file.seek(0)
        run.log_files({_FILE: self._file.read()})


def read_entries(run: Run) -> list[Entry] | None:
    """The entries of a finished loop; None where there is no file, or it is not complete."""
    if run.status != "FINISHED":  # the file of an earlier attempt may not be complete
        return None
    try:
        entries = [_entry(json.loads(line)) for line in run.read_bytes(_FILE).splitlines()]
    except (DatasetError, ValueError, KeyError, TypeError):
        return None
    is_whole = bool(entries) and entries[-1].generation == run.steps.get(ALWAYS)
    return entries if is_whole else None


def _entry(line: dict[str, Any]) -> Entry:
    written = Written([tuple(row) for row in line["most_frequent"]], dict(line["depths"]))
    return Entry(int(line["generation"]), dict(line["metrics"]), written, str(line["commit"]))


def history(run: Run, keys: Sequence[str] | None = None) -> Curves:
    """Finite values by generation, for these metrics or for all that a loop's run has."""
    entries = read_entries(run)
    if entries is not None:
        return by_metric(entries, keys)
    wanted = sorted(run.metrics) if keys is None else keys
    return {key: {t: value for t, value in run.history(key) if isfinite(value)} for key in wanted}


def by_metric(entries: Sequence[Entry], keys: Sequence[str] | None = None) -> Curves:
    """Values by metric and generation: of these metrics, or of all in alphabetical order; one without any is empty."""
    wanted = sorted({key for entry in entries for key in entry.metrics}) if keys is None else keys
    return {key: {one.generation: one.metrics[key] for one in entries if key in one.metrics} for key in wanted}


def read_written(generation: Run, testbed: Testbed) -> Written | None:
    """What the tables of a generation's run hold; if they are missing, S_t judged again; None if that is lost too."""
    try:
        table = json.loads(generation.read_text("samples.json"))
        rows = [_text_last(table["columns"], row, testbed) for row in table["data"][:MOST_FREQUENT]]
        depths = dict(json.loads(generation.read_text("depths.json"))["data"])
        return Written(rows, depths)
    except (DatasetError, ValueError, KeyError, TypeError):
        pass
    try:
        return Written.of(Sample.of(generation.read_dataset("samples.tsv.gz").texts, testbed))
    except (DatasetError, ValueError):
        return None


def _text_last(columns: Sequence[str], row: Sequence[Any], testbed: Testbed) -> tuple[Any, ...]:
    """A row in the order of `Sample.most_frequent`: tables have the text first, older ones have it last."""
    found = dict(zip(columns, row, strict=True))
    return tuple(found[key] for key in ("count", "share", *testbed.columns))
