"""From texts to batches: every row once, nothing of the padding in the loss."""

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
    texts = []
    for ids, labels in zip(batch.ids_BL.tolist(), batch.labels_BL.tolist(), strict=True):
        length = sum(label >= 0 for label in labels)
        assert labels[length:] == [-100] * (len(labels) - length)  # padding is a tail, and masked
        assert ids[0] == labels[length - 1] == EOS_ID
        assert ids[1:length] == labels[: length - 1]  # the model predicts the next token
        texts.append(decode(labels[: length - 1]))
    assert batch.num_tokens == int((batch.labels_BL >= 0).sum())
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


@pytest.fixture
def module() -> MixedDataModule:
    texts = unique_set(100, stream(1, "data"))
    dataset = Dataset.of(texts, Source.ORIGINAL, 0) + Dataset.of(texts[:20], Source.SAMPLED, 1)
    return MixedDataModule(dataset, batch_size=7, validation_fraction=0.1, rng=stream(1, "split"))


def test_split_is_90_to_10_and_keeps_every_row(module: MixedDataModule) -> None:
    assert (len(module.train_rows), len(module.validation_rows)) == (108, 12)
    texts = [decode(row[1:-1]) for row in [*module.train_rows, *module.validation_rows]]
    original = unique_set(100, stream(1, "data"))
    assert sorted(texts) == sorted(original + original[:20])


def test_an_epoch_has_every_training_row_once_and_the_next_is_shuffled_anew(module: MixedDataModule) -> None:
    batches = iter(module.train_dataloader())
    epochs = []
    for _ in range(2):
        texts: list[str] = []
        while len(texts) < len(module.train_rows):
            texts += rows_of(next(batches))
        assert sorted(texts) == sorted(decode(row[1:-1]) for row in module.train_rows)
        epochs.append(texts)
    assert epochs[0] != epochs[1]


def test_validation_is_one_fixed_pass(module: MixedDataModule) -> None:
    first, second = ([text for b in module.val_dataloader() for text in rows_of(b)] for _ in range(2))
    assert first == second
    assert sorted(first) == sorted(decode(row[1:-1]) for row in module.validation_rows)


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 example cannot be split"):
        MixedDataModule(
            Dataset.of(["True"], Source.ORIGINAL, 0), batch_size=16, validation_fraction=0.1, rng=stream(1, "x")
        )
