"""The loop on a real store: what could go wrong is that a resumed loop is not the loop it was."""

import gc
import json
import time
import weakref
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.loop.loop import keeps_weights
from ouroloop.record.liveness import Interrupted
from ouroloop.record.track import Store
from tests.conftest import IDEAL
from tests.loop.loops import StopAfter, forget, generations, loop, note, outcome, sampled, watched


@pytest.mark.usefixtures("root")
def test_a_loop_leaves_the_whole_record(tiny: LoopConfig) -> None:
    run = loop(tiny.changed(keep_weights="all"))
    again = run.store.get(run.id)
    assert again.status == "FINISHED"
    assert {again.tag(key) for key in ("level", "study", "cycle")} == {"loop", "test", "full_synthetic"}
    assert again.entity.data.params["train.num_steps"] == "12"
    steps = {key: [step for step, _ in history] for key, history in outcome(run).items()}
    assert steps["diversity_levenshtein"] == steps["correctness"] == [0, 1, 2, 3]
    assert steps["validation_nats"] == steps["synthetic_share"] == steps["share_in_training_set"] == [1, 2, 3]
    assert steps["entropy_nats"] == steps["coverage"] == [0, 1, 2, 3]
    assert steps["grammar_entropy_nats"] == [0]
    assert steps["kl_forward_t1_nats"] == steps["coverage_tail_10"][1:] == [1, 2, 3]
    assert dict(run.history("synthetic_share")) == {1: 0.0, 2: 1.0, 3: 1.0}
    for number, child in enumerate(generations(run), 1):
        assert child.status == "FINISHED"
        assert child.entity.info.run_name == f"gen-{number:02d}"
        assert child.tag("stage") in {"healthy", "onset", "decline", "collapsed"}
        assert child.metrics["correctness"] == dict(run.history("correctness"))[number]
        assert [step for step, _ in child.history("train_loss_nats_per_token")] == list(range(1, 13))
        assert [step for step, _ in child.history("validation_loss_nats")] == [4, 8, 12]
        names = {item.path for item in run.store.client.list_artifacts(child.id)}
        assert names == {"samples.tsv.gz", "samples.json", "depths.json", "training_set.json", "training_set.tsv.gz"}
        assert json.loads(child.read_text("samples.json"))["columns"][0] == "expression"
        (dataset,) = child.entity.inputs.dataset_inputs
        assert dataset.dataset.name == f"D_{number - 1:02d}"
        origin = "original" if number == 1 else f"sampled-{number - 1:02d}"
        assert f'"mixture": {{"{origin}": 40}}' in dataset.dataset.profile
        (model,) = child.entity.outputs.model_outputs
        logged = run.store.client.get_logged_model(model.model_id)
        assert logged.status == "READY"
        folder = Path(logged.artifact_location.removeprefix("file://"))
        assert (folder / "model.safetensors").is_file()


@pytest.mark.usefixtures("root")
def test_one_generation_is_one(ideal: LoopConfig) -> None:
    run = loop(ideal.changed(num_generations=1))
    assert note(run.store.get(run.id)).startswith("**After 1 generation ")


class Ring:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("root")
def test_what_is_garbage_when_a_loop_begins_does_not_stay_for_good() -> None:
    """It was frozen with the libraries' objects, 36 kB a loop: SQLAlchemy and MLflow leave cycles behind."""
    gc.disable()  # the loop's own collections are what is asked for
    try:
        garbage = weakref.ref(Ring())
        loop(LoopConfig.model_validate(IDEAL))
    finally:
        gc.enable()
    assert garbage() is None


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_the_same_seed_twice_gives_the_same_loop(tiny: LoopConfig) -> None:
    first = loop(tiny)
    forget()
    second = loop(tiny, new=True)
    other = loop(tiny.changed(seed=6))
    assert first.id != second.id
    assert outcome(first) == outcome(second) != outcome(other)
    assert sampled(first) == sampled(second)


CYCLES = [
    CycleConfig(kind=DataCycle.BALANCED),
    CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0.5),
    CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.5),
    CycleConfig(kind=DataCycle.FULL_SYNTHETIC),
]


def stopped_and_resumed(config: LoopConfig) -> None:
    undisturbed = loop(config, study="undisturbed")
    forget()
    for generation, phase in [(1, "train"), (1, "measure"), (2, "record"), (3, "train"), (3, "sample")]:
        with pytest.raises(Interrupted):
            loop(config, study="disturbed", observer=StopAfter(generation, phase))
        (run,) = Store.open().find(level="loop", study="disturbed")
        assert run.status == "KILLED"
        assert generations(run)[generation - 1].status == "KILLED"
    run = loop(config, study="disturbed")
    assert run.store.get(run.id).status == "FINISHED"
    assert len(generations(run)) == 3
    assert outcome(run) == outcome(undisturbed)
    assert sampled(run) == sampled(undisturbed)


@pytest.mark.usefixtures("root")
def test_the_duration_of_a_generation_that_was_cut_off_is_the_works(ideal: LoopConfig) -> None:
    """MLflow's is from when a run began, however long nothing worked on it."""
    with pytest.raises(Interrupted):
        loop(ideal, observer=StopAfter(2, "train"))
    stopped = int(time.time() * 1_000)
    first, second, *_ = generations(loop(ideal))
    assert first.entity.info.start_time < stopped <= second.entity.info.start_time


@pytest.mark.usefixtures("root")
def test_a_registered_model_outlives_the_samples_of_its_generation(tiny: LoopConfig) -> None:
    """And an attempt to compute these anew that was cut off, which leaves the run killed, with a model."""
    run = loop(tiny.changed(keep_weights="all"))
    lost = generations(run)[1]
    place = run.store.client.get_logged_model(str(lost.model_id)).artifact_location
    run.store.client.delete_run(generations(run)[2].id)  # or the loop would be known to be complete
    Path(url2pathname(urlsplit(lost.entity.info.artifact_uri).path), "samples.tsv.gz").unlink()
    with pytest.raises(Interrupted):
        loop(tiny.changed(keep_weights="all"), observer=StopAfter(2, "train"))
    again = loop(tiny.changed(keep_weights="all"))
    assert generations(again)[1].id == lost.id
    assert generations(again)[1].read_dataset("samples.tsv.gz")
    assert Path(url2pathname(urlsplit(place).path), "model.safetensors").is_file()
    assert all(len(points) == 1 for key, points in outcome(generations(again)[1]).items() if "nats" not in key)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("cycle", [CYCLES[0], CYCLES[2]], ids=lambda cycle: cycle.kind.value)
def test_stopped_anywhere_and_resumed_is_the_undisturbed_loop(ideal: LoopConfig, cycle: CycleConfig) -> None:
    stopped_and_resumed(ideal.changed(cycle=cycle))


@pytest.mark.slow
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("cycle", [CYCLES[1], CYCLES[3]], ids=lambda cycle: cycle.kind.value)
def test_so_it_is_where_less_is_carried_along(ideal: LoopConfig, cycle: CycleConfig) -> None:
    """By default the network below is asked."""
    stopped_and_resumed(ideal.changed(cycle=cycle))


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_network_is_trained_after_an_interruption_as_it_would_have_been(tiny: LoopConfig) -> None:
    stopped_and_resumed(tiny.changed(cycle=CYCLES[1]))


@pytest.mark.usefixtures("root")
def test_the_ideal_learner_trains_nothing_and_is_measured_exactly(ideal: LoopConfig) -> None:
    run = loop(ideal.changed(num_generations=5))
    keys = outcome(run).keys()
    assert {"coverage", "coverage_depth_1_3", "entropy_nats", "kl_reverse_nats"} <= keys
    assert not keys & {"validation_nats", "kl_forward_t1_nats", "coverage_stderr", "entropy_nats_stderr"}
    assert "train_seconds" not in run.store.get(run.id).metrics
    assert [t for t, _ in run.history("kl_forward_nats")] == [0]  # of what D_0 comes from; M_t leaves most of P out
    assert dict(run.history("correctness"))[5] == 1
    assert not any(child.entity.outputs.model_outputs for child in generations(run))


@pytest.mark.usefixtures("root")
def test_a_finished_loop_is_returned_and_not_run_again(ideal: LoopConfig) -> None:
    first = loop(ideal)
    again, watcher = watched(ideal)
    assert again.id == first.id
    assert watcher.is_complete
    assert (watcher.started, watcher.sources) == ([], ["on record"] * 3)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_damaged_artifact_costs_just_its_generation(ideal: LoopConfig, damage: str) -> None:
    undisturbed = loop(ideal, study="undisturbed")
    forget()
    with pytest.raises(Interrupted):
        loop(ideal, observer=StopAfter(3, "train"))
    (run,) = Store.open().find(level="loop", study="test")
    second = generations(run)[1]
    path = Path(second.entity.info.artifact_uri.removeprefix("file://")) / "samples.tsv.gz"
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])

    run, watcher = watched(ideal)
    assert watcher.fitted == [2, 3]
    assert watcher.sources == ["on record", "", ""]
    assert outcome(run) == outcome(undisturbed)
    assert sampled(run) == sampled(undisturbed)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_full_synthetic_is_incremental_at_1(ideal: LoopConfig) -> None:
    incremental = CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1)
    full = loop(ideal)
    forget()
    mixed, watcher = watched(ideal.changed(cycle=incremental))
    assert watcher.fitted == [1, 2, 3]
    assert full.id != mixed.id
    assert outcome(full) == outcome(mixed)
    assert sampled(full) == sampled(mixed)


@pytest.mark.usefixtures("root")
def test_an_error_is_failed_and_not_a_result(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise FloatingPointError("diverged")

    monkeypatch.setattr("ouroloop.learner.network.sampling.sample", explode)
    with pytest.raises(FloatingPointError):
        loop(tiny)
    (run,) = Store.open().find(level="loop", study="test")
    (child,) = generations(run)
    assert run.status == child.status == "FAILED"
    assert "correctness" not in child.metrics
    assert dict(run.history("correctness")).keys() == {0}


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("policy", "kept"), [("all", [1, 2, 3]), ("last", [3]), ("none", [])])
def test_weights_are_kept_by_policy(tiny: LoopConfig, policy: str, kept: list[int]) -> None:
    run = loop(tiny.changed(keep_weights=policy))
    assert [i for i, child in enumerate(generations(run), 1) if child.entity.outputs.model_outputs] == kept


def test_stages_keeps_the_first_of_each_stage_and_the_last(tiny: LoopConfig) -> None:
    config = tiny.changed(keep_weights="stages", num_generations=6)
    stages = ["healthy", "onset", "onset", "healthy", "decline", "decline"]
    kept = [t for t, stage in enumerate(stages, 1) if keeps_weights(config, t, stage, stages[: t - 1])]
    assert kept == [1, 2, 5, 6]


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_finished_loop_that_lost_a_generation_computes_it_again(ideal: LoopConfig) -> None:
    whole = outcome(loop(ideal))
    (run,) = Store.open().find(level="loop")
    run.store.client.delete_run(generations(run)[1].id)
    again, watcher = watched(ideal)
    assert again.id == run.id
    assert watcher.fitted == [2]
    assert [child.tag("generation") for child in generations(again)] == ["1", "2", "3"]
    assert outcome(again) == whole
