"""Loops that no study holds: read from SQLite as MLflow itself would give them."""

from pathlib import Path

import pytest

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.loop.generation import Observer
from ouroloop.loop.loop import run_loop
from ouroloop.record import lone, stores
from ouroloop.record.lone import LoneLoop, lone_loops
from ouroloop.record.track import Store
from ouroloop.study.status import status


class _Stop(Observer):
    def generation_started(self, generation: int) -> None:
        if generation == 2:
            raise KeyboardInterrupt


def fill(config: LoopConfig) -> None:
    """One loop that is done, one that was stopped in its second generation, one of a study, one deleted."""
    store = Store.open()
    run_loop(config, store, name="done", study="alone")
    with pytest.raises(KeyboardInterrupt):
        run_loop(config.model_copy(update={"seed": 6}), store, name="stopped", study="alone", observer=_Stop())
    study = store.create("held", None, {"level": "study", "study": "held"})
    run_loop(config.model_copy(update={"num_generations": 1}), store, name="held", study="held", parent=study)
    gone = run_loop(config.model_copy(update={"num_generations": 1}), store, name="gone", study="alone")
    store.client.delete_run(gone.id)


@pytest.mark.usefixtures("root")
def test_what_is_read_is_what_mlflow_says(tiny: LoopConfig) -> None:
    fill(tiny)
    loops = lone_loops()
    assert loops == list(lone._ask_mlflow())
    assert [(loop.name, loop.state, loop.reached, len(loop.retention)) for loop in loops] == [
        ("stopped", "KILLED", 1, 1),
        ("done", "FINISHED", 3, 3),
    ]


@pytest.mark.usefixtures("root")
def test_what_cannot_be_read_is_left_to_mlflow(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_loop(tiny, Store.open(), name="done", study="alone")
    monkeypatch.setattr(lone, "_LOOPS", "SELECT a_column_of_another_version FROM runs")
    (loop,) = lone_loops()
    assert (loop.name, loop.reached) == ("done", 3)


def test_no_store_has_no_loops_and_is_not_created(root: Path) -> None:
    (root / "mlruns" / "mlflow.db").unlink()
    assert lone_loops() == []
    assert not (root / "mlruns" / "mlflow.db").exists()


def test_a_damaged_store_is_one_clear_line(root: Path) -> None:
    (root / "mlruns" / "mlflow.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(ConfigError, match="cannot open the MLflow store"):
        lone_loops()


@pytest.mark.usefixtures("root")
def test_running_is_who_holds_its_lock_here() -> None:
    loop = LoneLoop("a", "RUNNING", "alone", "f" * 64, stores.place(), 3, 1, [0.9])
    assert loop.is_dead
    with stores.locked("alone", "f" * 64):
        assert not loop.is_dead
    assert not loop._replace(place="elsewhere").is_dead
    assert not loop._replace(state="FINISHED").is_dead


@pytest.mark.usefixtures("root")
def test_status_shows_them_as_a_study_of_their_preset(tiny: LoopConfig) -> None:
    run_loop(tiny, Store.open(), name="done", study="alone")
    (record,) = status(None)
    assert status("alone") == [record]
    assert (record["study"], record["kind"]) == ("alone", "loop")
    assert [(loop["loop"], loop["state"], loop["generation"]) for loop in record["loops"]] == [("done", "done", 3)]
    with pytest.raises(ConfigError, match="no study 'other'; there are: alone"):
        status("other")
