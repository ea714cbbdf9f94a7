"""The loop on a real store: what could go wrong is that a resumed loop is not the loop it was."""

import shutil
from pathlib import Path

import pytest
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput

from ouroloop.config import CycleConfig, DataCycle, EmpiricalConfig, LoopConfig
from ouroloop.loop.generation import Observer
from ouroloop.loop.loop import keeps_weights, run_loop
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted
from ouroloop.record.provenance import code
from ouroloop.record.track import Run, Store

TIMES = ("seconds", "tokens_per_second")


class StopAfter(Observer):
    """Interrupts the loop in a phase of a generation, as a signal would."""

    def __init__(self, generation: int, phase: str) -> None:
        self.wanted, self.generation = (generation, phase), 0

    def generation_started(self, generation: int) -> None:
        self.generation = generation

    def phase_started(self, phase: str) -> None:
        if (self.generation, phase) == self.wanted:
            raise Interrupted(15)


def forget() -> None:
    """The next loop computes all of its generations itself."""
    shutil.rmtree(stores.runs_folder() / "shared", ignore_errors=True)
    store = Store.open()
    for run in store.find(level="loop"):
        store.client.delete_run(run.id)


def loop(config: LoopConfig, study: str = "test", observer: Observer | None = None, new: bool = False) -> Run:
    return run_loop(config, Store.open(), name="loop", study=study, observer=observer, new=new)


def outcome(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every metric history of a loop run but the times."""
    metrics = run.store.get(run.id).metrics
    return {key: run.history(key) for key in metrics if not key.endswith(TIMES)}


def generations(run: Run) -> list[Run]:
    return sorted(run.store.find(level="generation", parent=run.id), key=lambda g: int(g.tag("generation") or 0))


def sampled(run: Run) -> list[bytes]:
    return [generation.read_dataset("samples.tsv.gz").to_bytes() for generation in generations(run)]


@pytest.mark.usefixtures("root")
def test_a_loop_leaves_the_whole_record(tiny: LoopConfig) -> None:
    run = loop(tiny.model_copy(update={"keep_weights": "all"}))
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
        assert names == {"samples.tsv.gz", "samples.json", "depths.json", "depths.png", "training_set.tsv.gz"}
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
def test_the_same_seed_twice_gives_the_same_loop(tiny: LoopConfig) -> None:
    first = loop(tiny)
    forget()
    second = loop(tiny, new=True)
    other = loop(tiny.model_copy(update={"seed": 6}))
    assert first.id != second.id
    assert outcome(first) == outcome(second) != outcome(other)
    assert sampled(first) == sampled(second)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "cycle",
    [
        CycleConfig(kind=DataCycle.BALANCED),
        CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0.5),
        CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.5),
    ],
    ids=lambda cycle: cycle.kind.value,
)
def test_stopped_anywhere_and_resumed_is_the_undisturbed_loop(tiny: LoopConfig, cycle: CycleConfig) -> None:
    config = tiny.model_copy(update={"cycle": cycle})
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
@pytest.mark.parametrize("kind", [DataCycle.FULL_SYNTHETIC, DataCycle.INCREMENTAL])
def test_the_ideal_learner_runs_resumes_and_trains_nothing(tiny: LoopConfig, kind: DataCycle) -> None:
    cycle = CycleConfig(kind=kind, synthetic_proportion=0.5 if kind.takes_proportion else None)
    ideal = {"model": EmpiricalConfig(kind="empirical"), "train": None, "cycle": cycle, "num_generations": 5}
    config = tiny.model_copy(update=ideal)
    undisturbed = loop(config, study="undisturbed")
    forget()
    for generation, phase in [(1, "sample"), (2, "measure"), (4, "record")]:
        with pytest.raises(Interrupted):
            loop(config, study="disturbed", observer=StopAfter(generation, phase))
    run = loop(config, study="disturbed")
    assert outcome(run) == outcome(undisturbed)
    assert sampled(run) == sampled(undisturbed)
    keys = outcome(run).keys()
    assert {"coverage", "coverage_depth_1_3", "entropy_nats", "kl_reverse_nats"} <= keys
    assert not keys & {"validation_nats", "kl_forward_t1_nats", "coverage_stderr", "entropy_nats_stderr"}
    assert [t for t, _ in run.history("kl_forward_nats")] == [0]  # of the law of D_0; M_t leaves most of P out
    assert dict(run.history("correctness"))[5] == 1
    assert not any(child.entity.outputs.model_outputs for child in generations(run))
    assert not (stores.runs_folder() / "shared").exists()


@pytest.mark.usefixtures("root")
def test_a_finished_loop_is_returned_and_not_run_again(tiny: LoopConfig) -> None:
    first = loop(tiny)

    class Watcher(Observer):
        resumed: list[bool] = []  # noqa: RUF012

        def generation_finished(self, generation: int, metrics: dict[str, float], resumed: bool) -> None:
            self.resumed.append(resumed)

    assert loop(tiny, observer=Watcher()).id == first.id
    assert Watcher.resumed == [True, True, True]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_damaged_artifact_costs_just_its_generation(tiny: LoopConfig, damage: str) -> None:
    undisturbed = loop(tiny, study="undisturbed")
    forget()
    with pytest.raises(Interrupted):
        loop(tiny, observer=StopAfter(3, "train"))
    (run,) = Store.open().find(level="loop", study="test")
    second = generations(run)[1]
    path = Path(second.entity.info.artifact_uri.removeprefix("file://")) / "samples.tsv.gz"
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])

    computed: list[int] = []

    class Watcher(Observer):
        def generation_started(self, generation: int) -> None:
            computed.append(generation)

    run = loop(tiny, observer=Watcher())
    assert computed == [2, 3]
    assert outcome(run) == outcome(undisturbed)
    assert sampled(run) == sampled(undisturbed)


@pytest.mark.usefixtures("root")
def test_full_synthetic_is_incremental_at_1(tiny: LoopConfig) -> None:
    incremental = CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1)
    full = loop(tiny)
    forget()
    mixed = loop(tiny.model_copy(update={"cycle": incremental}))
    assert full.id != mixed.id
    assert outcome(full) == outcome(mixed)
    assert sampled(full) == sampled(mixed)


@pytest.mark.usefixtures("root")
def test_an_error_is_failed_and_not_a_result(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise FloatingPointError("diverged")

    monkeypatch.setattr("ouroloop.learner.network.sampling.sample_with_nats", explode)
    with pytest.raises(FloatingPointError):
        loop(tiny)
    (run,) = Store.open().find(level="loop", study="test")
    (child,) = generations(run)
    assert run.status == child.status == "FAILED"
    assert "correctness" not in child.metrics
    assert dict(run.history("correctness")).keys() == {0}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("policy", "kept"), [("all", [1, 2, 3]), ("last", [3]), ("none", [])])
def test_weights_are_kept_by_policy(tiny: LoopConfig, policy: str, kept: list[int]) -> None:
    run = loop(tiny.model_copy(update={"keep_weights": policy}))
    assert [i for i, child in enumerate(generations(run), 1) if child.entity.outputs.model_outputs] == kept


def test_stages_keeps_the_first_of_each_stage_and_the_last(tiny: LoopConfig) -> None:
    config = tiny.model_copy(update={"keep_weights": "stages", "num_generations": 6})
    stages = ["healthy", "onset", "onset", "healthy", "decline", "decline"]
    kept = [t for t, stage in enumerate(stages, 1) if keeps_weights(config, t, stage, stages[: t - 1])]
    assert kept == [1, 2, 5, 6]


class Refuses(Observer):
    """Fails as soon as a model is trained."""

    def phase_started(self, phase: str) -> None:
        assert phase != "train", "it was there already"


@pytest.mark.usefixtures("root")
def test_what_another_study_has_computed_is_copied_and_is_what_would_have_been_computed(tiny: LoopConfig) -> None:
    """Full synthetic is incremental at 1, and three generations are the beginning of four."""
    longer = tiny.model_copy(update={"num_generations": 4, "keep_weights": "all"})
    first = loop(longer, study="first")
    cycle = CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1.0)
    config = tiny.model_copy(update={"cycle": cycle})
    copied = loop(config, study="copied", observer=Refuses())
    computed = loop(config, study="copied", new=True)
    assert sampled(copied) == sampled(computed) == sampled(first)[:3]
    assert outcome(copied) == outcome(computed)
    for twin, copy, original in zip(generations(first), generations(copied), generations(computed), strict=False):
        assert copy.tag("copied_from") == twin.id
        assert copy.tag("study") == "copied"
        assert copy.metrics.keys() == original.metrics.keys()
        assert copy.history("train_loss_nats_per_token") == original.history("train_loss_nats_per_token")
        assert (copy.note, copy.tag("stage"), copy.mixture) == (original.note, original.tag("stage"), original.mixture)
        assert copy.model_id != twin.model_id
        assert (copy.model_id is None) == (original.model_id is None)  # and not all that its twin keeps
    assert generations(copied)[-1].model_id is not None
    with pytest.raises(AssertionError, match="there already"):
        loop(config.model_copy(update={"seed": 6}), study="other", observer=Refuses())


@pytest.mark.usefixtures("root")
def test_only_what_the_same_software_computed_from_the_same_data_is_copied(tiny: LoopConfig) -> None:
    first = loop(tiny, study="first")
    store = Store.open()
    texts = sampled(first)
    second, third = generations(first)[1:]
    store.client.set_tag(second.id, "ouroloop.code", "another version")
    inputs = third.entity.inputs.dataset_inputs[0].dataset
    other = DatasetEntity("D_02", "another digest", inputs.source_type, inputs.source)
    run = loop(tiny, study="copied")
    assert [child.tag("copied_from") is None for child in generations(run)] == [False, True, False]
    store.client.delete_run(third.id)
    replaced = store.create("gen-03", first, {"level": "generation", "generation": "3", "code": code()})
    store.client.log_inputs(replaced.id, datasets=[DatasetInput(other)])
    replaced.end("FINISHED")
    store.client.delete_run(run.id)
    again = loop(tiny, study="again")
    assert [child.tag("copied_from") is None for child in generations(again)] == [False, True, True]
    assert sampled(again) == sampled(run) == texts


@pytest.mark.usefixtures("root")
def test_a_finished_loop_that_lost_a_generation_computes_it_again(tiny: LoopConfig) -> None:
    whole = outcome(loop(tiny))
    (run,) = Store.open().find(level="loop")
    run.store.client.delete_run(generations(run)[1].id)
    again = loop(tiny)
    assert again.id == run.id
    assert [child.tag("generation") for child in generations(again)] == ["1", "2", "3"]
    assert outcome(again) == whole


@pytest.mark.usefixtures("root")
def test_a_copy_needs_the_weights_that_its_loop_keeps(tiny: LoopConfig) -> None:
    loop(tiny.model_copy(update={"keep_weights": "none"}), study="first")
    run = loop(tiny.model_copy(update={"keep_weights": "last"}), study="second")
    assert [generation.tag("copied_from") is None for generation in generations(run)] == [False, False, True]
    assert generations(run)[-1].model_id is not None
