"""From texts to batches: every row once, nothing of the padding in the loss."""

import math
from collections.abc import Iterator
from itertools import chain, islice, pairwise
from typing import Literal

import numpy as np
import pytest

from ouroloop.config import TrainConfig
from ouroloop.learner.network.batches import Batch, MixedDataModule
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import unique_set
from ouroloop.testbed.logic.testbed import TOKENIZER

CONFIG = TrainConfig(num_steps=20, batch_size=7, learning_rate=0.01, validate_every=8)


def rows_of(batch: Batch) -> list[str]:
    texts, num_tokens = [], 0
    starts = [*np.flatnonzero(batch.positions_N.numpy() == 0).tolist(), len(batch.ids_N)]
    for start, end in pairwise(starts):
        ids, labels = batch.ids_N[start:end].tolist(), batch.labels_N[start:end].tolist()
        (count,) = set(batch.counts_N[start:end].int().tolist())
        assert batch.positions_N[start:end].tolist() == list(range(end - start))
        assert ids[0] == labels[-1] == TOKENIZER.eos_id
        assert ids[1:] == labels[:-1]  # the model predicts the next token
        texts += count * [TOKENIZER.decode(labels[:-1])]
        num_tokens += count * (end - start)
    assert (batch.num_tokens, batch.num_texts) == (num_tokens, len(texts))
    return texts


def make(batching: Literal["packed", "padded"]) -> MixedDataModule:
    texts = unique_set(100, stream(1, "data"))
    dataset = Dataset.of(texts, Source.ORIGINAL, 0) + Dataset.of(texts[:20], Source.SAMPLED, 1)
    return MixedDataModule(dataset, TOKENIZER, CONFIG.changed(batching=batching), stream(1, "split"))


def batches_of(module: MixedDataModule) -> Iterator[Batch]:
    return chain.from_iterable(module.train_steps())


@pytest.fixture
def module() -> MixedDataModule:
    return make("packed")


def epoch(batches: Iterator[Batch]) -> list[str]:
    texts: list[str] = []
    while len(texts) < 108:
        texts += rows_of(next(batches))
    assert len(texts) == 108
    return texts


def test_split_is_90_to_10_keeps_every_row_and_shuffles_each_epoch_anew(module: MixedDataModule) -> None:
    batches = batches_of(module)
    first, second = epoch(batches), epoch(batches)
    assert first != second
    assert sorted(first) == sorted(second)
    validation = [text for batch in module.validation_batches() for text in rows_of(batch)]
    original = unique_set(100, stream(1, "data"))
    assert sorted(first + validation) == sorted(original + original[:20])


def test_validation_is_one_fixed_pass(module: MixedDataModule) -> None:
    first, second = ([text for b in module.validation_batches() for text in rows_of(b)] for _ in range(2))
    assert first == second


def test_what_a_collapsed_dataset_repeats_is_evaluated_once() -> None:
    dataset = Dataset.of(["True"] * 90 + ["( not False )"] * 10, Source.SAMPLED, 3)
    config = CONFIG.changed(batch_size=20, validation_fraction=0.2)
    batches = list(islice(batches_of(MixedDataModule(dataset, TOKENIZER, config, stream(1, "split"))), 4))
    lengths = {2, 5, 2 + 5}
    assert {len(batch.ids_N) for batch in batches} <= lengths
    assert sum(batch.num_texts for batch in batches) == 80


def test_the_validation_entropy_is_that_of_its_repetitions() -> None:
    config = CONFIG.changed(validation_fraction=0.2)
    single = Dataset.of(["True"] * 50, Source.SAMPLED, 3)
    assert MixedDataModule(single, TOKENIZER, config, stream(1, "s")).validation_floor_nats == 0
    distinct = Dataset.of(unique_set(50, stream(1, "data")), Source.ORIGINAL, 0)
    module = MixedDataModule(distinct, TOKENIZER, config, stream(1, "s"))
    assert module.validation_floor_nats == pytest.approx(math.log(10))


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 example cannot be split"):
        MixedDataModule(Dataset.of(["True"], Source.ORIGINAL, 0), TOKENIZER, CONFIG, stream(1, "x"))


def test_packed_or_padded_a_batch_is_the_same() -> None:
    packed, padded = (next(batches_of(make(batching))) for batching in ("packed", "padded"))
    assert rows_of(packed) == rows_of(padded)
    assert packed.lengths_B == tuple(sorted(padded.lengths_B))
    assert sum(packed.lengths_B) == len(packed.ids_N)


def test_the_trainer_gets_the_steps_between_two_validations_at_once_and_no_step_more() -> None:
    stretches = list(make("packed").train_dataloader())
    assert [len(stretch) for stretch in stretches] == [8, 8, 4]
    alone = list(islice(batches_of(make("packed")), 20))
    assert [rows_of(batch) for stretch in stretches for (batch,) in stretch] == [rows_of(batch) for batch in alone]


def test_a_validation_set_is_bounded_and_the_rest_is_trained_on() -> None:
    dataset = Dataset.of(unique_set(100, stream(1, "data")), Source.ORIGINAL, 0)
    module = MixedDataModule(dataset, TOKENIZER, CONFIG.changed(max_validation_examples=3), stream(1, "split"))
    validation = [text for batch in module.validation_batches() for text in rows_of(batch)]
    trained = [text for batch in islice(batches_of(module), 14) for text in rows_of(batch)]
    assert len(validation) == 3
    assert sorted(validation + trained) == sorted(dataset.texts)


def test_a_step_that_accumulates_sees_what_one_of_a_larger_batch_does() -> None:
    dataset = Dataset.of(unique_set(100, stream(1, "data")), Source.ORIGINAL, 0)

    def steps(**sizes: int) -> list[list[list[str]]]:
        module = MixedDataModule(dataset, TOKENIZER, CONFIG.changed(**sizes), stream(1, "split"))
        return [[rows_of(batch) for batch in step] for step in islice(module.train_steps(), 9)]

    whole, parts = steps(batch_size=21), steps(batch_size=7, accumulate=3)
    assert [len(step) for step in parts] == [3, 3, 3, 3, 1, 3, 3, 3, 3]  # 90 rows: an epoch ends in 6 of them
    assert [sorted(chain.from_iterable(step)) for step in parts] == [sorted(*step) for step in whole]
