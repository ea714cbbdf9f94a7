"""What is told of loops: a name that anybody can edit is text, and a Ctrl-C leaves nothing that is half taken over."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ouroloop.config import USUAL_TESTBED, LoopConfig
from ouroloop.console import sparkline
from ouroloop.record import stores
from ouroloop.record.provenance import create_loop
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from ouroloop.study.status import newest_loops, read_progress, status, status_table, study_record, study_table
from ouroloop.study.task import Task

KEPT = [1.0, 0.9, 0.5, 0.1]


class Cut(Run):
    """Ctrl-C comes while its history is read."""

    def history(self, key: str) -> list[tuple[int, float]]:
        raise KeyboardInterrupt


@pytest.fixture
def run(root: Path) -> Run:
    run = Store.open().create("incr[/x] [bold]s1", None, {"level": "loop", "study": "study"})
    series = {key: list(enumerate(KEPT)) for key in ("diversity_retention", "diversity_levenshtein")}
    run.log_series(series | {"num_unique": [(t, 9.0) for t in range(4)]})
    return run.store.get(run.id)


def test_a_name_is_text_and_the_curve_begins_at_the_first_model(run: Run) -> None:
    console = Console(file=StringIO(), width=120)
    console.print(study_table("study", [run], USUAL_TESTBED.headline))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "incr[/x] [bold]s1" in shown
    assert [line.split()[-1] for line in shown.splitlines() if "incr" in line] == [sparkline(KEPT[1:])]


def test_half_of_what_was_not_measured_is_not_beyond_the_last_generation(root: Path) -> None:
    flat = Store.open().create("flat", None, {"level": "loop", "study": "study"})
    flat.log_series({"num_unique": [(t, 9.0) for t in range(4)]})
    console = Console(file=StringIO(), width=120)
    console.print(study_table("study", [flat.store.get(flat.id)], USUAL_TESTBED.headline))
    (line,) = (line for line in console.file.getvalue().splitlines() if "flat" in line)  # type: ignore[attr-defined]
    assert ">" not in line


def test_loops_come_in_order_of_their_numbers(root: Path, ideal: LoopConfig) -> None:
    store, config = Store.open(), StudyConfig.model_validate({"loop": ideal, "cycles": ["balanced"]})
    names = ["balanced-T0.8-s1", "balanced-T0.8-s2", "balanced-T0.8-s10", "incremental-0.25-T1-s1"]
    names += ["incremental-0.5-T1-s1", "incremental-1-T1-s1", "incremental-1-T1-soft-s1"]
    for name in sorted(names, key=lambda name: name[::-1]):
        store.create(name, None, {"level": "loop", "study": "study", "fingerprint": name})
    again = store.create(names[0], None, {"level": "loop", "study": "study", "fingerprint": names[0]})
    loops = newest_loops(store, "study", config)
    assert [loop.name for loop in loops] == names
    assert loops[0].id == again.id


def test_a_lone_loop_is_found_wherever_its_store_was_copied_to(root: Path, ideal: LoopConfig) -> None:
    store = Store.open()
    study = store.create("a study", None, {"level": "study"})
    create_loop(store, ideal, "of a study", "a study", study)
    assert status(None) == []
    assert stores.known("lone loop") == []  # which is read without MLflow
    create_loop(store, ideal, "alone", "preset", None).end("KILLED")
    (record,) = status(None)
    assert [(loop["loop"], loop["state"]) for loop in record["loops"]] == [("alone", "stopped")]


def test_a_point_that_was_chosen_again_is_not_still_to_come(ideal: LoopConfig) -> None:
    config = StudyConfig.model_validate(
        {"kind": "pareto", "cycles": ["fresh_mix"], "pareto": {"num_trials": 4}, "loop": ideal}
    )
    loop = config.loop_at(config.cycles[0], 0.8, 0.5, 0)
    tasks = [Task(loop, "", "runs", reached=1, seconds=10.0, computed=1)]
    left = [study_record("study", config, tasks, num_asked)["seconds_left"] for num_asked in (1, 3, 4)]
    assert left == [10.0 * (2 + 9), 10.0 * (2 + 3), 10.0 * 2]


def test_progress_is_taken_over_whole_or_not_at_all(run: Run, ideal: LoopConfig) -> None:
    task = Task(ideal, ideal.fingerprint())
    with pytest.raises(KeyboardInterrupt):
        read_progress(task, Cut(run.store, run.id, run.entity))
    assert (task.reached, task.retention) == (0, {})
    assert read_progress(task, run)
    assert (task.reached, task.retention) == (3, dict(enumerate(KEPT[1:], 1)))


HIDDEN = "\x1b]0;x\x07[bold]\u202e"


def test_a_terminal_is_not_steered_by_what_is_told(root: Path, ideal: LoopConfig) -> None:
    """Names of loops and studies, why one failed, and who works on it, in all that prints them."""
    create_loop(Store.open(), ideal, HIDDEN, f"lone{HIDDEN}", None)
    (lone,) = status(None)
    loop = lone["loops"][0] | {"loop": HIDDEN, "error": HIDDEN, "worker": HIDDEN}
    told = [lone, {"study": HIDDEN, "kind": "grid", "loops": [loop], "seconds_left": None, "error": HIDDEN}]
    run = Store.open().find(level="loop")[0]
    for table in (status_table(told), status_table(told, as_one=True), study_table(HIDDEN, [run], {})):
        console = Console(file=StringIO(), width=300, force_terminal=True, color_system=None)
        console.print(table)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert not set(shown) & set(HIDDEN) - set("]0;x[bold]")
        assert "␛]0;x␇[bold]<U+202E>" in shown
