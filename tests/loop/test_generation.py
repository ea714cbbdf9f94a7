"""One generation: its measures against sums over all expressions scored one at a time, whoever learnt and whatever."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from ouroloop.config import LoopConfig
from ouroloop.learner.base import Fitted, Progress, Samples, Training
from ouroloop.learner.network.fitted import Network
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.loop.generation import CURVES, Generation, compute, description
from ouroloop.loop.loop import draw_original
from ouroloop.loop.observer import Observer
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed import base
from ouroloop.testbed.base import Array, Sample
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.learner.network.test_sampling import log_probability, model_of
from tests.learner.test_throwaway import UniformLearner
from tests.testbed.test_throwaway import Uniform, WordList


@dataclass
class Given:
    """A learner whose model is there already."""

    fitted: Fitted
    device = "cpu"
    is_registrable = True
    num_previous = 0

    def check(self) -> None: ...

    def fit(
        self, dataset: Dataset, streams: Streams, report: Progress = lambda *_: None, previous: Sequence[Fitted] = ()
    ) -> Fitted:
        return self.fitted

    def load(self, folder: object) -> Fitted:
        return self.fitted


@dataclass
class Writes:
    """A model that always writes the same, scores as uniform over 10^9 texts, and remembers what it was asked for."""

    text: str
    training: Training | None = None
    asked: list[list[str]] = field(default_factory=list)

    def sample(self, count: int, rng: np.random.Generator) -> Samples:
        return Samples([self.text] * count, [-0.1] * count)

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        self.asked.append(list(texts))
        return np.full((len(temperatures), len(texts)), -math.log(1e9))

    def probabilities(self) -> None: ...

    def save(self, folder: object) -> None: ...


def generation(config: LoopConfig, fitted: Fitted, number: int = 2, observer: Observer | None = None) -> Generation:
    original = draw_original(config)
    reference = Sample.of(original.texts, config.data.testbed)
    return compute(config, Given(fitted), number, original, reference, observer or Observer())


@pytest.mark.heavy
def test_every_measure_is_the_sum_that_it_stands_for(tiny: LoopConfig) -> None:
    """Depths 1 and 2 are enumerated, so that nothing but entropy is estimated; 4 standard errors."""
    config = tiny.changed(sampling={"temperature": 0.7}, data={"num_examples": 110})
    model, true = model_of(sharpness=2.0), config.data.testbed.distribution
    network = Network(model, TOKENIZER, config.sampling)
    found = generation(config, network).metrics
    every = [text for depth in (1, 2) for text in true.all_of_depth(depth).texts]
    p = np.exp(true.log_probabilities(every))
    cool, own = (np.array([log_probability(model, text, t) for text in every]) for t in (0.7, 1.0))
    assert found["kl_forward_nats"] == pytest.approx(np.sum(p * (np.log(p) - cool)), abs=1e-4)
    assert found["kl_forward_t1_nats"] == pytest.approx(np.sum(p * (np.log(p) - own)), abs=1e-4)
    for key in ("coverage", "coverage_depth_1_3"):
        assert found[key] == pytest.approx(np.minimum(p, np.exp(cool)).sum(), rel=1e-4)
        assert f"{key}_stderr" not in found
    assert found["off_support_rate"] > 0.9  # an untrained model
    others = network.sample(500, stream(2, "sampling")).texts
    alone = [log_probability(model, t, 0.7, ends=len(t.split()) < 20) for t in others]
    stderr = np.hypot(found["entropy_nats_stderr"], np.std(alone) / np.sqrt(len(alone)))
    assert abs(found["entropy_nats"] + np.mean(alone)) < 4 * stderr


def test_the_same_expressions_are_held_out_in_every_generation(tiny: LoopConfig) -> None:
    """Those of this seed; every third generation is exact."""
    config = tiny.changed(data={"max_depth": 4}, sampling={"max_new_tokens": 62}, model={"context_length": 64})
    config = config.changed(exact_every=3)
    asked = []
    for number, seed in [(1, 5), (2, 5), (3, 5), (1, 6)]:
        model = Writes("( (")
        generation(config.changed(seed=seed), model, number)
        asked.append(model.asked)
    assert asked[0] == asked[1] != asked[3]
    (small,), (few, many) = asked[0], asked[2]
    assert len(small) == 5 + 105 + 2 * 100
    assert len(many) == 44_205
    assert few == [*small[:110], *small[210:]]  # depth 4 is drawn all the same
    held_out = config.data.testbed.distribution.strata(lambda part: stream(5, "held_out", part), exact=False)
    assert small == [text for stratum in held_out for text in stratum.texts]


def test_what_a_collapsed_model_leaves_is_measured(tiny: LoopConfig) -> None:
    found = generation(tiny, Writes("( (")).metrics
    assert "kl_reverse_nats" not in found
    assert found["off_support_rate"] == found["error_rate"] == 1
    assert all(np.isfinite(value) for value in found.values())


def test_the_samples_are_those_of_the_stream_and_know_their_generation(tiny: LoopConfig) -> None:
    network = Network(model_of(), TOKENIZER, tiny.sampling)
    made = generation(tiny, network, 7)
    assert made.samples.texts == tuple(network.sample(40, stream(5, "sampling", 7)).texts)
    assert made.samples.mixture() == {"sampled-07": 40}
    assert (made.source, made.save) == ("", network.save)


def test_curves_are_thinned_to_a_hundred_means(tiny: LoopConfig) -> None:
    losses = [float(step) for step in range(1, 1_051)]
    made = generation(tiny, Writes("True", Training(3.5, losses, [(500, 4.0), (1_050, 3.5)], 21_000)))
    train, validation = (made.curves[key] for key in CURVES)
    assert len(train) == 96
    assert train[0] == (11, 6.0)  # the mean of steps 1 to 11
    assert train[-1] == (1_050, np.mean(losses[95 * 11 :]))
    assert validation == [(500, 4.0), (1_050, 3.5)]
    assert made.metrics["validation_nats"] == 3.5
    assert made.metrics["train_tokens_per_second"] == pytest.approx(21_000 / made.metrics["train_seconds"])


def test_what_was_not_trained_has_no_training_to_measure(tiny: LoopConfig) -> None:
    made = generation(tiny, Writes("True"))
    assert made.curves == {}
    assert not made.metrics.keys() & {"train_seconds", "train_tokens_per_second", "validation_nats"}
    assert made.metrics.keys() >= {"sample_seconds", "measure_seconds"}
    rate = 40 * 2 / made.metrics["sample_seconds"]  # `True` and its <eos>, each time
    assert made.metrics["sample_tokens_per_second"] == pytest.approx(rate)


def test_another_judge_sees_a_hundred_texts_and_may_object(tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def object_to(testbed: base.Testbed, texts: list[str]) -> None:
        seen.append(texts)
        raise AssertionError("it is False")

    monkeypatch.setattr(type(tiny.data.testbed), "cross_check", object_to)
    config = tiny.changed(data={"num_examples": 300, "max_depth": 3}, sampling={"max_new_tokens": 30})
    many = Network(model_of(sharpness=1.0), TOKENIZER, config.sampling)
    with pytest.raises(AssertionError, match="it is False"):
        generation(config, many)
    assert len(seen[0]) == len(set(seen[0])) == 100


class Phases(Observer):
    def __init__(self) -> None:
        self.seen: list[str | int] = []

    def phase_started(self, phase: str) -> None:
        self.seen.append(phase)

    def trained(self, step: int, nats_per_token: float) -> None:
        self.seen.append(step)


def test_whoever_watches_sees_phases_and_steps(tiny: LoopConfig) -> None:
    assert tiny.train is not None
    learner = NetworkLearner(tiny.model, tiny.train, tiny.sampling, TOKENIZER)
    original, phases = draw_original(tiny), Phases()
    compute(tiny, learner, 1, original, Sample.of(original.texts, tiny.data.testbed), phases)
    assert phases.seen == ["train", *range(1, 13), "sample", "measure"]


@pytest.mark.parametrize("distribution", [None, Uniform()], ids=["no distribution", "a distribution"])
@pytest.mark.parametrize("learner", ["uniform", "network"])
def test_a_whole_generation_of_another_testbed(tiny: LoopConfig, learner: str, distribution: Uniform | None) -> None:
    """And by another learner: neither is known to the program."""
    testbed = WordList(distribution)
    texts = testbed.original(40, stream(5, "data"))
    training_set = Dataset.of(texts[:30], Source.ORIGINAL, 0) + Dataset.of(texts[:10], Source.SAMPLED, 1)
    assert tiny.train is not None
    network = NetworkLearner(tiny.model, tiny.train, tiny.sampling, testbed.tokenizer)
    learns = UniformLearner() if learner == "uniform" else network
    made = compute(tiny, learns, 2, training_set, Sample.of(texts, testbed), Observer())
    assert len(made.samples) == 40
    assert made.metrics["synthetic_share"] == 0.25
    assert made.metrics["known_rate"] + made.metrics["unknown_rate"] == pytest.approx(1)
    assert {"diversity_retention", "mean_length_tokens", "share_in_training_set"} <= made.metrics.keys()
    of_truth = {"coverage", "entropy_nats", "off_support_rate", "mass"}
    assert made.metrics.keys() & of_truth == (set() if distribution is None else of_truth)
    assert all(math.isfinite(value) for value in made.metrics.values())
    assert made.sample is not None
    assert "% known, " in description(2, made, made.sample, training_set)
    if learner == "uniform":
        num_words = len(set(training_set.texts))
        assert made.metrics["share_in_training_set"] == made.metrics["known_rate"] == 1
        assert distribution is None or made.metrics["coverage"] == pytest.approx(num_words / 8)
