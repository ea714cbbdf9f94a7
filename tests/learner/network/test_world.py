"""Two processes on the CPU, which meet by gloo, are one: losses, samples, failures."""

import math
import os
import signal
from functools import cache
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest

from ouroloop.config import ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.base import Fitted, Progress
from ouroloop.learner.network import sampling, world
from ouroloop.learner.network.fitted import Network
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.logic.testbed import TOKENIZER, LogicTestbed
from tests.learner import contract

pytestmark = pytest.mark.slow  # each process imports torch anew

MODEL = ModelConfig(num_layers=2, num_heads=2, hidden_size=32, context_length=64)
# 107 texts to train on: every third batch is a single one, of which one of two processes has nothing
TRAIN = TrainConfig(num_steps=50, batch_size=53, learning_rate=3e-3, num_warmup_steps=5, validate_every=10)
SAMPLING = SamplingConfig(temperature=0.7, max_new_tokens=25)


def learner(**changes: object) -> NetworkLearner:
    return NetworkLearner(MODEL, TRAIN.changed(**changes), SAMPLING, TOKENIZER)


@cache
def fitted(devices: int, strategy: str = "auto") -> Network:
    texts = LogicTestbed(max_depth=3).original(119, stream(1, "data"))
    network = learner(devices=devices, strategy=strategy).fit(Dataset.of(texts, Source.ORIGINAL, 0), Streams(1, 1))
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_of_one(strategy: str) -> None:
    """float32 rounds to 6e-8 of a value; 50 steps let that grow, and a sum over 30 tokens adds up."""
    one, two = fitted(1).training, fitted(2, strategy).training
    assert one is not None
    assert two is not None
    assert len(two.train_losses) == 50
    assert np.abs(np.subtract(one.train_losses, two.train_losses)).max() < 1e-5
    assert dict(two.validation_losses) == pytest.approx(dict(one.validation_losses), rel=1e-5)
    assert two.validation_nats == pytest.approx(one.validation_nats, rel=1e-5)
    assert two.num_tokens == one.num_tokens
    texts = fitted(1).sample(20, stream(1, "texts")).texts
    assert fitted(2, strategy).log_prob(texts, [1.0]) == pytest.approx(fitted(1).log_prob(texts, [1.0]), abs=1e-3)


def test_two_processes_begin_as_one_does_with_the_recipe_of_laptop() -> None:
    """Muon makes as much of a direction of hardly any gradient as of another, and so of its rounding: the losses of
    one process, padded and packed, part after some steps as those of one and two do.
    """
    shape = MODEL.changed(model_type="gpt_neox", options={"hidden_act": "relu", "use_parallel_residual": False})
    texts = Dataset.of(LogicTestbed(max_depth=3).original(119, stream(1, "data")), Source.ORIGINAL, 0)
    losses, validated = [], []
    for devices in (1, 2):
        train = TRAIN.changed(devices=devices, muon_learning_rate=0.015, num_steps=5, validate_every=5)
        training = NetworkLearner(shape, train, SAMPLING, TOKENIZER).fit(texts, Streams(1, 1)).training
        assert training is not None
        losses.append(training.train_losses)
        validated.append(training.validation_nats)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert validated[0] == pytest.approx(validated[1], rel=1e-4)  # after one step more
    assert losses[0][0] - losses[0][4] > 0.1, "nothing was learnt that could differ"


def test_each_process_samples_its_share_with_a_branch_of_the_stream() -> None:
    two = fitted(2)
    texts, log_probs = two.sample(11, stream(1, "sampling"))
    parts = [
        sampling.sample(two.model, TOKENIZER, count, SAMPLING, branch)
        for count, branch in zip([6, 5], stream(1, "sampling").spawn(2), strict=True)
    ]
    assert texts == [text for part in parts for text in part.texts]
    assert log_probs == pytest.approx([log_p for part in parts for log_p in part.log_probs], abs=1e-5)
    rng = stream(1, "sampling")
    assert rng.bit_generator.state == stream(1, "sampling").bit_generator.state
    assert two.sample(11, rng).texts == texts != two.sample(11, rng).texts  # more of it is other texts


def test_a_prompt_reaches_every_process() -> None:
    assert all(text.startswith("( not") for text in fitted(2).sample(9, stream(1, "sampling"), "( not").texts)


class TestNetworkOnTwoDevices(contract.LearnerContract):
    temperature = SAMPLING.temperature
    longest = SAMPLING.max_new_tokens

    @staticmethod
    def of_testbed() -> LogicTestbed:
        return LogicTestbed(max_depth=3)

    @staticmethod
    def learner() -> NetworkLearner:
        return learner(devices=2, num_steps=30, batch_size=8, learning_rate=0.02)

    def test_what_was_saved_is_the_same_model(self, fitted: Fitted, tmp_path: Path) -> None:
        """By its scores: whoever loads it samples on one device, and so draws other texts of it."""
        texts = list(self.dataset().texts)
        fitted.save(tmp_path)
        scores = fitted.log_prob(texts, [self.temperature, 1.0])
        assert (self.prepared().load(tmp_path).log_prob(texts, [self.temperature, 1.0]) == scores).all()


def _fails_in_one(report: Progress, rank: int) -> int:
    report(world.rank(), float(world.size()))
    if world.rank() == rank:
        raise FloatingPointError(f"rank {rank}")
    if rank < world.size():
        math.fsum(iter(lambda: 1.0, 0.0))  # waits for ever, as for a collective
    return world.rank()


def _dies(report: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_fails_in_one_process_ends_the_others_and_the_next_call_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports: list[tuple[int, float]] = []
    both = world.World(2, is_gpu=False)
    report: Progress = lambda step, nats: reports.append((step, nats))  # noqa: E731
    with pytest.raises(FloatingPointError, match="rank 1"):
        both.call(_fails_in_one, report, 1)
    reports.clear()
    assert both.call(_fails_in_one, report, 2) == [0, 1]
    assert both.call(_fails_in_one, report, 2) == [0, 1]
    assert reports == [(0, 2.0), (0, 2.0)]  # of rank 0 alone
    with pytest.raises(RuntimeError, match=r"one of the 2 processes of train\.devices died"):
        both.call(_dies, report)
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def starts_once(process: SpawnProcess) -> None:
        started.append(process)
        if len(started) == 2:
            raise BlockingIOError("no process left")
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", starts_once)
    with pytest.raises(BlockingIOError):
        both.call(_fails_in_one, report, 2)
    monkeypatch.undo()
    assert both.call(_fails_in_one, report, 2) == [0, 1], "the first of them, who waited for the second, is gone"
