"""The network keeps the contract of a learner, on logic and on a testbed that nothing here has heard of."""

import pytest
import torch

from ouroloop.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.network.learner import NetworkLearner
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
