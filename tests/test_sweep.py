"""Studies of every kind through the command line: real models, workers and stores."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from ouroloop.config import DataCycle, LoopConfig, StudyConfig
from ouroloop.record import stores
from ouroloop.record.track import Run, Store
from ouroloop.science.cycle import fresh_share
from ouroloop.study.answer import Point, answer, front
from ouroloop.study.queue import Queue
from ouroloop.study.status import loop_of, seconds_left
from ouroloop.study.sweep import run_study
from ouroloop.testbed.logic.grammar import Initialisation
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
    loop = {key: value for key, value in TINY.items() if key != "seed"}  # which is the study's to say
    for name, study in kinds.items():
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(study | {"loop": loop}))
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
    done = ouroloop("sweep", "search", cwd=presets)
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

    monkeypatch.setattr("ouroloop.study.search.DecidedPruner.prune", once)
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


def test_a_loop_that_another_process_runs_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is known then; to fail it would hide the result."""
    ideal = TINY | {"model": {"kind": "empirical"}, "train": None}
    pareto = {"num_trials": 1, "lowest": 0.25, "highest": 0.75, "precision": 1.0}
    config = StudyConfig.model_validate({"kind": "pareto", "cycles": ["fresh_mix"], "pareto": pareto, "loop": ideal})
    monkeypatch.setattr(stores, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("ouroloop.study.sweep._POLL_SECONDS", 0.05)
    store, begun, lines = Store.open(), Event(), StringIO()
    cell = config.cell(DataCycle.FRESH_MIX, 0.8, 0.25, 0)

    def elsewhere() -> None:
        with stores.locked("busy", cell.fingerprint()):
            begun.set()
            sleep(1)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(elsewhere)
        begun.wait()
        assert run_study(config, "busy", store, Console(file=lines)) == 0
        other.result()
    queue = Queue.load("busy")
    assert queue is not None
    states = [trial.state for trial in queue.trials()]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
    assert "failed" not in lines.getvalue()


def test_workers_that_die_whatever_they_take_end_the_study(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits in a search that no worker lives to ask for; the study must not start workers for ever."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr("ouroloop.study.sweep._MAX_DEAD", 2)
    with pytest.raises(RuntimeError, match="workers keep dying; their logs are in"):
        ouroloop("sweep", "search", "--workers=2", cwd=presets)
    (study,) = Store.open().find(level="study", study="search")
    assert study.status == "FAILED"


@pytest.fixture
def grid(root: Path) -> Callable[..., list[str]]:
    """What a grid of λ = 0.25, 0.5, 0.75 with two seeds says when its loops kept so much, None for a failed one."""

    def said(*kept: tuple[float | None, float | None]) -> list[str]:
        config = StudyConfig.model_validate({"synthetic_proportions": [0.25, 0.5, 0.75], "seeds": [1, 2], "loop": TINY})
        queue = Queue.create("grid")
        queue.add_missing(config.loops())
        values = {(p, s): pair[s - 1] for p, pair in zip((0.25, 0.5, 0.75), kept, strict=True) for s in (1, 2)}
        while (trial := queue.claim()) is not None:
            loop = loop_of(trial)
            assert loop.cycle.synthetic_proportion is not None
            value = values[loop.cycle.synthetic_proportion, loop.seed]
            queue.finish(trial, TrialState.FAIL) if value is None else queue.finish(trial, TrialState.COMPLETE, value)
        return answer(config, queue)

    return said


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (((0.9, 0.8), (0.7, 0.6), (0.6, 0.6)), "every λ up to 0.75 keeps at least 50% of D_0's diversity at t = 3"),
        (((0.9, 0.8), (0.9, 0.4), (0.6, 0.6)), "every λ up to 0.25 keeps"),  # the mean would do, one seed does not
        (((0.9, 0.8), (0.9, 0.4), (0.6, 0.6)), "; λ = 0.5 does not: 65.0%"),
        (((0.9, 0.8), (None, None), (0.6, 0.6)), "; λ = 0.5 has not come to its end with every seed"),
        (((0.9, None), (0.9, 0.9), (0.6, 0.6)), "no λ is known to keep at least 50%"),
        (((0.2, 0.2), (0.9, 0.9), (0.6, 0.6)), "λ = 0.25 does not: 20.0%"),
    ],
)
def test_what_a_grid_says_holds_for_every_seed(
    grid: Callable[..., list[str]], kept: tuple[tuple[float | None, float | None], ...], said: str
) -> None:
    (line,) = grid(*kept)
    assert said in line


def test_the_front_keeps_what_nothing_beats() -> None:
    arm = (DataCycle.FRESH_MIX, 0.8)
    kept = {0.0: [0.1, 0.3], 0.25: [0.5], 0.5: [0.4], 0.75: [0.5], 1.0: [0.9, 0.8]}
    points = [
        Point(arm, Initialisation.TRUE_ONLY, 1 - share, share, dict(enumerate(values)))
        for share, values in kept.items()
    ]
    assert [point.fresh_share for point in front(points)] == [0.0, 0.25, 1.0]
    assert f"{points[0]}" == "20.0% ± 10.0% (10.0% to 30.0%), 2 seeds"
    assert f"{points[1]}" == "50.0%, 1 seed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--kind=grid"], "incremental needs synthetic_proportions"),
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


def trial_of(loop: LoopConfig, state: TrialState, seconds: float, computed: int, resumed: int = 0) -> FrozenTrial:
    """A trial that began so many seconds ago, or took so long, with so many generations, of which some were resumed."""
    now = datetime.now()
    return FrozenTrial(
        number=0, trial_id=0, state=state, value=1.0 if state is TrialState.COMPLETE else None, params={},
        distributions={}, system_attrs={}, user_attrs={"loop": loop.model_dump(mode="json"), "computed": computed},
        intermediate_values=dict.fromkeys(range(1, computed + resumed + 1), 1.0),
        datetime_start=now - timedelta(seconds=seconds) if computed else None,
        datetime_complete=now if state is TrialState.COMPLETE else None,
    )  # fmt: skip


def test_the_time_left_counts_what_is_still_to_be_computed(tiny: LoopConfig) -> None:
    loop = tiny.model_copy(update={"num_generations": 10})
    done = trial_of(loop, TrialState.COMPLETE, 100, 10)  # 10 s a generation
    waits = trial_of(loop, TrialState.WAITING, 0, 0)
    half = trial_of(loop, TrialState.RUNNING, 50, 5)
    resumed = trial_of(loop, TrialState.RUNNING, 10, 1, resumed=4)  # four of its five cost nothing this time
    assert seconds_left([done, waits]) is None  # nobody is at it
    assert seconds_left([half]) == pytest.approx(50, abs=1)
    assert seconds_left([done, half, resumed, waits]) == pytest.approx((5 + 5 + 10) / 2 * 10, abs=1)
    assert seconds_left([done, half, waits, waits], still_to_come=20) == pytest.approx(450, abs=2)
    early = trial_of(loop, TrialState.RUNNING, 10, 1)
    late = trial_of(loop, TrialState.RUNNING, 90, 9)
    assert seconds_left([early, late]) == pytest.approx(90, abs=1)  # a loop cannot be shared
