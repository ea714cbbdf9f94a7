"""What Optuna holds of a study: a loop must be told once, with the parameters that it really has."""

import json
from collections import Counter
from itertools import count
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.record.locks import StudyLock
from ouroloop.study.config import StudyConfig
from ouroloop.study.status import status
from ouroloop.study.task import Task
from ouroloop.study.trials import Trials, open_storage
from tests.conftest import IDEAL


def config_of(**changes: Any) -> StudyConfig:
    tree = {"cycles": ["incremental", "balanced", "full_synthetic"], "synthetic_proportions": [0.5], "seeds": [1, 2]}
    return StudyConfig.model_validate(tree | {"loop": IDEAL} | changes)


def begun(config: StudyConfig) -> tuple[Trials, list[Task]]:
    trials = Trials.create("study", config)
    tasks = [Task(loop, loop.fingerprint()) for loop in config.loops()]
    for task in tasks:
        trials.note_progress(task)
    return trials, tasks


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.heavy)])
def _database(request: pytest.FixtureRequest, root: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "postgresql":
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", request.getfixturevalue("postgresql"))


@pytest.mark.usefixtures("_database")
def test_a_loop_that_has_ended_is_a_trial_with_its_parameters_and_its_configuration() -> None:
    config = config_of()
    trials, tasks = begun(config)
    tasks[0].state, tasks[0].retention, tasks[0].seconds = "done", {1: 0.75, 3: 0.5}, 2.5
    trials.end(tasks[0], config, [0.5])
    tasks[1].state, tasks[1].error = "failed", "of no memory"
    trials.end(tasks[1], config)
    tasks[2].state = "pruned"
    trials.end(tasks[2], config)
    tasks[3].reached, tasks[3].retention = 2, {1: 0.75, 2: 0.625}
    trials.note_progress(tasks[3])
    found = Trials.load("study")
    assert found is None  # nobody has said yet what the study is
    trials.note(config=config.model_dump(mode="json"))
    found = Trials.load("study")
    assert found is not None
    assert found.config == config
    known = found.tasks()
    assert [task.state for task in known.values()] == ["done", "failed", "pruned", "stopped", "stopped", "stopped"]
    assert [(task.key, task.loop) for task in known.values()] == [(task.key, task.loop) for task in tasks]
    done, failed, _, stopped, *_ = known.values()
    assert (done.value, done.retention, done.seconds) == (0.5, {1: 0.75, 3: 0.5}, 2.5)
    assert failed.error == "of no memory"
    assert (stopped.reached, stopped.retention) == (2, {1: 0.75, 2: 0.625})
    told = {t.params["cycle"]: (t.params["synthetic_proportion"], t.state) for t in found.study.get_trials()}
    assert told == {
        "incremental": (0.5, TrialState.COMPLETE),
        "balanced": (1.0, TrialState.FAIL),
        "full_synthetic": (1.0, TrialState.PRUNED),
    }


@pytest.mark.usefixtures("root")
def test_what_a_killed_driver_had_begun_stays_so_until_each_of_its_loops_has_ended() -> None:
    config = config_of()
    _, (first, second, *rest) = begun(config)
    again = Trials.create("study", config)
    first.state, first.retention = "done", {3: 0.5}
    again.end(first, config, [0.5])  # and dies before another loop begins
    again = Trials.create("study", config)
    states = {task.key: task.state for task in again.tasks().values()}
    assert states == {first.key: "done"} | {task.key: "stopped" for task in (second, *rest)}
    second.state = "failed"
    again.end(second, config)
    again.note_progress(second)  # begins once more
    assert again.tasks()[second.key].state == "stopped"
    assert len(again.tasks()) == 6


class ConnectionLost(Exception):
    """As the drivers of PostgreSQL raise it."""


ConnectionLost.__name__, ConnectionLost.__module__ = "OperationalError", "psycopg.errors"


@pytest.mark.usefixtures("root")
def test_told_twice_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    trials, (task, *_) = begun(config)
    add, calls = trials.study.add_trial, count(1)

    def add_and_lose_the_connection(trial: FrozenTrial) -> None:
        add(trial)
        if next(calls) == 1:
            raise ConnectionLost

    monkeypatch.setattr(trials.study, "add_trial", add_and_lose_the_connection)
    task.state, task.retention = "done", {3: 0.5}
    trials.end(task, config, [0.5])
    (done,) = trials.study.get_trials()
    assert (done.state, done.values) == (TrialState.COMPLETE, [0.5])


@pytest.mark.usefixtures("root")
def test_what_the_sampler_chose_is_told_once() -> None:
    config = config_of(kind="pareto", cycles=["fresh_mix"], synthetic_proportions=[])
    trials = Trials.create("study", config)
    loop = config.loop_at(DataCycle.FRESH_MIX, 0.8, 0.5, 1)
    task = Task(loop, loop.fingerprint(), "done", retention={3: 0.5})
    trials.name_asked(trials.ask(config), task)
    for _ in range(2):
        trials.end(task, config, [0.5, 0.25])
    (done,) = trials.study.get_trials()
    assert (done.state, done.values) == (TrialState.COMPLETE, [0.5, 0.25])
    assert trials.tasks()[task.key].retention == {3: 0.5}


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
    tasks = list(trials.tasks().values())
    assert [task.state for task in tasks] == ["stopped", "stopped", "failed"]  # each is run, or gone on with
    assert (tasks[0].reached, tasks[0].retention) == (1, {1: 0.75})
    assert trials.study.get_trials(states=[TrialState.WAITING]) == []


@pytest.mark.usefixtures("root")
def test_who_dies_between_asking_and_saying_what_it_became_is_forgotten() -> None:
    config = config_of(kind="pareto", cycles=["fresh_mix"], synthetic_proportions=[])
    Trials.create("study", config).ask(config)
    again = Trials.create("study", config)
    assert again.tasks() == {}
    assert [trial.state for trial in again.study.get_trials()] == [TrialState.FAIL]
    assert again.recorded().num_asked == 0


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_server_that_restarts_is_waited_for_while_a_study_is_begun_and_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost at the first transaction, then at the second, and so on until there are no more."""
    config = config_of(kind="pareto", cycles=["fresh_mix"], synthetic_proportions=[])
    loop, storage = config.loop_at(DataCycle.FRESH_MIX, 0.8, 0.5, 1), open_storage()
    monkeypatch.setattr("ouroloop.study.trials.open_storage", lambda: storage)
    monkeypatch.setattr("ouroloop.record.stores.time.sleep", lambda _: None)
    transactions = count()

    def lose(_: object) -> None:
        if next(transactions) == doomed:
            raise ConnectionLost

    event.listen(storage.engine, "begin", lose)
    doomed = -1
    trials = Trials.create("study", config)
    for doomed in count():
        trials.study.enqueue_trial({}, user_attrs={"cell": "old", "loop": loop.model_dump(mode="json")})
        transactions = count()
        trials = Trials.create("study", config)
        asked = trials.recorded().num_asked
        trials.name_asked(trials.ask(config), Task(loop, loop.fingerprint()))
        assert trials.recorded().num_asked == asked + 1
        if next(transactions) <= doomed:
            break
    assert doomed > 20
    states = Counter(trial.state for trial in Trials.create("study", config).frozen())
    assert states.keys() == {TrialState.FAIL, TrialState.RUNNING}
    assert states[TrialState.RUNNING] == 1


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("kind", ["grid", "pareto"])
def test_what_runs_is_what_its_driver_says_and_not_all_that_was_begun(kind: str) -> None:
    """Killed with two loops at a time, and gone on with one: the other one runs no more."""
    spanned = {"kind": "pareto", "cycles": ["fresh_mix"], "synthetic_proportions": []} if kind == "pareto" else {}
    config = config_of(**spanned)
    trials = Trials.create("study", config)
    trials.note(config=config.model_dump(mode="json"))
    loops = [config.loop_at(config.cycles[0], 0.8, 0.5, seed) for seed in config.seeds]
    first, second = (Task(loop, loop.fingerprint(), "runs", reached=1, retention={1: 0.5}) for loop in loops)
    for task in (first, second):
        if kind == "pareto":
            trials.name_asked(trials.ask(config), task)
        trials.note_progress(task)

    def states() -> list[str]:
        return [loop["state"] for loop in status("study")[0]["loops"] if loop["state"] != "waits"]

    lock = StudyLock("study")
    assert lock.acquire()
    assert states() == ["runs", "runs"]
    again = Trials.create("study", config)
    assert states() == ["stopped", "stopped"]
    again.note_progress(first)
    assert states() == ["runs", "stopped"]
    lock.release()
    assert states() == ["stopped", "stopped"]
    first.state, first.retention = "done", {1: 0.5, 3: 0.25}
    again.end(first, config, [0.25, 0.5])
    assert states() == ["done", "stopped"]


@pytest.mark.usefixtures("root")
def test_another_versions_study_is_one_line() -> None:
    trials = Trials.create("study", config_of())
    trials.note(config=json.loads(config_of().model_dump_json()) | {"knid": 1})
    with pytest.raises(ConfigError, match=r"study 'study' cannot be read here .knid: .* another version of ouroloop"):
        assert trials.config


@pytest.mark.usefixtures("root")
def test_a_study_with_a_step_that_only_python_knows_is_one_line() -> None:
    """Also where its own configuration can be read: the steps of its loops are those of a script's overrides."""
    trials, (task, *_) = begun(config_of())
    record = task.loop.model_dump(mode="json") | {"curation": {"steps": [{"name": "of a script"}]}}
    trials.note(begun={task.key: {"loop": record, "progress": task.progress}})
    with pytest.raises(ConfigError, match=r"study 'study' cannot be read here .*has a step of your own, whose class"):
        trials.tasks()
    with pytest.raises(ConfigError, match="cannot be read here"):
        Trials.create("study", config_of())
    trials.note(config=json.loads(config_of().model_dump_json()))
    (found,) = status("study")
    assert found["loops"] == []
    assert "got 'of a script', allowed is archived" in found["error"]


@pytest.mark.usefixtures("root")
def test_a_store_that_cannot_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nonsense", "sqlite:////no/such/folder/x.db", "oracle://x", "postgresql://u:secret@127.0.0.1:9/x"):
        monkeypatch.setenv("OUROLOOP_OPTUNA_URL", url)
        with pytest.raises(ConfigError) as raised:
            Trials.all()
        assert str(raised.value).startswith(("cannot open the Optuna store", "no server answers at"))
        assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="no server answers at postgresql://u:\\*\\*\\*@"):  # at once
        StudyLock("study").acquire()


def test_a_cycle_without_a_proportion_has_one_for_optuna(tiny: LoopConfig) -> None:
    for kind in (DataCycle.BALANCED, DataCycle.FULL_SYNTHETIC):
        assert tiny.cycle.model_copy(update={"kind": kind}).effective_proportion == 1.0
