"""What is told of loops: a name that anybody can edit is text, and a Ctrl-C leaves nothing that is half taken over."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ouroloop.config import LoopConfig
from ouroloop.console import sparkline
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.study.cell import Cell
from ouroloop.study.status import read_progress, study_table

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
    console.print(study_table("study", [run]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "incr[/x] [bold]s1" in shown
    assert [line.split()[-1] for line in shown.splitlines() if "incr" in line] == [sparkline(KEPT[1:])]


def test_progress_is_taken_over_whole_or_not_at_all(run: Run, ideal: LoopConfig) -> None:
    cell = Cell(ideal, ideal.fingerprint())
    with pytest.raises(KeyboardInterrupt):
        read_progress(cell, Cut(run.store, run.id, run.entity))
    assert (cell.reached, cell.retention) == (0, {})
    assert read_progress(cell, run)
    assert (cell.reached, cell.retention) == (3, dict(enumerate(KEPT[1:], 1)))
