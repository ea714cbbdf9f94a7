"""From texts to batches: every row once, nothing of the padding in the loss."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.cycle import Dataset, Source
from ouroloop.data import Batch, MixedDataModule, batches_by_length
from ouroloop.grammar import unique_set
from ouroloop.seeding import stream
from ouroloop.tokenizer import EOS_ID, decode


def rows_of(batch: Batch) -> list[str]:
    texts, num_tokens = [], 0
    counts = [int(count) for count in batch.counts_B]
    for ids, labels, count in zip(batch.ids_BL.tolist(), batch.labels_BL.tolist(), counts, strict=True):
        length = sum(label >= 0 for label in labels)
        assert labels[length:] == [-100] * (len(labels) - length)  # padding is a tail, and masked
        assert ids[0] == labels[length - 1] == EOS_ID
        assert ids[1:length] == labels[: length - 1]  # the model predicts the next token
        texts += count * [decode(labels[: length - 1])]
        num_tokens += count * length
    assert (batch.num_tokens, batch.num_expressions) == (num_tokens, len(texts))
    return texts


@given(st.lists(st.integers(1, 126), min_size=1, max_size=200), st.integers(1, 50))
def test_every_row_is_in_exactly_one_batch(lengths: list[int], batch_size: int) -> None:
    batches = batches_by_length(np.array(lengths), batch_size, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    # a batch overshoots its share of the tokens by less than one row
    share = sum(lengths) / -(-len(lengths) // batch_size)
    assert all(sum(lengths[i] for i in batch) < share + max(lengths) for batch in batches)


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(1).integers(5, 127, size=2_000)
    batches = batches_by_length(lengths, 16, np.random.default_rng(2))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded / lengths.sum() < 1.03


def make(batching: Literal["length", "random"]) -> MixedDataModule:
    texts = unique_set(100, stream(1, "data"))
    dataset = Dataset.of(texts, Source.ORIGINAL, 0) + Dataset.of(texts[:20], Source.SAMPLED, 1)
    return MixedDataModule(dataset, batch_size=7, batching=batching, validation_fraction=0.1, rng=stream(1, "split"))


@pytest.fixture
def module() -> MixedDataModule:
    return make("length")


def epoch(batches: Iterator[Batch]) -> list[str]:
    texts: list[str] = []
    while len(texts) < 108:
        texts += rows_of(next(batches))
    assert len(texts) == 108
    return texts


@pytest.mark.parametrize("batching", ["length", "random"])
def test_split_is_90_to_10_keeps_every_row_and_shuffles_each_epoch_anew(batching: Literal["length", "random"]) -> None:
    module = make(batching)
    batches = iter(module.train_dataloader())
    first, second = epoch(batches), epoch(batches)
    assert first != second
    assert sorted(first) == sorted(second)
    validation = [text for batch in module.val_dataloader() for text in rows_of(batch)]
    original = unique_set(100, stream(1, "data"))
    assert sorted(first + validation) == sorted(original + original[:20])
    assert module.num_train_tokens == sum(len(text.split()) + 1 for text in first)


def test_validation_is_one_fixed_pass(module: MixedDataModule) -> None:
    first, second = ([text for b in module.val_dataloader() for text in rows_of(b)] for _ in range(2))
    assert first == second


def test_what_a_collapsed_dataset_repeats_is_evaluated_once() -> None:
    dataset = Dataset.of(["True"] * 90 + ["( not False )"] * 10, Source.SAMPLED, 3)
    module = MixedDataModule(dataset, batch_size=20, validation_fraction=0.2, rng=stream(1, "split"))
    batches = [batch for batch, _ in zip(module.train_dataloader(), range(4), strict=False)]
    assert all(len(batch.ids_BL) <= 2 for batch in batches)
    assert sum(batch.num_expressions for batch in batches) == 80


def test_the_validation_entropy_is_that_of_its_repetitions() -> None:
    single = Dataset.of(["True"] * 50, Source.SAMPLED, 3)
    assert (
        MixedDataModule(single, batch_size=4, validation_fraction=0.2, rng=stream(1, "s")).validation_entropy_nats == 0
    )
    distinct = Dataset.of(unique_set(50, stream(1, "data")), Source.ORIGINAL, 0)
    module = MixedDataModule(distinct, batch_size=4, validation_fraction=0.2, rng=stream(1, "s"))
    assert module.validation_entropy_nats == pytest.approx(math.log(10))


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 example cannot be split"):
        MixedDataModule(
            Dataset.of(["True"], Source.ORIGINAL, 0), batch_size=16, validation_fraction=0.1, rng=stream(1, "x")
        )
