"""Studies of every kind through the command line: real models, workers and stores."""

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from ouroloop.config import DataCycle
from ouroloop.cycle import fresh_share
from ouroloop.queue import Queue
from ouroloop.results import Point, front
from ouroloop.status import loop_of
from ouroloop.track import Run, Store
from tests.conftest import TINY, CommandLine

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A working directory with a tiny study of each kind; malformed samples make D_0's diversity nearly double."""
    folder = tmp_path / "elsewhere"
    (folder / "experiments").mkdir(parents=True)
    lattice = {"lowest": 0.25, "highest": 0.75, "precision": 0.25}
    kinds = {
        "search": {"kind": "search", "seeds": [1, 2], "search": lattice | {"target_retention": 1.0, "max_rise": 0.1}},
        "pareto": {"kind": "pareto", "cycles": ["fresh_mix", "expanding"], "pareto": lattice | {"num_trials": 4}},
    }
    for name, study in kinds.items():
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(study | {"loop": TINY}))
    return folder


def artifact(run: Run, name: str) -> bytes:
    return Path(run.store.client.download_artifacts(run.id, name)).read_bytes()


def new_points(run: Run) -> tuple[int, int]:
    """Examples of D_1 .. D_{T-1} that were new in them: how many are fresh, and how many there are."""
    fresh = sampled = 0
    for child in run.store.find(level="generation", parent=run.id):
        (dataset,) = child.entity.inputs.dataset_inputs
        mixture = json.loads(dataset.dataset.profile)["mixture"]
        turn = int(child.tag("generation") or 0) - 1  # it was trained on D_{t-1}
        fresh += mixture.get(f"fresh-{turn:02d}", 0)
        sampled += mixture.get(f"sampled-{turn:02d}", 0)
    return fresh, fresh + sampled


def test_a_search_leaves_its_answer_on_the_study_run(ouroloop: CommandLine, presets: Path) -> None:
    done = ouroloop("sweep", "search", "--workers=2", cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "incremental, T = 0.8: λ*, the largest λ that keeps 100.0% at t = 3, is " in done.stdout
    assert "generation   3/3" in done.stdout  # progress, though this is no terminal
    (study,) = Store.open().find(level="study", study="search")
    assert study.status == "FINISHED"
    found = json.loads(artifact(study, "answer.json"))
    (bracket,) = found["brackets"]
    means = {point["synthetic_proportion"]: point["mean_retention"] for point in found["points"]}
    assert bracket["held"] is None or means[bracket["held"]] >= 1.0
    assert found["answer"][0] in (study.entity.data.tags["mlflow.note.content"])
    assert all(artifact(study, f"{name}.png").startswith(PNG) for name in ("history", "generations"))
    queue = Queue.load("search")
    assert queue is not None
    statuses = {run.tag("fingerprint"): run.status for run in study.store.find(level="loop", study="search")}
    as_run = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
    assert {t.user_attrs["cell"]: as_run[t.state] for t in queue.trials()} == statuses
    assert study.store.running() == []

    (record,) = json.loads(ouroloop("status", "search", "--json", cwd=presets).stdout)
    assert {loop["state"] for loop in record["loops"]} <= {"done", "pruned"}
    before = len(queue.trials())
    assert ouroloop("sweep", "search", cwd=presets).returncode == 0  # nothing is missing
    assert len(queue.trials()) == before
    refused = ouroloop("sweep", "search", "--search.target_retention=0.5", cwd=presets)
    assert "search.target_retention (1.0 before, 0.5 now)" in refused.stderr


def test_a_pruned_loop_ends_as_killed_and_goes_on_when_it_is_wanted_again(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def once(*_: object) -> bool:
        seen.extend(run.status for run in Store.open().find(level="loop"))
        return len(seen) == 1

    monkeypatch.setattr("ouroloop.search.DecidedPruner.prune", once)
    done = ouroloop("sweep", "search", "--seeds=[1]", "--search.highest=0.5", "--search.precision=0.5", cwd=presets)
    assert done.returncode == 0
    assert "incremental-0.25-T0.8-s1 ended early: it can no longer change the answer" in done.stdout
    assert seen == ["RUNNING", "RUNNING"]  # the pruner was wrong, so the search came back to it
    queue = Queue.load("search")
    assert queue is not None
    assert [trial.state for trial in queue.trials()] == [TrialState.PRUNED, TrialState.COMPLETE]
    (run,) = Store.open().find(level="loop")
    assert (run.status, run.tag("pruned")) == ("FINISHED", "yes")
    assert len(run.store.find(level="generation", parent=run.id)) == 3


def test_a_pareto_study_weighs_what_was_really_used(ouroloop: CommandLine, presets: Path) -> None:
    done = ouroloop("sweep", "pareto", cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fresh keeps" in done.stdout
    store = Store.open()
    (study,) = store.find(level="study", study="pareto")
    assert artifact(study, "pareto_front.png").startswith(PNG)
    queue = Queue.load("pareto")
    assert queue is not None
    assert len(queue.trials(TrialState.COMPLETE)) == 4
    for trial in queue.trials():
        loop = loop_of(trial)
        (run,) = store.find(level="loop", study="pareto", fingerprint=loop.fingerprint())
        fresh, new = new_points(run)
        assert trial.values == [dict(run.history("diversity_retention"))[3], fresh / new]
        assert trial.values[1] == fresh_share(loop.cycle, loop.data.num_examples)


def test_the_front_keeps_what_nothing_beats() -> None:
    arm = (DataCycle.FRESH_MIX, 0.8)
    kept = {0.0: [0.1, 0.3], 0.25: [0.5], 0.5: [0.4], 0.75: [0.5], 1.0: [0.9, 0.8]}
    points = [Point(arm, 1 - share, share, dict(enumerate(values))) for share, values in kept.items()]
    assert [point.fresh_share for point in front(points)] == [0.0, 0.25, 1.0]
    assert f"{points[0]}" == "20.0% ± 10.0% (10.0% to 30.0%), 2 seeds"
    assert f"{points[1]}" == "50.0%, 1 seed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--kind=grid"], "a grid needs synthetic_proportions"),
        (["--synthetic_proportions=[0.5]"], "takes no synthetic_proportions but search.lowest"),
        (["--cycles=[balanced]"], "a search cannot have cycle balanced; allowed: incremental, expanding, fresh_mix"),
        (["--kind=pareto"], "a pareto takes no search"),
        (["--search.lowest=0.9"], "lowest 0.9 must be below highest 0.75"),
        (["--search.target_retention=0"], "search.target_retention: got 0"),
    ],
)
def test_what_a_study_of_one_kind_does_not_take(
    ouroloop: CommandLine, presets: Path, changes: list[str], message: str
) -> None:
    done = ouroloop("sweep", "search", *changes, cwd=presets)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
