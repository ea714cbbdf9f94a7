"""What is read of a study without Optuna is what Optuna reads; and nothing else is touched."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.urls import sqlite_file
from ouroloop.study.config import StudyConfig
from ouroloop.study.recorded import recorded_studies
from ouroloop.study.status import status
from ouroloop.study.task import Task
from ouroloop.study.trials import Trials, distributions, parameters
from tests.conftest import IDEAL


def several(name: str, **changes: object) -> Trials:
    """A study with a loop in every state, and one that an earlier version noted."""
    tree = {"cycles": ["incremental", "balanced"], "synthetic_proportions": [0.25, 0.5], "seeds": [1, 2, 3]}
    config = StudyConfig.model_validate(tree | {"loop": IDEAL} | changes)
    trials = Trials.create(name, config)
    trials.note(config=config.model_dump(mode="json"), elsewhere=[])
    loops = config.loops() or [
        config.loop_at(config.cycles[0], config.temperatures[0], 0.5, seed) for seed in (1, 2, 3, 4, 5)
    ]
    tasks = [Task(loop, loop.fingerprint(), reached=2, retention={1: 0.75, 2: 0.5}) for loop in loops]
    for task, state in zip(tasks, ("done", "failed", "pruned", "stopped"), strict=False):
        trials.note_progress(task)
        task.state = state  # type: ignore[assignment]
        if state == "done":
            task.retention[task.loop.num_generations] = 0.25
        if state != "stopped":
            trials.end(task, config, [0.25, 0.5] if state == "done" else [])
    attributes = {"cell": tasks[4].key, "loop": tasks[4].loop.model_dump(mode="json"), "error": "no 'room\""}
    known, chosen = distributions(config), parameters(tasks[4].loop)
    kept = {1: 0.5, 2: 0.125} if config.kind != "pareto" else {}
    trials.study.add_trial(
        create_trial(state=TrialState.FAIL, params={name: chosen[name] for name in known}, distributions=known,
                     user_attrs=attributes, intermediate_values=kept)
    )  # fmt: skip
    trials.study.ask()  # which nobody has named
    return trials


@pytest.mark.usefixtures("root")
def test_it_is_what_optuna_reads() -> None:
    assert recorded_studies() == []
    both = [several("a"), several("b", kind="pareto", cycles=["expanding"], synthetic_proportions=[], seeds=[1])]
    Trials.create("never begun", StudyConfig.model_validate({"loop": IDEAL, "synthetic_proportions": [0.5]}))
    found = recorded_studies()
    assert found == [trials.recorded() for trials in both]
    assert [study.tasks() for study in found] == [trials.tasks() for trials in both]
    assert [task.state for task in found[0].tasks().values()] == ["done", "failed", "pruned", "failed", "stopped"]
    assert [study.config for study in found] == [trials.config for trials in both]


@pytest.mark.usefixtures("root")
def test_a_store_that_is_not_there_is_not_asked_of_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose import takes a second. A folder that was named and is not there is a mistake."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ouroloop.study.trials", None)
        assert recorded_studies() == []
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", "sqlite:////no/such/folder/optuna.db")
    with pytest.raises(ConfigError, match="cannot open the Optuna store"):
        recorded_studies()


@pytest.mark.usefixtures("root")
def test_tables_of_another_version_are_left_to_optuna() -> None:
    several("a")
    path = sqlite_file(stores.optuna_url())
    assert path is not None
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    with pytest.raises(ConfigError, match="cannot open the Optuna store"):
        recorded_studies()
    path.write_text("no database")
    with pytest.raises(ConfigError, match="cannot open the Optuna store"):
        recorded_studies()


@pytest.mark.heavy
def test_status_imports_no_optuna_and_leaves_nothing_behind(root: Path) -> None:
    """Nor MLflow, where no loop has stopped short: they take three seconds."""
    config = StudyConfig.model_validate({"loop": IDEAL, "synthetic_proportions": [0.5], "seeds": [1, 2]})
    trials = Trials.create("a", config)
    trials.note(config=config.model_dump(mode="json"))
    task = Task(config.loops()[0], config.loops()[0].fingerprint(), "done", retention={3: 0.25})
    trials.end(task, config, [0.25])
    before = sorted(path.name for path in (root / "mlruns").iterdir())
    heavy = ["optuna", "sqlalchemy", "alembic", "mlflow", "pandas", "scipy", "torch", "matplotlib"]
    asked = "import sys; from ouroloop.cli import main; code = main(['status', 'a', '--json']); "
    asked += f"sys.stderr.write(' '.join(name for name in {heavy} if name in sys.modules)); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", asked], env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (root / "mlruns").iterdir()) == before
    assert json.loads(done.stdout) == status("a")
