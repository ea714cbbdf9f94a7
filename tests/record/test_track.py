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
