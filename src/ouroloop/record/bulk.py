"""Much of the record at once: all curves of many loops, and what there is to know of their generations.

MLflow's client asks for one curve of one run at a time, and builds every metric of a run that is listed; of 200 loops
of 50 generations that takes minutes. Where the store is an SQLite file, its tables are read as they are; from a server
it is asked like everybody else.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow.entities import Run as RunEntity
from mlflow.entities import RunData, RunInfo, RunTag

from ouroloop.record import stores
from ouroloop.record.run import Run
from ouroloop.record.track import Store

Curves = dict[str, dict[int, float]]
"""Metric -> step -> value."""

_RUNS = "select run_uuid, name, user_id, status, start_time, end_time, artifact_uri from runs"
_TAGS = ("mlflow.parentRunId", "ouroloop.generation", "ouroloop.stage", "ouroloop.commit")


def curves(runs: Sequence[Run]) -> dict[str, Curves]:
    """Of each run by its id, every metric with its points; of several at one step the largest."""
    if (path := _file()) is None:
        return {run.id: {key: dict(run.history(key)) for key in sorted(run.metrics)} for run in runs}
    found: dict[str, Curves] = {run.id: {} for run in runs}
    with closing(_opened(path)) as base:
        for run in runs:
            points = base.execute(
                "select key, step, value from metrics where run_uuid = ? and not is_nan order by key, step, value",
                [run.id],
            )
            own = found[run.id]
            for key, step, value in points:
                own.setdefault(key, {})[step] = value
    return found


def generations(store: Store, study: str) -> list[Run]:
    """The generation runs of a study, with their tags and where their files are, not their metrics and models."""
    if (path := _file()) is None:
        return store.find(level="generation", study=study)
    chosen = (
        "select r.run_uuid from runs r join tags l on l.run_uuid = r.run_uuid and l.key = 'ouroloop.level' "
        "join tags s on s.run_uuid = r.run_uuid and s.key = 'ouroloop.study' where l.value = 'generation' "
        "and s.value = ? and r.lifecycle_stage = 'active' and r.experiment_id = ?"
    )
    with closing(_opened(path)) as base:
        tags: dict[str, list[RunTag]] = {}
        marks = ", ".join("?" * len(_TAGS))
        for run_id, key, value in base.execute(
            f"select run_uuid, key, value from tags where key in ({marks}) and run_uuid in ({chosen})",  # noqa: S608
            [*_TAGS, study, store.experiment_id],
        ):
            tags.setdefault(run_id, []).append(RunTag(key, value))
        rows = base.execute(
            f"{_RUNS} where run_uuid in ({chosen}) order by start_time desc",
            [study, store.experiment_id],
        )
        return [_run(store, tags.get(row[0], []), *row) for row in rows]


def _run(store: Store, tags: list[RunTag], run_id: str, name: str, user: str, status: str, *rest: Any) -> Run:
    start, end, place = rest
    info = RunInfo(run_id, store.experiment_id, user, status, start, end, "active", place, run_name=name)
    return Run(store, run_id, RunEntity(info, RunData(tags=tags)))


def _file() -> Path | None:
    path = stores.sqlite_file(stores.tracking_uri())
    return path if path is not None and path.is_file() else None


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)
