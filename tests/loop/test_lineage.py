"""Earlier models of a loop: there when a later one learns from them, after a kill too, and gone when none does."""

import shutil
from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.learner import learner_of
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.loop.lineage import Lineage
from ouroloop.presets import load_preset
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from tests.loop.loops import StopAfter, forget, generations, loop, outcome, sampled, watched
from tests.loop.test_loop import stopped_and_resumed

LAST = {"targets": "soft"}
ALL = {"targets": "soft", "num_teachers": None}
WARM = {"start": "previous", "extrapolation": 0.2}

pytestmark = pytest.mark.usefixtures("root")


def folders(run: Run) -> list[int]:
    """The generations whose weights lie beside the logged models."""
    return [
        i
        for i, child in enumerate(generations(run), 1)
        if (Path(child.entity.info.artifact_uri.removeprefix("file://")) / "weights").exists()
    ]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("method", "keep_weights"),
    [
        pytest.param(LAST, "none", id="last", marks=pytest.mark.slow),
        pytest.param(ALL, "all", id="all"),
        pytest.param(WARM, "stages", id="warm", marks=pytest.mark.slow),
    ],
)
def test_stopped_anywhere_and_resumed_is_the_undisturbed_loop(
    tiny: LoopConfig, method: dict[str, object], keep_weights: str
) -> None:
    stopped_and_resumed(tiny.changed(train=method, keep_weights=keep_weights))


@pytest.mark.heavy
@pytest.mark.parametrize(("method", "there"), [(LAST, [2]), (ALL, [1, 2])], ids=["last", "all"])
def test_weights_are_on_record_while_a_later_generation_needs_them(
    tiny: LoopConfig, method: dict[str, object], there: list[int]
) -> None:
    config = tiny.changed(train=method, keep_weights="none")
    with pytest.raises(Interrupted):
        loop(config, observer=StopAfter(3, "train"))
    (run,) = Store.open().find(level="loop")
    assert folders(run) == there
    assert folders(loop(config)) == []
    assert not any(child.model_id for child in generations(run))


@pytest.mark.heavy
def test_weights_are_gone_when_a_loop_ends_that_was_killed_after_its_last_generation(
    tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moment when that is on record and the one when earlier weights are dropped."""
    config, leave = tiny.changed(train=ALL, keep_weights="none"), Lineage.leave

    def killed(lineage: Lineage, number: int) -> None:
        if number == config.num_generations:
            raise Interrupted(9)
        leave(lineage, number)

    with monkeypatch.context() as patch:
        patch.setattr(Lineage, "leave", killed)
        with pytest.raises(Interrupted):
            loop(config)
    (run,) = Store.open().find(level="loop")
    assert folders(run) == [1, 2]
    again, watcher = watched(config)
    assert (again.id, watcher.fitted) == (run.id, [])
    assert folders(again) == []


@pytest.mark.heavy
def test_a_learner_of_no_earlier_models_keeps_no_weights_beside(tiny: LoopConfig) -> None:
    with pytest.raises(Interrupted):
        loop(tiny.changed(keep_weights="none"), observer=StopAfter(3, "train"))
    assert folders(Store.open().find(level="loop")[0]) == []


def test_a_long_loop_keeps_of_its_runs_only_what_may_be_asked_for(tiny: LoopConfig) -> None:
    """Else its memory had a slope: of a run with its metrics, some 3 kB a generation."""
    run = Store.open().create("gen-01", None, {"level": "generation", "key": "of M_1"})
    run.log_series({"correctness": [(1, 0.5)]})
    given = run.store.get(run.id)
    without, learning = (Lineage(learner_of(config), 1, 9) for config in (tiny, tiny.changed(train=ALL)))
    for lineage in (without, learning):
        lineage.enter(1, given)
    assert (without.runs, without.parent_key(2)) == ({}, "")
    assert (learning.runs[1].metrics, learning.parent_key(2)) == ({}, "of M_1")
    assert "mlflow.runName" in given.entity.data.tags
    assert "mlflow.runName" not in learning.runs[1].entity.data.tags


@pytest.mark.heavy
def test_a_lost_model_is_fitted_again_and_is_the_same(tiny: LoopConfig) -> None:
    config = tiny.changed(train=LAST, keep_weights="none")
    undisturbed = loop(config, study="undisturbed")
    forget()
    with pytest.raises(Interrupted):
        loop(config, study="disturbed", observer=StopAfter(3, "train"))
    (run,) = Store.open().find(level="loop", study="disturbed")
    for child in generations(run):
        shutil.rmtree(Path(child.entity.info.artifact_uri.removeprefix("file://")) / "weights", ignore_errors=True)
    again = loop(config, study="disturbed")
    assert outcome(again) == outcome(undisturbed)
    assert sampled(again) == sampled(undisturbed)


@pytest.mark.heavy
@pytest.mark.parametrize("method", [pytest.param(LAST, id="last", marks=pytest.mark.slow), pytest.param(ALL, id="all")])
def test_a_longer_loop_goes_on_from_a_copied_one(tiny: LoopConfig, method: dict[str, object]) -> None:
    config = tiny.changed(train=method)
    loop(config.changed(num_generations=2), study="short")
    longer, watcher = watched(config, study="longer")
    assert watcher.fitted == [3]
    whole = loop(config, study="whole", new=True)
    assert outcome(longer) == outcome(whole)
    assert sampled(longer) == sampled(whole)


@pytest.mark.heavy
def test_models_of_two_histories_share_no_generation(tiny: LoopConfig) -> None:
    """The same training set and other models before: the key of a generation covers those."""
    from ouroloop.loop import cache
    from ouroloop.loop.loop import draw_original

    config = tiny.changed(train=LAST)
    keys = {cache.key(config, "cpu", draw_original(config), 2, parent=parent) for parent in ("", "one", "another")}
    assert len(keys) == 3
    first, second = generations(loop(config.changed(num_generations=2)))
    training_set = second.read_dataset("training_set.tsv.gz")
    assert second.tag("key") == cache.key(config, "cpu", training_set, 2, parent=first.tag("key") or "")


@pytest.mark.heavy
def test_soft_targets_change_what_is_learnt(tiny: LoopConfig) -> None:
    soft, plain = (loop(tiny.changed(train={"targets": kind})) for kind in ("soft", "tokens"))
    assert sampled(soft)[0] == sampled(plain)[0]  # M_1 has nobody to learn from
    assert sampled(soft)[1] != sampled(plain)[1]


OWN_M1 = {"drawn ancestors twice as long", "ensemble of 4", "T-matching"}
"""Methods of the board that change how M_1 is trained."""


def test_m_1_is_the_baselines_for_every_method_that_trains_and_samples_it_alike() -> None:
    """Its key is. Steps of curation and another temperature are in the key too: they change what a generation gives."""
    from ouroloop.loop import cache
    from ouroloop.loop.loop import draw_original

    study = load_preset("leaderboard", ["loop.data.num_examples=4"], StudyConfig)
    cell = study.plain_loops[0]
    original = draw_original(cell)
    loops = {name: loop for name in study.methods if (loop := study.applied(name, cell))}
    alike = {name for name, loop in loops.items() if (loop.curation, loop.sampling) == (cell.curation, cell.sampling)}
    keys = {name: cache.key(loop, "cpu", original, 1) for name, loop in loops.items()}
    assert {name for name in alike if keys[name] == keys["baseline"]} == alike - OWN_M1
    assert {"soft targets", "drawn ancestors", "warm start", "Neon", "accumulate-subsample"} <= alike - OWN_M1
    assert len({cache.key(loop, "cpu", original, 2, parent="M_1") for loop in loops.values()}) >= len(loops) - 1


@pytest.mark.heavy
@pytest.mark.parametrize("method", [ALL, WARM | {"num_tuning_steps": 3}], ids=["soft", "warm"])
def test_m_1_is_trained_once(tiny: LoopConfig, method: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    short = tiny.changed(num_generations=2, keep_weights="all")
    loop(short, study="baseline")
    fits, fit_here = [], NetworkLearner.fit_here
    monkeypatch.setattr(NetworkLearner, "fit_here", lambda *given: fits.append(given[1]) or fit_here(*given))
    copied, watcher = watched(short.changed(train=method), study="method")
    assert watcher.fitted == [2]
    assert len(fits) == 1, "nor is it fitted again to be learnt from"
    alone = loop(short.changed(train=method), study="alone", new=True)
    assert outcome(copied) == outcome(alone)
    assert sampled(copied) == sampled(alone)
