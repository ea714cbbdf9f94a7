"""One generation: train M_t from scratch on D_{t-1}, sample S_t, judge and measure it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import torch
from transformers import PreTrainedModel

from ouroloop import oracle
from ouroloop.config import LoopConfig
from ouroloop.cycle import Dataset, Source
from ouroloop.data import MixedDataModule
from ouroloop.measure import CollapseStage, Estimate, Sample, measure, measure_training_set, stage
from ouroloop.model import build_model
from ouroloop.sample import sample
from ouroloop.seeding import stream, torch_seed
from ouroloop.train import Training, train

_CROSS_CHECKED = 100  # distinct texts a generation that sympy judges too


class Observer:
    """What a loop tells whoever watches; this one does not look."""

    def loop_started(self, config: LoopConfig, name: str) -> None: ...

    def generation_started(self, generation: int) -> None: ...

    def phase_started(self, phase: str) -> None: ...

    def trained(self, step: int, nats_per_token: float) -> None: ...

    def generation_finished(self, generation: int, metrics: dict[str, float], resumed: bool) -> None: ...


@dataclass(frozen=True)
class Generation:
    """Everything that generation t >= 1 produced."""

    number: int
    model: PreTrainedModel
    training: Training
    samples: Dataset
    sample: Sample
    measures: dict[str, Estimate]
    stage: CollapseStage | None
    """None when D_0 has no diversity to compare with."""


def run_generation(
    config: LoopConfig, number: int, training_set: Dataset, original: Sample, observer: Observer
) -> Generation:
    """M_t, S_t and its measures from D_{t-1}; a function of its arguments, bit for bit (times excepted)."""
    torch.set_num_threads(config.train.num_threads)
    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        observer.phase_started(name)
        start = perf_counter()
        yield
        seconds[name] = perf_counter() - start

    with phase("train"):
        data = MixedDataModule(
            training_set,
            batch_size=config.train.batch_size,
            validation_fraction=config.train.validation_fraction,
            rng=stream(config.seed, "split", number),
        )
        model = build_model(config.model, torch_seed(config.seed, "init", number))
        training = train(model, data, config.train, torch_seed(config.seed, "dropout", number), observer.trained)
    with phase("sample"):
        rng = stream(config.seed, "sampling", number)
        texts = sample(model, config.data.num_examples, config.sampling, rng)
    with phase("measure"):
        sampled = Sample.of(texts)
        oracle.cross_check(islice(sampled.counts, _CROSS_CHECKED))
        measures = measure(sampled, original, config.data) | measure_training_set(sampled, training_set)
    measures["validation_nats"] = Estimate(training.validation_nats)
    measures |= {f"{name}_seconds": Estimate(value) for name, value in seconds.items()}
    num_sampled = sum(len(text.split()) + 1 for text in texts)
    measures["train_tokens_per_second"] = Estimate(training.num_tokens / seconds["train"])
    measures["sample_tokens_per_second"] = Estimate(num_sampled / seconds["sample"])
    retention = measures.get("diversity_retention")
    return Generation(
        number=number,
        model=model,
        training=training,
        samples=Dataset.of(texts, Source.SAMPLED, number),
        sample=sampled,
        measures=measures,
        stage=stage(retention.value, config.stages) if retention else None,
    )
