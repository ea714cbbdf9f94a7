"""The search on a real Optuna store: what could go wrong is that workers, pruning or a stop change its answer.

Training is replaced by a curve that is known, so that a whole search takes a second; `test_cli` runs one with models.
"""

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ouroloop.study.queue import Queue

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.science.seeding import stream
from ouroloop.study import search
from ouroloop.study.config import StudyConfig
from ouroloop.study.estimate import most_loops
from ouroloop.study.search import CEILING, Bracket, Search
from tests.conftest import TINY

LATTICE = {"lowest": 0.0625, "highest": 0.9375, "precision": 0.0625, "target_retention": 0.6}
INCREMENTAL = (DataCycle.INCREMENTAL, 0.8)


def config_of(**changes: Any) -> StudyConfig:
    tree = {"kind": "search", "seeds": [1, 2, 3], "search": LATTICE, "loop": TINY | {"num_generations": 6}}
    return StudyConfig.model_validate(tree | changes)


def retention(loop: LoopConfig, generation: int) -> float:
    """Falls with λ and with the generations; each seed has its own level, and every generation its noise."""
    proportion = loop.cycle.synthetic_proportion
    assert proportion is not None
    noise = stream(loop.seed, "noise", generation).normal(0, 0.03) + stream(loop.seed, "level").normal(0, 0.05)
    return float(min(1.9, max(0.0, math.exp(-proportion * generation / 5) + noise)))


def study(config: StudyConfig, workers: int, order: int = 0) -> tuple[Queue, int]:
    """A whole search by so many workers that take turns at random; its queue, and the generations it took."""
    queue = Queue.create("study", search.directions(config))
    queue.study.set_user_attr("config", config.model_dump(mode="json"))
    turns = stream(order, "turns")
    running: dict[int, tuple[optuna.Trial, LoopConfig, int]] = {}
    generations = 0
    while True:
        for worker in range(workers):
            if worker not in running and (trial := search.ask(queue, config)) is not None:
                running[worker] = (trial, LoopConfig.model_validate(trial.user_attrs["loop"]), 0)
        if not running:
            return queue, generations
        worker = int(turns.choice(list(running)))
        trial, loop, reached = running.pop(worker)
        generations += 1
        value = retention(loop, reached + 1)
        queue.report(trial, reached + 1, value)
        queue.note(trial, **{CEILING: 2.0})
        if reached + 1 == loop.num_generations:
            queue.finish(trial, TrialState.COMPLETE, value)
        elif trial.should_prune():
            queue.finish(trial, TrialState.PRUNED)
        else:
            running[worker] = (trial, loop, reached + 1)


def truth(config: StudyConfig) -> Bracket:
    points = config.search.lattice()
    last = config.loop.num_generations
    means = [
        sum(retention(config.cell(*INCREMENTAL, point, seed), last) for seed in config.seeds) / len(config.seeds)
        for point in points
    ]
    held = [point for point, mean in zip(points, means, strict=True) if mean >= config.search.target_retention]
    return Bracket(max(held), min(set(points) - set(held)))


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("workers", [1, 5])
@pytest.mark.parametrize(("target", "max_rise"), [(0.6, None), (0.85, None), (0.85, 0.25)])
def test_every_way_to_search_finds_the_critical_proportion(workers: int, target: float, max_rise: float | None) -> None:
    config = config_of(search=LATTICE | {"target_retention": target, "max_rise": max_rise})
    queue, generations = study(config, workers)
    assert Search(config, queue.trials()).bracket(INCREMENTAL) == truth(config)
    assert {trial.state for trial in queue.trials()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["cell"] for trial in queue.trials()}) == len(queue.trials())  # none twice
    if workers == 1:
        assert len(queue.trials()) <= most_loops(config) == 4 * 3
        assert generations < 4 * 3 * 6 or max_rise is None
    else:
        assert any(trial.state is TrialState.PRUNED for trial in queue.trials())  # what was begun ahead in vain


@pytest.mark.usefixtures("root")
def test_workers_never_starve_and_never_take_the_same() -> None:
    config = config_of()
    queue = Queue.create("study")
    taken = [search.ask(queue, config) for _ in range(12)]
    cells = [(trial.params["synthetic_proportion"], trial.params["seed"]) for trial in taken if trial is not None]
    assert cells[:3] == [(0.5, 1), (0.5, 2), (0.5, 3)]
    assert {point for point, _ in cells[3:9]} == {0.25, 0.75}
    assert len(set(cells)) == 12


@pytest.mark.usefixtures("root")
def test_more_seeds_take_up_what_was_pruned() -> None:
    rise = LATTICE | {"max_rise": 0.3}
    study(config_of(search=rise, seeds=[1, 2]), workers=2)
    more = config_of(search=rise, seeds=[1, 2, 4, 5])
    queue, _ = study(more, workers=2)
    assert Search(more, queue.trials()).bracket(INCREMENTAL) == truth(more)


@pytest.mark.usefixtures("root")
def test_a_failed_loop_blocks_its_path_and_not_the_other_arm() -> None:
    config = config_of(cycles=["incremental", "fresh_mix"], seeds=[1])
    queue = Queue.create("study")
    trial = search.ask(queue, config)
    assert trial is not None
    queue.finish(trial, TrialState.FAIL)
    asked = [search.ask(queue, config) for _ in range(3)]
    assert {trial.params["cycle"] for trial in asked if trial is not None} == {"fresh_mix"}
    assert [loop.cycle.kind for loop in search.loops_to_queue(queue, config)] == [DataCycle.INCREMENTAL]


@pytest.mark.usefixtures("root")
def test_who_dies_between_asking_and_choosing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouroloop.study.queue._BEAT_SECONDS", 0)
    config = config_of()
    queue = Queue.create("study")
    search.direct(queue.study, config)
    queue.study.ask()  # and is gone
    assert queue.trials() == []
    queue.release_dead()
    assert [trial.state for trial in queue.study.get_trials()] == [TrialState.FAIL]
    assert search.ask(queue, config) is not None


@pytest.mark.usefixtures("root")
def test_a_point_chosen_again_is_a_loop_that_nobody_runs() -> None:
    only = {"num_trials": 9, "lowest": 0.25, "highest": 0.75, "precision": 1.0}
    config = config_of(kind="pareto", cycles=["fresh_mix"], seeds=[1, 2], pareto=only, search={})
    queue = Queue.create("study", search.directions(config))

    def ask() -> tuple[optuna.Trial, int]:
        trial = search.ask(queue, config)
        assert trial is not None
        return trial, LoopConfig.model_validate(trial.user_attrs["loop"]).seed

    (_, first), (second_trial, second) = ask(), ask()
    assert [first, second] == [1, 2]
    queue.finish(second_trial, TrialState.COMPLETE, 0.5, 0.75)
    assert ask()[1] == 2  # the loop with seed 1 runs: to wait for it would be idle


@pytest.mark.usefixtures("root")
def test_a_pareto_study_takes_its_number_of_trials_and_uses_every_seed() -> None:
    pareto = {"num_trials": 14, "precision": 0.5}
    config = config_of(kind="pareto", cycles=["fresh_mix", "expanding"], pareto=pareto, search={})
    queue = Queue.create("study", search.directions(config))
    while (trial := search.ask(queue, config)) is not None:
        loop = LoopConfig.model_validate(trial.user_attrs["loop"])
        queue.finish(trial, TrialState.COMPLETE, retention(loop, 6), 1 - loop.cycle.synthetic_proportion)
    assert len(queue.trials()) == 14
    cells = {(t.params["cycle"], t.params["synthetic_proportion"]) for t in queue.trials()}
    assert {kind for kind, _ in cells} == {"fresh_mix", "expanding"}
    loops = [LoopConfig.model_validate(trial.user_attrs["loop"]) for trial in queue.trials()]
    assert {loop.seed for loop in loops} == {1, 2, 3}  # 6 points for 14 trials: chosen again, another seed
