"""What Optuna holds of a study: a loop must be told once, with the parameters that it really has."""

import json
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.study.config import StudyConfig
from ouroloop.study.trials import Cell, Trials, open_storage
from tests.conftest import IDEAL


def config_of(**changes: Any) -> StudyConfig:
    tree = {"cycles": ["incremental", "balanced", "full_synthetic"], "synthetic_proportions": [0.5], "seeds": [1, 2]}
    return StudyConfig.model_validate(tree | {"loop": IDEAL} | changes)


def begun(config: StudyConfig) -> tuple[Trials, list[Cell]]:
    trials = Trials.create("study", config)
    cells = [Cell(loop, loop.fingerprint()) for loop in config.loops()]
    for cell in cells:
        trials.begin(cell, config)
    return trials, cells


@pytest.fixture(params=["sqlite", "postgresql"])
def _database(request: pytest.FixtureRequest, root: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "postgresql":
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", request.getfixturevalue("postgresql"))


@pytest.mark.usefixtures("_database")
def test_a_loop_is_a_trial_with_its_parameters_and_its_configuration() -> None:
    config = config_of()
    trials, cells = begun(config)
    assert [cell.number for cell in cells] == list(range(6))
    cells[0].state, cells[0].retention = "done", {1: 0.75, 3: 0.5}
    trials.end(cells[0], [0.5])
    cells[1].state = "failed"
    trials.end(cells[1])
    cells[2].reached, cells[2].retention = 2, {1: 0.75, 2: 0.625}
    trials.note_progress(cells[2])
    found = Trials.load("study")
    assert found is None  # nobody has said yet what the study is
    trials.note(config=config.model_dump(mode="json"))
    found = Trials.load("study")
    assert found is not None
    assert found.config == config
    known = found.cells()
    assert [cell.state for cell in known.values()] == ["done", "failed", "stopped", "stopped", "stopped", "stopped"]
    assert [(cell.key, cell.loop) for cell in known.values()] == [(cell.key, cell.loop) for cell in cells]
    assert known[cells[0].key].value == 0.5
    assert known[cells[2].key].retention == {1: 0.75, 2: 0.625}
    given = {t.params["cycle"]: t.params["synthetic_proportion"] for t in trials.study.get_trials()}
    assert given == {"incremental": 0.5, "balanced": 1.0, "full_synthetic": 1.0}


@pytest.mark.usefixtures("root")
def test_told_twice_is_told_once() -> None:
    trials, (cell, *_) = begun(config_of())
    cell.state, cell.retention = "done", {3: 0.5}
    for _ in range(2):
        trials.end(cell, [0.5])
    (done,) = trials.study.get_trials(states=[TrialState.COMPLETE])
    assert done.values == [0.5]


@pytest.mark.usefixtures("root")
def test_what_an_earlier_version_left_is_gone_on_with() -> None:
    """It put every loop in line beforehand, gave back what a dead worker held, and noted each generation."""
    config = config_of(cycles=["balanced"], seeds=[1, 2, 3])
    study = optuna.create_study(storage=open_storage(), study_name="study")
    for loop in config.loops():
        given = {"cycle": "balanced", "temperature": 0.8, "seed": loop.seed}
        attributes = {"cell": loop.fingerprint(), "loop": loop.model_dump(mode="json", exclude={"resources"})}
        study.enqueue_trial(given, user_attrs=attributes)
    first = study.ask()
    first.report(0.75, 1)
    study.ask(fixed_distributions={})  # and its worker died before it chose
    trials = Trials.create("study", config)
    cells = list(trials.cells().values())
    assert [cell.state for cell in cells] == ["stopped", "stopped", "failed"]  # each is run, or gone on with
    assert (cells[0].reached, cells[0].retention) == (1, {1: 0.75})
    assert trials.study.get_trials(states=[TrialState.WAITING]) == []


@pytest.mark.usefixtures("root")
def test_who_dies_between_asking_and_saying_what_it_became_is_forgotten() -> None:
    config = config_of(kind="pareto", cycles=["fresh_mix"], synthetic_proportions=[])
    Trials.create("study", config).ask(config)
    again = Trials.create("study", config)
    assert again.cells() == {}
    assert [trial.state for trial in again.study.get_trials()] == [TrialState.FAIL]
    assert again.num_counted({}) == 0


@pytest.mark.usefixtures("root")
def test_another_versions_study_is_one_line() -> None:
    trials = Trials.create("study", config_of())
    trials.note(config=json.loads(config_of().model_dump_json()) | {"knid": 1})
    with pytest.raises(ConfigError, match=r"study 'study' was recorded by another version of ouroloop .knid: "):
        assert trials.config


@pytest.mark.usefixtures("root")
def test_a_store_that_cannot_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nonsense", "sqlite:////no/such/folder/x.db", "oracle://x", "postgresql://u:secret@127.0.0.1:9/x"):
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", url)
        with pytest.raises(ConfigError) as raised:
            Trials.all()
        assert str(raised.value).startswith(("cannot open the Optuna store", "no server answers at"))
        assert "secret" not in str(raised.value)


def test_a_cycle_without_a_proportion_has_one_for_optuna(tiny: LoopConfig) -> None:
    for kind in (DataCycle.BALANCED, DataCycle.FULL_SYNTHETIC):
        assert tiny.cycle.model_copy(update={"kind": kind}).effective_proportion == 1.0
