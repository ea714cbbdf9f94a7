"""A process that was taken for dead, and is not, must not write into a loop that another one has taken up."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.loop import attempt
from ouroloop.loop.attempt import run_alone, run_attempt
from ouroloop.loop.observer import Observer
from ouroloop.record import provenance, stores
from ouroloop.record.liveness import Pruned, Steady, Superseded
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from tests.conftest import IDEAL
from tests.loop.loops import forget, generations, outcome, sampled

pytestmark = pytest.mark.usefixtures("root")
CONFIG = LoopConfig.model_validate(IDEAL | {"num_generations": 4})


class At(Observer):
    """Does something before a generation is computed, or before it is written."""

    def __init__(self, phase: str, do: Callable[[], object], generation: int = 2) -> None:
        self._when, self._do, self._generation = (generation, phase), do, 0

    def generation_started(self, generation: int) -> None:
        self._generation = generation

    def phase_started(self, phase: str) -> None:
        if (self._generation, phase) == self._when:
            self._do()


def the_loop() -> Run:
    (run,) = Store.open().find(level="loop")
    return run


def interrupt() -> None:
    raise KeyboardInterrupt


def run(observer: Observer) -> Run:
    return run_attempt(CONFIG, Store.open(), name="loop", study="study", observer=observer)[0]


@pytest.mark.heavy
def test_who_is_superseded_writes_no_generation_and_closes_no_run() -> None:
    with pytest.raises(Superseded):
        run(At("sample", lambda: the_loop().log_tags(attempt="another's")))
    loop = the_loop()
    assert loop.status == "RUNNING"  # it is the other's
    assert loop.reached == 1
    (second,) = loop.store.find(level="generation", parent=loop.id, generation="2")
    assert second.status == "RUNNING"
    assert "correctness" not in second.metrics


@pytest.mark.slow
def test_two_attempts_at_once_compute_each_generation_once(tmp_path: Path) -> None:
    """The first is in the middle of generation 2 when a second one, of another machine, runs the whole loop: one in the
    same root would wait for the generation that the first one holds."""
    code = (
        "import json, sys\nfrom ouroloop.config import LoopConfig\nfrom ouroloop.loop.attempt import run_attempt\n"
        "from ouroloop.record.track import Store\nconfig = LoopConfig.model_validate(json.loads(sys.argv[1]))\n"
        "run_attempt(config, Store.open(), name='loop', study='study')"
    )
    command = [sys.executable, "-c", code, json.dumps(CONFIG.model_dump(mode="json"))]
    elsewhere = {"OUROLOOP_ROOT": str(tmp_path / "elsewhere"), "MLFLOW_TRACKING_URI": stores.tracking_uri()}
    with pytest.raises(Superseded):
        run(At("sample", lambda: subprocess.run(command, check=True, env=os.environ | elsewhere, timeout=300)))
    loop = the_loop()
    assert loop.status == "FINISHED"
    assert [step for step, _ in loop.history("correctness")] == [0, 1, 2, 3, 4]
    assert len(loop.store.find(level="generation", parent=loop.id)) == 4


@pytest.mark.heavy
def test_a_lone_loop_that_another_root_takes_up_ends_in_one_line() -> None:
    with pytest.raises(ConfigError, match="another process has taken up this loop of preset"):
        run_alone(CONFIG, Store.open(), name="loop", preset="preset",
                  observer=At("sample", lambda: the_loop().log_tags(attempt="another's")))  # fmt: skip


@pytest.mark.heavy
def test_a_loop_that_nobody_wants_ends_before_its_next_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "_FRESH_SECONDS", 0.0)
    with pytest.raises(Pruned):
        run(At("sample", lambda: the_loop().log_tags(wanted="no")))
    loop = the_loop()
    assert (loop.status, loop.tag("pruned"), loop.reached) == ("KILLED", "yes", 2)
    with pytest.raises(KeyboardInterrupt):
        run(At("train", interrupt, generation=3))
    assert not the_loop().is_pruned  # it was not the search that ended it this time
    assert run(Observer()).id == loop.id  # wanted again
    assert [step for step, _ in the_loop().history("correctness")] == [0, 1, 2, 3, 4]


@pytest.mark.heavy
def test_a_loop_goes_on_where_a_setting_differs_that_makes_no_other_loop_of_it() -> None:
    """Without curation, nothing is drawn for it; MLflow takes a parameter once."""
    with pytest.raises(KeyboardInterrupt):
        run(At("sample", interrupt))
    other = CONFIG.changed(curation={"max_drawn": 4.0})
    assert other.fingerprint() == CONFIG.fingerprint()
    found, _ = run_attempt(other, Store.open(), name="loop", study="study")
    assert found.id == the_loop().id
    assert (the_loop().status, the_loop().entity.data.params["curation.max_drawn"]) == ("FINISHED", "8.0")


@pytest.mark.heavy
def test_an_attempt_knows_what_each_generation_kept_those_of_earlier_attempts_too() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(At("sample", interrupt))
    for _ in ("goes on", "is on record"):
        found, retention = run_attempt(CONFIG, Store.open(), name="loop", study="study")
        assert retention == {t: kept for t, kept in found.history("diversity_retention") if t > 0}
        assert retention.keys() == {1, 2, 3, 4}


@pytest.mark.heavy
def test_generations_of_another_kind_of_processor_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(At("sample", interrupt))
    here = the_loop().tag("processor")
    for module in (attempt, provenance):
        monkeypatch.setattr(module, "processor", lambda device: f"{device} of another kind")
    with pytest.raises(KeyboardInterrupt):
        run(At("sample", interrupt))
    run(Observer())
    assert the_loop().tag("processor") == here, "and after a second interruption it is known where it began"
    generations = Store.open().find(level="generation")
    marks = {g.tag("generation"): (g.tag("processor"), g.tag("moved_from")) for g in generations}
    moved = ("cpu of another kind", here)
    assert marks == {"1": (None, None), "2": moved, "3": moved, "4": moved}


class Dead(BaseException):
    """A process that is killed does nothing any more, not even tidy up."""


@pytest.mark.heavy
@pytest.mark.parametrize("is_made", [False, True], ids=["before", "after"])
def test_killed_at_any_write_of_a_generation_a_loop_goes_on_as_if_nothing_had_been(
    monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    """Before the write or right after it; what a generation is comes in several."""
    config = CONFIG.changed(num_generations=2)
    whole = run_alone(config, Store.open(), name="loop", preset="whole")
    expected = outcome(whole), sampled(whole)
    ask, writes, left = Steady.__getattr__, ("log_inputs", "log_batch", "set_tag", "set_terminated"), [inf]

    def dying(client: Steady, name: str) -> Any:
        found = ask(client, name)

        def call(*given: Any, **named: Any) -> Any:
            if left[0] < 0:
                raise Dead
            left[0] -= name in writes
            if left[0] >= 0:
                return found(*given, **named)
            if is_made:
                found(*given, **named)
            raise Dead

        return call if callable(found) else found

    monkeypatch.setattr(Steady, "__getattr__", dying)
    for number in range(6):
        forget()
        killed_at = At("sample", lambda number=number: left.__setitem__(0, number))  # type: ignore[misc]
        with pytest.raises(Dead):
            run_alone(config, Store.open(), name="loop", preset=f"killed-{number}", observer=killed_at)
        left[0] = inf
        again = run_alone(config, Store.open(), name="loop", preset=f"killed-{number}")
        assert (outcome(again), sampled(again)) == expected, number
        assert [one.status for one in generations(again)] == ["FINISHED"] * 2
        assert not Store.open().running()
