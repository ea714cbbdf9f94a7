"""One generation: M_t from D_{t-1}, S_t from M_t, and what became of correctness and diversity."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from ouroloop.config import LoopConfig, ModelConfig
from ouroloop.learner.empirical import resample, resampling_law
from ouroloop.loop.observer import Observer as Observer
from ouroloop.science.cycle import Dataset
from ouroloop.science.divergence import of_finite_law
from ouroloop.science.metrics import CollapseStage, Estimate, Sample, measure, measure_training_set, stage
from ouroloop.science.seeding import stream, torch_seed
from ouroloop.testbed.logic import oracle
from ouroloop.testbed.logic.distribution import Law

if TYPE_CHECKING:  # torch takes seconds to import, and the ideal learner has no use for it
    from transformers import PreTrainedModel

    from ouroloop.learner.network.train import Training

_CROSS_CHECKED = 100  # distinct texts a generation that sympy judges too


@dataclass(frozen=True)
class Product:
    """M_t and S_t: what D_{t-1} and the configuration determine, bit for bit (the times excepted)."""

    model: "PreTrainedModel | None"
    """None for the ideal learner, whose model is its training set."""
    training: "Training | None"
    texts: list[str]
    nats: list[float] | None
    """The log-probability of each text under the law that it was sampled from; None for the ideal learner."""
    seconds: dict[str, float] = field(compare=False)
    """Of the phases `train` and `sample`."""


@contextmanager
def timed(seconds: dict[str, float], phase: str, observer: Observer) -> Iterator[None]:
    observer.phase_started(phase)
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start


def load_libraries(config: LoopConfig) -> None:
    """Imports what `produce` takes, seconds that no generation should be charged with."""
    if config.model.kind == "transformers":
        import ouroloop.learner.network.likelihood
        import ouroloop.learner.network.sampling
        import ouroloop.learner.network.train  # noqa: F401


def produce(config: LoopConfig, number: int, training_set: Dataset, observer: Observer) -> Product:
    """Trains M_t on D_{t-1}, if it is of a kind that is trained, and samples S_t from it."""
    if config.model.kind == "transformers":
        return _train_and_sample(config, number, training_set, observer)
    seconds: dict[str, float] = {}
    with timed(seconds, "sample", observer):
        law = resampling_law(training_set.texts, config.sampling.temperature)
        texts = resample(law, config.data.num_examples, stream(config.seed, "sampling", number))
    return Product(None, None, texts, None, seconds)


def _train_and_sample(config: LoopConfig, number: int, training_set: Dataset, observer: Observer) -> Product:
    import torch

    from ouroloop.learner.network.batches import MixedDataModule
    from ouroloop.learner.network.model import build_model
    from ouroloop.learner.network.sampling import sample_with_nats
    from ouroloop.learner.network.train import train

    assert isinstance(config.model, ModelConfig)
    assert config.train is not None
    torch.set_num_threads(config.train.num_threads)
    seconds: dict[str, float] = {}
    with timed(seconds, "train", observer):
        data = MixedDataModule(training_set, config.train, stream(config.seed, "split", number))
        model = build_model(config.model, torch_seed(config.seed, "init", number))
        training = train(model, data, config.train, torch_seed(config.seed, "dropout", number), observer.trained)
    with timed(seconds, "sample", observer):
        rng = stream(config.seed, "sampling", number)
        texts, nats = sample_with_nats(model, config.data.num_examples, config.sampling, rng)
    return Product(model, training, texts, nats, seconds)


@dataclass(frozen=True)
class Assessment:
    """What became of correctness and diversity in one generation."""

    sample: Sample
    measures: dict[str, Estimate]
    stage: CollapseStage | None
    """None when D_0 has no diversity to compare with."""


def assess(
    config: LoopConfig, number: int, product: Product, training_set: Dataset, original: Sample, observer: Observer
) -> Assessment:
    """Judges and measures S_t; sympy judges some of it too, and has to agree."""
    seconds = dict(product.seconds)
    with timed(seconds, "measure", observer):
        sampled = Sample.of(product.texts)
        oracle.cross_check(islice(sampled.counts, _CROSS_CHECKED))
        measures = measure(sampled, original, config.data) | measure_training_set(sampled, training_set)
        measures |= _measure_law(config, number, product, training_set, sampled)
    if product.training is not None:
        measures["validation_nats"] = Estimate(product.training.validation_nats)
        measures["train_tokens_per_second"] = Estimate(product.training.num_tokens / seconds["train"])
    measures |= {f"{phase}_seconds": Estimate(value) for phase, value in seconds.items()}
    num_sampled = sum(len(text.split()) + 1 for text in product.texts)
    measures["sample_tokens_per_second"] = Estimate(num_sampled / seconds["sample"])
    retention = measures.get("diversity_retention")
    return Assessment(sampled, measures, stage(retention.value, config.stages) if retention else None)


def _measure_law(
    config: LoopConfig, number: int, product: Product, training_set: Dataset, sampled: Sample
) -> dict[str, Estimate]:
    """How far the law of M_t at the sampling temperature is from the grammar's."""
    if product.model is not None and product.nats is not None:
        from ouroloop.learner.network.likelihood import measure_model

        return measure_model(config, number, product.model, sampled, product.texts, product.nats)
    probabilities = resampling_law(training_set.texts, config.sampling.temperature)
    return of_finite_law(Law.of(config.data), probabilities, Sample.of(training_set.texts))
