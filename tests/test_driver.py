"""Studies of every kind through the command line: real models, workers and stores."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.plain import as_text
from ouroloop.record.liveness import Interrupted
from ouroloop.record.locks import StudyLock
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.cycle import fresh_share
from ouroloop.study.answer import Point, answer, front
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import _Driver
from ouroloop.study.status import seconds_left
from ouroloop.study.task import Task
from ouroloop.study.trials import Trials
from ouroloop.testbed.logic.grammar import TruthLabel
from tests.conftest import IDEAL, IDEAL_LOOP, TINY, CommandLine

LOOP = {key: value for key, value in TINY.items() if key != "seed"}  # which is the study's to say

SWEEP = [sys.executable, "-m", "ouroloop", "sweep"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A working directory with a tiny study of each kind; malformed samples make D_0's diversity nearly double."""
    folder = tmp_path / "elsewhere"
    (folder / "experiments").mkdir(parents=True)
    lattice = {"lowest": 0.25, "highest": 0.75, "precision": 0.25}
    kinds = {
        "grid": {"synthetic_proportions": [0.0, 1.0], "seeds": [1, 2], "loop": IDEAL_LOOP | {"num_generations": 4}},
        "search": {"kind": "search", "seeds": [1, 2], "search": lattice | {"target_retention": 1.0, "max_rise": 0.1}},
        "pareto": {"kind": "pareto", "cycles": ["fresh_mix", "expanding"], "pareto": lattice | {"num_trials": 4}},
    }
    for name, study in kinds.items():
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump({"loop": LOOP} | study))
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


@pytest.mark.heavy
def test_a_search_leaves_its_answer_on_the_study_run(ouroloop: CommandLine, presets: Path) -> None:
    search = ("sweep", "search", "--loop.model.kind=empirical", "--loop.train=null")
    done = ouroloop(*search, cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "incremental, T = 0.8: λ*, the largest λ that keeps 100.0% at t = 3, is " in done.stdout
    assert "generation   3/3" in done.stdout  # progress, though this is no terminal
    assert max(map(len, done.stdout.partition("each loop's last")[2].partition("incremental, T")[0].splitlines())) <= 80
    assert "…" not in done.stdout
    (study,) = Store.open().find(level="study", study="search")
    assert study.status == "FINISHED"
    found = json.loads(artifact(study, "answer.json"))
    (bracket,) = found["brackets"]
    means = {point["synthetic_proportion"]: point["mean_retention"] for point in found["points"]}
    held = [point for point, mean in means.items() if mean >= 1.0]
    assert bracket["held"] == max(held, default=None)
    assert bracket["confidence"] == 0.95
    assert as_text(found["answer"][0]) in study.entity.data.tags["mlflow.note.content"]
    assert all(artifact(study, f"report/{name}.png").startswith(PNG) for name in ("retention", "kept"))
    trials = Trials.load("search")
    assert trials is not None
    statuses = {run.tag("fingerprint"): run.status for run in study.store.find(level="loop", study="search")}
    as_run = {"done": "FINISHED", "pruned": "KILLED"}
    assert {task.key: as_run[task.state] for task in trials.tasks().values()} == statuses
    assert study.store.running() == []

    (record,) = json.loads(ouroloop("status", "search", "--json", cwd=presets).stdout)
    assert {loop["state"] for loop in record["loops"]} <= {"done", "pruned"}
    before = len(trials.study.trials)
    assert ouroloop(*search, cwd=presets).returncode == 0  # nothing is missing
    assert len(trials.study.get_trials()) == before
    refused = ouroloop(*search, "--search.target_retention=0.5", cwd=presets)
    assert "search.target_retention (1.0 before, 0.5 now)" in refused.stderr


@pytest.mark.slow
def test_a_pruned_loop_ends_as_killed_and_goes_on_when_it_is_wanted_again(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def once(*_: object) -> bool:
        seen.extend(run.status for run in Store.open().running() if run.tag("level") == "loop")
        return len(seen) == 1

    monkeypatch.setattr("ouroloop.study.search.Search.is_decided", once)
    done = ouroloop("sweep", "search", "--seeds=[1]", "--search.highest=0.5", "--search.precision=0.5", cwd=presets)
    assert done.returncode == 0
    assert "incremental-0.25-T0.8-s1 ended early: it can no longer change the answer" in done.stdout
    assert seen == ["RUNNING", "RUNNING"]  # it was wrong, so the search came back to the loop
    trials = Trials.load("search")
    assert trials is not None
    assert [trial.state for trial in trials.study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    (run,) = Store.open().find(level="loop")
    assert (run.status, run.tag("pruned")) == ("FINISHED", "no")
    assert len(run.store.find(level="generation", parent=run.id)) == 3


@pytest.mark.heavy
def test_a_stopped_loop_that_others_decide_was_ended_by_the_search_on_record_too(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a report would leave it out as one that happened to stop, and favour those that kept more."""

    def stop(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    search = ["sweep", "search", "--seeds=[1]", "--search.highest=0.5", "--search.precision=0.5"]
    with monkeypatch.context() as during:
        during.setattr("ouroloop.study.driver._Driver.watched", stop)
        assert ouroloop(*search, cwd=presets).returncode == 128 + signal.SIGINT
    (run,) = Store.open().find(level="loop")
    assert (run.status, run.is_pruned) == ("KILLED", False)
    monkeypatch.setattr("ouroloop.study.search.Search.is_decided", lambda *_: True)
    monkeypatch.setattr("ouroloop.study.search.Search.wanted", lambda _: iter(()))
    assert ouroloop(*search, cwd=presets).returncode == 0
    (run,) = Store.open().find(level="loop")
    assert (run.status, run.is_pruned) == ("KILLED", True)


@pytest.mark.slow
def test_loops_in_workers_take_several_devices_each(ouroloop: CommandLine, presets: Path) -> None:
    """Their processes are started from inside a worker: none runs the command line again, no loop is there twice."""
    few = {"num_steps": 4, "batch_size": 8, "learning_rate": 0.01, "validate_every": 4, "devices": 2}
    loop = TINY | {"num_generations": 2, "train": few | {"accelerator": "cpu"}}
    tree = {"cycles": ["incremental"], "synthetic_proportions": [1.0], "seeds": [1, 2],
            "loop": {key: value for key, value in loop.items() if key != "seed"}}  # fmt: skip
    (presets / "experiments" / "together.yaml").write_text(yaml.safe_dump(tree))
    done = ouroloop("sweep", "together", "--workers=2", cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store.open()
    runs = store.find(level="loop", study="together")
    assert sorted((run.tag("seed"), run.status, run.reached) for run in runs) == [
        ("1", "FINISHED", 2),
        ("2", "FINISHED", 2),
    ]
    assert {run.entity.data.params["train.devices"] for run in runs} == {"2"}
    assert len(store.find(level="generation")) == 4


@pytest.mark.slow
def test_a_curation_that_ran_short_in_a_worker_is_said(ouroloop: CommandLine, presets: Path) -> None:
    tree = {"cycles": ["full_synthetic"], "seeds": [1, 2],
            "loop": IDEAL_LOOP | {"curation": {"steps": ["unique"], "max_drawn": 1.5}}}  # fmt: skip
    (presets / "experiments" / "short.yaml").write_text(yaml.safe_dump(tree))
    done = ouroloop("sweep", "short", "--workers=2", cwd=presets)
    assert done.returncode == 0, done.stdout
    for seed in (1, 2):
        (run,) = Store.open().find(level="loop", study="short", seed=str(seed))
        short = [tag for one in run.store.find(level="generation", parent=run.id) if (tag := one.tag("ran_short"))]
        said = f"unique-s{seed}, t = 1: {short[-1]}; too few in {len(short) - 1} later generations\n"
        assert said in done.stdout


@pytest.mark.heavy
def test_what_is_copied_does_not_count_for_the_time_left(ouroloop: CommandLine, presets: Path) -> None:
    """A study with more seeds under another name copies what there is: that says nothing of what is to be computed."""
    assert ouroloop("sweep", "grid", "--seeds=[1]", "--workers=2", cwd=presets).returncode == 0
    (presets / "experiments" / "more.yaml").write_bytes((presets / "experiments" / "grid.yaml").read_bytes())
    assert ouroloop("sweep", "more", "--workers=2", cwd=presets).returncode == 0
    trials = Trials.load("more")
    assert trials is not None
    computed = {1: list[int](), 2: list[int]()}
    for task in trials.tasks().values():
        computed[task.loop.seed].append(task.computed)
    assert computed[1] == [0, 0]
    assert min(computed[2]) > 0
    assert sum(computed[2]) <= 7  # one has its M_1 from the other; an end that nobody read counts not
    copied = [run.tag("copied") for run in Store.open().find(level="loop", study="more")]
    assert sorted(copied, key=str) == ["1", "4", "4", None]


@pytest.mark.slow
def test_a_pareto_study_weighs_what_was_really_used(ouroloop: CommandLine, presets: Path) -> None:
    done = ouroloop("sweep", "pareto", cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fresh keeps" in done.stdout
    store = Store.open()
    (study,) = store.find(level="study", study="pareto")
    assert artifact(study, "report/kept.png").startswith(PNG)
    trials = Trials.load("pareto")
    assert trials is not None
    assert {trial.state for trial in trials.study.trials} == {TrialState.COMPLETE}
    assert len(trials.study.trials) == 4
    for trial in trials.study.trials:
        loop = LoopConfig.model_validate(trial.user_attrs["loop"])
        (run,) = store.find(level="loop", study="pareto", fingerprint=loop.fingerprint())
        fresh, new = new_points(run)
        assert trial.values == [dict(run.history("diversity_retention"))[3], fresh / new]
        assert trial.values[1] == fresh_share(loop.cycle, loop.data.num_examples)


@pytest.mark.slow
def test_a_point_that_is_chosen_again_while_its_loop_runs_is_told_too(ouroloop: CommandLine, presets: Path) -> None:
    """One λ, two seeds, two workers: from the third trial on every loop is known or runs."""
    tree = {"kind": "pareto", "cycles": ["fresh_mix"], "seeds": [1, 2], "loop": IDEAL_LOOP,
            "pareto": {"num_trials": 6, "lowest": 0.25, "highest": 0.75, "precision": 1.0}}  # fmt: skip
    (presets / "experiments" / "one.yaml").write_text(yaml.safe_dump(tree))
    done = ouroloop("sweep", "one", "--workers=2", cwd=presets)
    assert done.returncode == 0, done.stdout
    trials = Trials.load("one")
    assert trials is not None
    assert [trial.state for trial in trials.study.trials] == [TrialState.COMPLETE] * 6
    assert len(Store.open().find(level="loop")) == 2


@pytest.mark.slow
def test_what_is_run_again_is_none_of_the_points_that_a_sampler_is_asked_for(
    ouroloop: CommandLine, presets: Path
) -> None:
    sweep = ("sweep", "pareto", "--loop.model.kind=empirical", "--loop.train=null")
    assert ouroloop(*sweep, "--pareto.num_trials=3", cwd=presets).returncode == 0
    store = Store.open()
    for run in store.find(level="loop"):
        store.client.delete_run(run.id)
    assert "finished loops are no longer on record" in ouroloop(*sweep, "--pareto.num_trials=3", cwd=presets).stdout
    assert ouroloop(*sweep, "--pareto.num_trials=5", cwd=presets).returncode == 0
    trials = Trials.load("pareto")
    assert trials is not None
    assert sum("progress" not in trial.user_attrs for trial in trials.study.trials) == 5
    assert trials.recorded().num_asked == 5


def test_a_point_may_be_chosen_again_a_thousand_times_while_its_loop_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {"kind": "pareto", "cycles": ["fresh_mix"], "loop": IDEAL_LOOP, "pareto": {"num_trials": 2_000}}
    config, store = StudyConfig.model_validate(tree), Store.open()
    chosen = SimpleNamespace(params={"cycle": "fresh_mix", "temperature": 0.8, "synthetic_proportion": 0.5})
    monkeypatch.setattr(Trials, "ask", lambda *_: chosen)
    monkeypatch.setattr(Trials, "name_asked", lambda *_: None)
    run, lock = store.create("study", None, {"level": "study"}), StudyLock("study")
    driver = _Driver(config, store, Console(quiet=True), Trials.create("study", config), run, lock)
    first = driver.next()
    assert first is not None
    first.state = "runs"
    driver._known[first.key] = first
    assert driver.next() is None
    assert len(driver._alike[first.key]) == 1_999


@pytest.mark.slow
def test_workers_that_were_made_for_nothing_end(ouroloop: CommandLine, presets: Path) -> None:
    store = Store.open()
    store.create("grid", None, {"level": "study", "study": "grid", "id": "another", "root": "r", "driver": "someone"})
    before = multiprocessing.active_children()  # those that share a network, in other tests, live on to be asked again
    refused = ouroloop("sweep", "grid", "--workers=2", cwd=presets)
    assert refused.returncode == 2
    assert "is being run by someone on the same MLflow store" in refused.stderr
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.slow
def test_a_second_driver_is_told_who_the_first_is(ouroloop: CommandLine, presets: Path) -> None:
    assert ouroloop("sweep", "grid", cwd=presets).returncode == 0
    lock = StudyLock("grid")
    assert lock.acquire()
    try:
        refused = ouroloop("sweep", "grid", cwd=presets)
    finally:
        lock.release()
    assert refused.returncode == 2
    assert f"study 'grid' is being run by process {os.getpid()} on " in refused.stderr
    assert refused.stderr.count("\n") == 1


def states(name: str) -> list[tuple[str, int]]:
    trials = Trials.load(name)
    assert trials is not None
    return [(task.state, task.reached) for task in trials.tasks().values()]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["store", "loop"])
def test_what_is_gone_from_the_record_runs_again(ouroloop: CommandLine, presets: Path, root: Path, what: str) -> None:
    """Optuna still has it as done. In processes of their own: MLflow keeps a deleted file open."""

    def sweep() -> str:
        return subprocess.run([*SWEEP, "grid"], cwd=presets, capture_output=True, text=True, check=True).stdout

    sweep()
    if what == "store":
        for path in (root / "mlruns").glob("mlflow.db*"):
            path.unlink()
    else:
        store = Store.open()
        store.client.delete_run(store.find(level="loop")[0].id)
    assert f"{4 if what == 'store' else 1} finished loops are no longer on record" in sweep()
    assert [run.status for run in Store.open().find(level="loop")] == ["FINISHED"] * 4
    assert "no longer on record" not in ouroloop("sweep", "grid", cwd=presets).stdout


@pytest.mark.slow
def test_a_study_whose_optuna_store_is_lost_is_read_from_the_record(
    ouroloop: CommandLine, presets: Path, root: Path
) -> None:
    assert ouroloop("sweep", "grid", cwd=presets).returncode == 0
    for path in (root / "mlruns").glob("optuna.db*"):
        path.unlink()
    again = ouroloop("sweep", "grid", cwd=presets)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("on record") == 16
    assert len(Store.open().find(level="loop")) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGHUP), (2, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_signal_ends_the_study_and_the_same_command_goes_on(
    ouroloop: CommandLine, presets: Path, workers: int, number: int
) -> None:
    long = ["grid", "--loop.num_generations=25", f"--workers={workers}"]
    process = subprocess.Popen(
        [*SWEEP, *long], cwd=presets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    begun: set[str] = set()  # a loop that was handed out and has not begun has no run yet to compare with
    for line in process.stdout:
        if "generation   " in line and "generation   0" not in line:
            begun.add(line.split()[0])
        if len(begun) == workers:
            break
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=30) == 128 + number, rest
    process.stdout.close()
    assert "Traceback" not in rest
    store = Store.open()
    assert store.running() == []
    assert {run.status for run in store.find(level="study")} == {"KILLED"}
    (record,) = json.loads(ouroloop("status", "grid", "--json", cwd=presets).stdout)
    true = {run.entity.info.run_name: run.reached for run in store.find(level="loop")}
    shown = {loop["loop"]: loop["generation"] for loop in record["loops"] if loop["state"] == "stopped"}
    assert shown == true
    assert max(shown.values()) > 0
    assert ouroloop("sweep", *long, "--seeds=[2]", cwd=presets).returncode == 0
    ended = {(run.tag("seed"), run.status) for run in Store.open().find(level="loop")}
    assert ended == {("1", "KILLED"), ("2", "FINISHED")}, "what is not asked for any more does not go on"
    assert ouroloop("sweep", "grid", "--loop.num_generations=25", "--workers=2", cwd=presets).returncode == 0
    store = Store.open()
    loops = store.find(level="loop")
    assert [run.status for run in loops] == ["FINISHED"] * 4
    for run in loops:
        assert [step for step, _ in run.history("correctness")] == list(range(26))
        assert len(store.find(level="generation", parent=run.id)) == 25


@pytest.mark.slow
def test_a_second_signal_ends_at_once(presets: Path, root: Path) -> None:
    process = subprocess.Popen([*SWEEP, "grid", "--loop.num_generations=5000", "--workers=2"], cwd=presets,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    worker = next(int(pid) for pid in children(process.pid) if "spawn_main" in command(pid))
    os.kill(worker, signal.SIGSTOP)  # a worker that does not end when it is asked to
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130  # a worker that does not end is waited for longer
    process.stdout.close()
    os.kill(worker, signal.SIGKILL)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_killed_workers_are_replaced_and_a_killed_driver_leaves_nobody(
    ouroloop: CommandLine, presets: Path, root: Path
) -> None:
    process = subprocess.Popen([*SWEEP, "grid", "--loop.num_generations=40", "--workers=2"], cwd=presets,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "generation" in line and "generation   0" not in line:
            break
    first = {pid for pid in children(process.pid) if "spawn_main" in command(pid)}
    os.kill(min(first), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while len(now := {pid for pid in children(process.pid) if "spawn_main" in command(pid)} - {min(first)}) < 2:
        assert time.monotonic() < deadline, "it was not replaced"
        time.sleep(0.1)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 300  # one that is only starting has first to get to where it watches
    while any("spawn_main" in command(pid) for pid in now):
        assert time.monotonic() < deadline, "a worker outlived its driver"
        time.sleep(0.1)
    (record,) = json.loads(ouroloop("status", "grid", "--json", cwd=presets).stdout)
    true = {run.entity.info.run_name: run.reached for run in Store.open().find(level="loop")}
    assert {loop["loop"]: loop["generation"] for loop in record["loops"] if loop["generation"]} == true
    assert ouroloop("sweep", "grid", "--loop.num_generations=40", "--workers=2", cwd=presets).returncode == 0
    store = Store.open()
    assert store.running() == []
    for run in store.find(level="loop"):
        assert [step for step, _ in run.history("correctness")] == list(range(41))


@pytest.mark.slow
def test_a_loop_whose_workers_die_whatever_they_do_fails_and_the_others_go_on(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ouroloop.study.driver.run_one", die_or_run)
    done = ouroloop("sweep", "grid", "--workers=2", cwd=presets)
    assert done.returncode == 1
    assert (
        "incremental-0-empirical-T0.8-s1 failed: 5 workers were lost in generation 1: BrokenProcessPool" in done.stdout
    )
    assert sorted(states("grid")) == [("done", 4)] * 3 + [("failed", 0)]


def die_or_run(loop: LoopConfig, *arguments: object) -> object:
    from ouroloop.study.work import run_one

    if loop.seed == 1 and loop.cycle.synthetic_proportion == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_one(loop, *arguments)  # type: ignore[arg-type]


@pytest.mark.heavy
def test_a_failed_loop_keeps_its_traceback_without_passwords(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise FloatingPointError("diverged at postgresql://u:secret@host/x")

    monkeypatch.setattr("ouroloop.learner.empirical.EmpiricalModel.sample", explode)
    done = ouroloop("sweep", "grid", "--synthetic_proportions=[0.0]", cwd=presets)
    assert done.returncode == 1
    for run in Store.open().find(level="loop"):
        kept = run.read_text("traceback.txt")
        assert kept.startswith("Traceback (most recent call last)")
        assert "FloatingPointError: diverged at postgresql://u:***@host/x" in kept
    assert "secret" not in done.stdout + ouroloop("status", cwd=presets).stdout


def test_a_thousand_loops_of_one_study_are_planned_quickly() -> None:
    """What is decided between two loops must not grow with the square of their number."""
    config = StudyConfig.model_validate({"synthetic_proportions": [0.5], "seeds": list(range(1_000)), "loop": IDEAL})
    begin = time.perf_counter()
    assert len(config.loops()) == 1_000
    assert time.perf_counter() - begin < 5


@pytest.fixture
def grid() -> Callable[..., list[str]]:
    """What a grid of λ = 0.25, 0.5, 0.75 with two seeds says when its loops kept so much, None for a failed one."""

    def said(*kept: tuple[float | None, float | None]) -> list[str]:
        config = StudyConfig.model_validate({"synthetic_proportions": [0.25, 0.5, 0.75], "seeds": [1, 2], "loop": TINY})
        values = {(p, s): pair[s - 1] for p, pair in zip((0.25, 0.5, 0.75), kept, strict=True) for s in (1, 2)}
        tasks = []
        for loop in config.loops():
            assert loop.cycle.synthetic_proportion is not None
            value = values[loop.cycle.synthetic_proportion, loop.seed]
            task = Task(loop, loop.fingerprint(), "failed" if value is None else "done")
            task.retention = {} if value is None else {3: value}
            tasks.append(task)
        return answer(config, tasks)

    return said


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (((0.9, 0.8), (0.7, 0.6), (0.6, 0.6)), "every λ up to 0.75 keeps at least 50% of D_0's diversity at t = 3"),
        (((0.9, 0.8), (0.9, 0.4), (0.6, 0.6)), "every λ up to 0.25 keeps"),  # the mean would do, one seed does not
        (((0.9, 0.8), (0.9, 0.4), (0.6, 0.6)), "; λ = 0.5 does not: 65.0%"),
        (((0.9, 0.8), (None, None), (0.6, 0.6)), "; λ = 0.5 has not finished with every seed"),
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
        Point(arm, TruthLabel.TRUE_ONLY, 1 - share, share, dict(enumerate(values))) for share, values in kept.items()
    ]
    assert [point.fresh_share for point in front(points)] == [0.0, 0.25, 1.0]
    assert f"{points[0]}" == "20.0% (10.0% to 30.0% by seed; 95% interval 0.0% to 99.9%), 2 seeds"
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


def test_methods_of_which_none_can_run_are_one_line(ouroloop: CommandLine, presets: Path) -> None:
    for method in ({"cycles": ["expanding"]}, {"changes": {"train": {"targets": "soft"}}}):
        tree = {"cycles": ["incremental"], "synthetic_proportions": [0.5], "methods": {"a": method}, "loop": IDEAL_LOOP}
        (presets / "experiments" / "none.yaml").write_text(yaml.safe_dump(tree))
        done = ouroloop("sweep", "none", cwd=presets)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "none of its methods applies to any of its cycles with this learner" in done.stderr


def test_the_time_left_counts_what_is_still_to_be_computed(tiny: LoopConfig) -> None:
    loop = tiny.model_copy(update={"num_generations": 10})

    def task(state: str, reached: int, seconds: float = 0.0, computed: int = 0) -> Task:
        return Task(loop, "", state, reached=reached, seconds=seconds, computed=computed)  # type: ignore[arg-type]

    done = task("done", 10, 100, 10)  # 10 s a generation
    half = task("runs", 5, 50, 5)
    resumed = task("runs", 5, 10, 1)  # four of its five cost nothing this time
    assert seconds_left([done], still_to_come=10) is None  # nobody is at it
    assert seconds_left([half]) == pytest.approx(50)
    assert seconds_left([done, half, resumed], 10) == pytest.approx((5 + 5 + 10) / 2 * 10)
    assert seconds_left([done, half, task("stopped", 0), task("stopped", 0)], 20) == pytest.approx(450)
    early, late = task("runs", 1, 10, 1), task("runs", 9, 90, 9)
    assert seconds_left([early, late]) == pytest.approx(90)  # a loop cannot be shared
