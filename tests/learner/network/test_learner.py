"""The network keeps the contract of a learner, on logic and on a testbed that nothing here has heard of."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config

from ouroloop.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.base import Fitted
from ouroloop.learner.network import world
from ouroloop.learner.network.ensemble import mean_of
from ouroloop.learner.network.fitted import Network
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.learner.network.model import build_model
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams
from ouroloop.testbed.logic.testbed import TOKENIZER, LogicTestbed
from ouroloop.testbed.tokenizer import WordTokenizer
from tests.learner import contract
from tests.testbed.test_throwaway import WordList

MODEL = ModelConfig(num_layers=1, num_heads=2, hidden_size=16, context_length=64)
TRAIN = TrainConfig(num_steps=30, batch_size=8, learning_rate=0.02, num_warmup_steps=2, validate_every=10)
SAMPLING = SamplingConfig(temperature=0.7, max_new_tokens=25)


def shallow() -> LogicTestbed:
    return LogicTestbed(max_depth=3)


class TestNetwork(contract.LearnerContract):
    temperature = SAMPLING.temperature
    longest = SAMPLING.max_new_tokens
    of_testbed = staticmethod(shallow)

    @staticmethod
    def learner() -> NetworkLearner:
        return NetworkLearner(MODEL, TRAIN, SAMPLING, TOKENIZER)


class TestNetworkOnAnotherTestbed(contract.LearnerContract):
    temperature = 1.0
    longest = 8
    of_testbed = staticmethod(WordList)

    @staticmethod
    def learner() -> NetworkLearner:
        sampling = SamplingConfig(temperature=1.0, max_new_tokens=8)
        return NetworkLearner(MODEL.changed(model_type="llama"), TRAIN, sampling, WordList.tokenizer)


class TestTaughtByAllBefore(TestNetwork):
    """And of its eight tokens only three are told apart."""

    @staticmethod
    def learner() -> NetworkLearner:
        train = TRAIN.changed(targets="soft", num_teachers=None, soft_top_k=3)
        return NetworkLearner(MODEL, train, SAMPLING, TOKENIZER)


@pytest.mark.slow
class TestTaughtByOneOfThoseBefore(TestNetwork):
    @staticmethod
    def learner() -> NetworkLearner:
        train = TRAIN.changed(targets="soft", num_teachers=None, teaching="drawn")
        return NetworkLearner(MODEL, train, SAMPLING, TOKENIZER)


@pytest.mark.slow
class TestEnsembleThatGoesOn(TestNetwork):
    """From where the last one was, and a little back; fitted at the temperature at which it is sampled."""

    @staticmethod
    def learner() -> NetworkLearner:
        changes = {"start": "previous", "num_tuning_steps": 10, "extrapolation": 0.1, "loss_temperature": 0.7}
        return NetworkLearner(MODEL.changed(num_members=2), TRAIN.changed(**changes), SAMPLING, TOKENIZER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": MODEL.changed(model_type="bert")}, "not causal|key-value cache"),
        ({"model": MODEL.changed(model_type="no-such")}, "no-such"),
        ({"model": MODEL.changed(model_type="bloom")}, "cannot be trained packed"),
        ({"train": TRAIN.changed(accelerator="gpu")}, "cannot train with train.accelerator=gpu"),
        (
            {"train": TRAIN.changed(accelerator="gpu", devices=2)},
            "on train.devices=2: ",
        ),
        ({"train": TRAIN.changed(precision="16-mixed")}, "16-mixed needs a GPU"),
        ({"train": TRAIN.changed(strategy="fsdp")}, "train.devices must be at least 2"),
        ({"train": TRAIN.changed(strategy="fsdp", devices=2, compile=True)}, "drop one"),
    ],
    ids=["not causal", "unknown", "packed", "accelerator", "accelerators", "16-mixed", "fsdp on one", "fsdp compiled"],
)
def test_a_check_refuses_what_would_fail_later(
    change: dict[str, ModelConfig | TrainConfig], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parts = {"model": MODEL, "train": TRAIN} | change
    with pytest.raises(ConfigError, match=message):
        NetworkLearner(parts["model"], parts["train"], SAMPLING, TOKENIZER).check()


def test_a_check_asks_for_the_compiler_that_a_compiled_network_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match=r"train\.compile needs a C.. compiler here: .*no-such-compiler"):
        NetworkLearner(MODEL, TRAIN.changed(compile=True), SAMPLING, TOKENIZER).check()


def test_of_a_large_vocabulary_soft_targets_are_the_likeliest() -> None:
    model, train = MODEL.changed(vocabulary_size=4_097), TRAIN.changed(targets="soft")
    with pytest.raises(ConfigError, match=r"needs train.soft_top_k, such as 256: a vocabulary of 4,097 tokens is too"):
        NetworkLearner(model, train, SAMPLING, None).check()
    NetworkLearner(model, train.changed(soft_top_k=256), SAMPLING, None).check()
    NetworkLearner(model.changed(vocabulary_size=4_096), train, SAMPLING, None).check()


def test_what_cannot_be_packed_can_be_padded() -> None:
    NetworkLearner(MODEL.changed(model_type="bloom"), TRAIN.changed(batching="padded"), SAMPLING, TOKENIZER).check()


@pytest.mark.parametrize(
    ("accelerator", "device"), [("auto", "Some GPU"), ("gpu", "Some GPU"), ("cpu", "cpu"), ("mps", "cpu")]
)
def test_the_device_is_the_kind_that_it_will_compute_on(
    accelerator: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    train = TRAIN.changed(accelerator=accelerator)
    assert NetworkLearner(MODEL, train, SAMPLING, TOKENIZER).device == device


@pytest.mark.parametrize(
    ("train", "given"),
    [
        ({}, 0),
        ({"targets": "soft"}, 1),
        ({"targets": "soft", "num_teachers": 3, "start": "previous"}, 3),
        ({"targets": "soft", "num_teachers": None}, None),
        ({"start": "previous"}, 1),
    ],
)
def test_how_many_earlier_models_it_is_given(train: dict[str, str | int | None], given: int | None) -> None:
    assert NetworkLearner(MODEL, TRAIN.changed(**train), SAMPLING, TOKENIZER).num_previous == given


def sampled_dataset(count: int) -> contract.Dataset:
    texts = shallow().original(count, contract.stream(1, "data"))
    return contract.Dataset.of(texts, contract.Source.SAMPLED, 1)


def untrained(seed: int) -> Network:
    return Network(build_model(MODEL, TOKENIZER, seed).eval(), TOKENIZER, SAMPLING)


def log_p(model: Fitted) -> list[float]:
    return list(model.log_prob(sampled_dataset(5).texts, [1.0])[0])


@pytest.mark.heavy
@pytest.mark.parametrize("teaching", ["mean", "drawn"])
def test_a_student_becomes_its_teachers_and_not_its_texts(teaching: str) -> None:
    """Two untrained networks find every text far less probable than one who learns the texts; their student agrees with
    their mean to 5 % of that distance, which 150 steps reach."""
    dataset, teachers = sampled_dataset(60), [untrained(1), untrained(2)]
    train = TRAIN.changed(targets="soft", num_teachers=None, teaching=teaching, num_steps=150, validate_every=50)
    student = NetworkLearner(MODEL, train, SAMPLING, TOKENIZER).fit(dataset, contract.Streams(1, 3), previous=teachers)
    plain = TRAIN.changed(num_steps=150, validate_every=50)
    reader = NetworkLearner(MODEL, plain, SAMPLING, TOKENIZER).fit(dataset, contract.Streams(1, 3))
    mean = log_p(Network(mean_of([teacher.model for teacher in teachers]), TOKENIZER, SAMPLING))
    gap = max(abs(own - wanted) for own, wanted in zip(log_p(student), mean, strict=True))
    assert gap < 0.05 * min(own - wanted for own, wanted in zip(log_p(reader), mean, strict=True))


def test_of_teachers_that_are_drawn_each_teaches_its_share() -> None:
    """300 texts, two teachers, one of whom is certain: 150 ± 43 (5 standard errors) are taught by it."""
    texts = shallow().original(300, contract.stream(1, "data"))
    dataset = contract.Dataset.of(texts, contract.Source.SAMPLED, 1)
    certain = untrained(2)
    with torch.no_grad():
        certain.model.lm_head.weight.mul_(1e4)
    learner = TestTaughtByOneOfThoseBefore.learner()
    teach = learner._teach([untrained(1), certain], contract.stream(1, "teachers"))
    assert teach is not None
    rows = [np.array(TOKENIZER.encode(text), dtype=np.int64) for text in dataset.texts]
    taught = teach(rows)
    assert teach(rows) == taught
    assert abs(sum(one.entropy_nats() < 0.1 for one in taught) - 150) < 43


def test_what_no_model_wrote_teaches_its_tokens_whoever_was_there_before() -> None:
    texts = shallow().original(60, contract.stream(1, "data"))
    dataset = contract.Dataset.of(texts, contract.Source.ORIGINAL, 0)
    soft = NetworkLearner(MODEL, TRAIN.changed(targets="soft"), SAMPLING, TOKENIZER)
    plain = NetworkLearner(MODEL, TRAIN, SAMPLING, TOKENIZER)
    taught = soft.fit(dataset, contract.Streams(1, 3), previous=[untrained(1)])
    assert log_p(taught) == pytest.approx(log_p(plain.fit(dataset, contract.Streams(1, 3))), abs=1e-4)


def test_one_that_starts_where_its_teacher_is_has_nothing_to_learn() -> None:
    """It keeps M_1 under another name, but for AdamW, whose steps are as long however small a gradient is."""
    dataset, teacher = sampled_dataset(60), untrained(1)
    train = TRAIN.changed(targets="soft", start="previous", weight_decay=0.0)
    soft = NetworkLearner(MODEL, train, SAMPLING, TOKENIZER)
    plain = NetworkLearner(MODEL, train.changed(targets="tokens"), SAMPLING, TOKENIZER)
    student, reader = (one.fit(dataset, contract.Streams(1, 3), previous=[teacher]) for one in (soft, plain))
    gap = max(abs(own - wanted) for own, wanted in zip(log_p(student), log_p(teacher), strict=True))
    assert gap < 0.05 * min(own - wanted for own, wanted in zip(log_p(reader), log_p(teacher), strict=True))


def test_extrapolation_is_the_way_back_continued() -> None:
    train, dataset, start = TRAIN.changed(start="previous"), sampled_dataset(60), untrained(1)

    def weights(extrapolation: float) -> torch.Tensor:
        learner = NetworkLearner(MODEL, train.changed(extrapolation=extrapolation), SAMPLING, TOKENIZER)
        fitted = learner.fit(dataset, contract.Streams(1, 3), previous=[start])
        return torch.nn.utils.parameters_to_vector(fitted.model.parameters()).detach()

    origin = torch.nn.utils.parameters_to_vector(start.model.parameters()).detach()
    assert torch.allclose(weights(0.5), origin + 0.5 * (origin - weights(0.0)), atol=1e-6)


@pytest.mark.heavy
def test_a_loss_at_the_sampling_temperature_fits_what_is_sampled() -> None:
    """One text in two: at T = 0.5 each network is fitted to the halves at its own temperature."""
    tokenizer = WordTokenizer(["a", "b"])
    dataset = contract.Dataset.of(["a"] * 60 + ["b"] * 20, contract.Source.SAMPLED, 1)
    for temperature, expected in [(1.0, 0.9), (0.5, 0.75)]:
        train = TRAIN.changed(loss_temperature=temperature, num_steps=100, validate_every=50)
        fitted = NetworkLearner(MODEL, train, SAMPLING, tokenizer).fit(dataset, contract.Streams(1, 1))
        # 3 : 1 at T = 1 is 9 : 1 at 0.5; a tenth is held back at random, hence 18 ± 1 of 72 are b
        assert math.exp(fitted.log_prob(["a"], [0.5])[0, 0]) == pytest.approx(expected, abs=0.06)


@pytest.mark.heavy
def test_an_ensemble_is_saved_whole_and_not_registered(tmp_path: Path) -> None:
    learner = TestEnsembleThatGoesOn.learner()
    TestEnsembleThatGoesOn.fitted_once().save(tmp_path)
    assert not learner.is_registrable
    assert learner.description.startswith("2 networks, each gpt2")
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert len(learner.load(tmp_path).members) == 2


def test_a_prompt_reaches_the_sampler() -> None:
    model = TestNetwork.fitted_once()
    texts = model.sample(20, contract.stream(1, "sampling"), prompt="( not").texts
    assert all(text.startswith("( not") for text in texts)
    assert model.num_positions == 64


def test_words_of_the_tokenizer_are_all_that_it_writes() -> None:
    learner = NetworkLearner(MODEL, TRAIN, SAMPLING, WordTokenizer(["a", "b"]))
    dataset = contract.Dataset.of(["a b", "b", "a"] * 7, contract.Source.ORIGINAL, 0)
    texts = learner.fit(dataset, contract.Streams(1, 1)).sample(200, contract.stream(1, "sampling")).texts
    assert {word for text in texts for word in text.split()} == {"a", "b"}


def test_what_others_train_is_scored_on_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On more of them sums have other bits, and how many there are was decided by the machine."""

    class Elsewhere:
        def call(self, *given: object) -> None:
            raise TimeoutError

    monkeypatch.setattr(world, "of", lambda *_, **__: Elsewhere())
    learner, before = NetworkLearner(MODEL, TRAIN.changed(devices=2), SAMPLING, TOKENIZER), torch.get_num_threads()
    try:
        torch.set_num_threads(TRAIN.num_threads + 1)
        with pytest.raises(TimeoutError):
            learner.fit(Dataset.of(["True"], Source.ORIGINAL, 0), Streams(1, 1))
        assert torch.get_num_threads() == TRAIN.num_threads
    finally:
        torch.set_num_threads(before)
