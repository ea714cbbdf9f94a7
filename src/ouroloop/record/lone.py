"""The loops that no study holds, for `status`.

Only MLflow has them on record, and its import takes longer than all else that `status` does. So its SQLite
file, the usual store, is read as it is; any other store, and a file that reads otherwise, MLflow is asked about.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ouroloop.record import stores

_LOOPS = """
    SELECT runs.run_uuid, runs.name, runs.status, study.value, fingerprint.value, place.value, number.value
    FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = 'ouroloop'
    JOIN tags AS level ON level.run_uuid = runs.run_uuid AND level.key = 'ouroloop.level' AND level.value = 'loop'
    JOIN tags AS study ON study.run_uuid = runs.run_uuid AND study.key = 'ouroloop.study'
    JOIN tags AS fingerprint ON fingerprint.run_uuid = runs.run_uuid AND fingerprint.key = 'ouroloop.fingerprint'
    LEFT JOIN tags AS place ON place.run_uuid = runs.run_uuid AND place.key = 'ouroloop.place'
    LEFT JOIN tags AS parent ON parent.run_uuid = runs.run_uuid AND parent.key = 'mlflow.parentRunId'
    LEFT JOIN params AS number ON number.run_uuid = runs.run_uuid AND number.key = 'num_generations'
    WHERE runs.lifecycle_stage = 'active' AND parent.value IS NULL
    ORDER BY runs.start_time DESC
"""
_POINTS = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"


class LoneLoop(NamedTuple):
    name: str
    state: str
    """MLflow's; a loop that runs according to the record may have died."""
    study: str
    """Name of its preset."""
    fingerprint: str
    place: str | None
    num_generations: int
    reached: int
    """The last generation on record, 0 for D_0 alone."""
    retention: list[float]
    """Of generation 1 and those after it."""

    @property
    def is_dead(self) -> bool:
        is_ours = self.state == "RUNNING" and self.place == stores.place()
        return is_ours and not stores.is_locked(self.study, self.fingerprint)


def lone_loops() -> list[LoneLoop]:
    """All of the store, newest first.

    Raises:
        ConfigError: the store cannot be opened.
    """
    path = stores.sqlite_file(stores.tracking_uri())
    try:
        if path is not None:
            return list(_read(path)) if path.is_file() else []
    except sqlite3.Error:
        pass
    return list(_ask_mlflow())


def _read(path: Path) -> Iterator[LoneLoop]:
    # Not read-only: after a kill SQLite may have to roll back before it can read
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=60)) as database:
        for run_id, name, state, study, fingerprint, place, number in database.execute(_LOOPS).fetchall():
            reached = [step for step, _ in database.execute(_POINTS, (run_id, "correctness"))]
            points = database.execute(_POINTS, (run_id, "diversity_retention"))
            retention = [float(value) for step, value in points if step > 0]
            yield LoneLoop(name, state, study, fingerprint, place, int(number or 0), max(reached, default=0), retention)


def _ask_mlflow() -> Iterator[LoneLoop]:
    from ouroloop.record.track import Store

    for run in Store.open().find(level="loop"):
        if run.parent_id is None:
            yield LoneLoop(
                run.entity.info.run_name,
                run.status,
                run.tag("study") or "",
                run.tag("fingerprint") or "",
                run.tag("place"),
                int(run.entity.data.params.get("num_generations", 0)),
                run.reached,
                [value for step, value in run.history("diversity_retention") if step > 0],
            )
