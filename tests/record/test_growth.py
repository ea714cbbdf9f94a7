"""What a store costs as it grows, counted in questions to MLflow: a loaded machine has no seconds that say anything.

Fault 28: reports, sweeps and the database grew with loops x generations x metrics.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from rich.console import Console

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.record.history import Written
from ouroloop.record.liveness import Steady
from ouroloop.record.track import Store
from ouroloop.report.folder import write_report
from ouroloop.report.results import read_results
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study
from tests.report.test_summary import loop, results


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of MLflow's calls was made."""
    counts: Counter[str] = Counter()
    inner: Callable[[Steady, str], Any] = Steady.__getattr__

    def counted(self: Steady, name: str) -> Any:
        counts[name] += 1
        return inner(self, name)

    monkeypatch.setattr(Steady, "__getattr__", counted)
    return counts


def study(ideal: LoopConfig, seeds: int, generations: int) -> StudyConfig:
    loop = ideal.changed(num_generations=generations).model_dump(mode="json", exclude={"seed"})
    return StudyConfig.model_validate({"synthetic_proportions": [1.0], "seeds": list(range(seeds)), "loop": loop})


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_generation_is_recorded_in_few_writes(ideal: LoopConfig, asked: Counter[str]) -> None:
    store = Store.open()
    made = []
    for name, generations in (("warm", 1), ("short", 2), ("long", 7)):
        asked.clear()
        run_loop(ideal.changed(num_generations=generations, seed=generations), store, name=name, study=name, new=True)
        made.append(Counter(asked))
    five_more = made[2] - made[1]
    assert five_more == {"create_run": 5, "log_inputs": 5, "log_batch": 10, "set_terminated": 5}


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_nothing_is_asked_for_each_loop_or_generation(ideal: LoopConfig, asked: Counter[str]) -> None:
    """By a report, and by a sweep that finds nothing missing, which writes no results anew either."""
    questions = []
    for name, seeds, generations in (("small", 1, 2), ("large", 3, 4)):
        config = study(ideal, seeds, generations)
        run_study(config, name, Console(file=StringIO()), 1)
        asked.clear()
        results = read_results(Store.open(), name)
        assert [loop.reached for loop in results.loops] == [generations] * seeds
        assert all(len(loop.written) == generations + 1 for loop in results.loops)
        report = Counter(asked)
        answer = Path(results.study.entity.info.artifact_uri.removeprefix("file://")) / "answer.json"  # type: ignore[union-attr]
        before = answer.stat().st_mtime_ns
        asked.clear()
        screen = StringIO()
        run_study(config, name, Console(file=screen), 1)
        assert answer.stat().st_mtime_ns == before
        assert f"-s{seeds - 1}" in screen.getvalue()  # the table is shown all the same
        questions.append((report, Counter(asked)))
    assert questions[0] == questions[1]
    assert questions[0][0].total() <= 3
    assert questions[0][1].total() <= 12


@pytest.mark.heavy
def test_a_page_of_200_loops_of_50_generations(tmp_path: Path) -> None:
    """Its size, and the processor's seconds for what of a report grows beside questions: 15 for all of it."""
    texts = [
        [(9, 0.1, "True", 3, f"{(100 * k + t) ** 9:x}{rank}") for rank in range(10)]
        for k in range(200)
        for t in range(51)
    ]
    kept = [0.98**t for t in range(51)]
    loops = [loop(f"λ = {k // 3 / 70:.3f}", k, kept) for k in range(200)]
    loops = [
        replace(one, written={t: Written(texts[51 * k + t], {"1": 5, "2": 4}) for t in range(51)})
        for k, one in enumerate(loops)
    ]
    begun = process_time()
    path = write_report(results(*loops), tmp_path)
    assert process_time() - begun < 15
    assert path.stat().st_size < 2_000_000
