"""The tables of an empty store, which come with the package, are those that MLflow makes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ouroloop.record import track
from ouroloop.record.track import Store


def tables_of_mlflow(folder: Path) -> str:
    """To write them for another version of MLflow: `track.schema().write_text(tables_of_mlflow(folder))`."""
    path = folder / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")  # it makes its first one, with an address of its own, when opened
        database.commit()
        return "\n".join(database.iterdump()) + "\n"


@pytest.mark.slow
def test_the_tables_that_are_shipped_are_those_that_the_installed_mlflow_makes(tmp_path: Path) -> None:
    def unordered(sql: str) -> list[str]:  # sets decide the order of constraints and indices
        return sorted(line.rstrip(", ") for line in sql.splitlines())

    assert unordered(track.schema().read_text()) == unordered(tables_of_mlflow(tmp_path))


@pytest.mark.parametrize("is_shipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_store_is_made_with_the_shipped_tables_or_without(
    is_shipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them MLflow makes its own: another version than the one that was tested works, seconds later."""
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track.schema().is_file()
    if not is_shipped:
        monkeypatch.setattr(track, "schema", lambda: tmp_path / "nothing.sql")
    run = Store.open().create("loop", None, {"level": "loop"})
    assert [found.id for found in Store.existing().find(level="loop")] == [run.id]
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as database:
        assert dict(database.execute("SELECT experiment_id, name FROM experiments")) == {0: "Default", 1: "ouroloop"}


def test_what_is_kept_of_a_run_is_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study keeps thousands: without the rest, and each as it was read, newest first over all pages."""
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(track, "_SMALL_PAGE", 2)
    store = Store.open()
    for name in "abcde":
        run = store.create(name, None, {"level": "loop", "fingerprint": name})
        run.log_params({"seed": 1})
        run.log_series({"kept": [(0, 1.0), (3, 0.5)], "other": [(4, 2.0)]})
    found = store.find(level="loop")
    kept = [run.narrowed(["kept", "never measured"]) for run in store.each(level="loop")]
    assert [run.id for run in kept] == [run.id for run in found]
    assert all(run.metrics == {"kept": 0.5} and run.steps == {"kept": 3} for run in kept)
    assert not any(run.entity.data.params for run in kept)
    assert [(run.name, run.status, run.tag("fingerprint")) for run in kept] == [
        (run.name, run.status, run.tag("fingerprint")) for run in found
    ]


def test_of_several_runs_of_a_generation_the_finished_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are several where one that was cut off, discarded and begun anew is restored; and tags can be edited."""
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store.open()
    loop = store.create("loop", None, {"level": "loop"})
    ended = [("2", "FINISHED"), ("10", "KILLED"), ("1", "KILLED"), ("1", "FINISHED"), ("1", "KILLED"), ("10", "FAILED")]
    runs = []
    for t, status in [*ended, ("it", "FINISHED")]:
        runs.append(store.create(f"t{t}", loop, {"level": "generation", "generation": t}))
        runs[-1].end(status)
    found = store.generations(loop.id)
    assert [(t, run.id) for t, run in found.items()] == [
        (0, runs[6].id),
        (1, runs[3].id),
        (2, runs[0].id),
        (10, runs[5].id),
    ]
