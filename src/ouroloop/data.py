"""The mixed fresh and synthetic dataset as a Lightning data module: split, batched at random."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ouroloop.config import TrainConfig
from ouroloop.cycle import Dataset
from ouroloop.packing import Layout, layout
from ouroloop.tokenizer import encode

T = TypeVar("T")


class Batch(NamedTuple):
    """Distinct expressions in one row of N tokens, one after another; labels are ids shifted left."""

    ids_N: Tensor
    labels_N: Tensor
    positions_N: Tensor
    """Of each token within its expression, from 0."""
    counts_N: Tensor
    """How often the expression is in the batch: what a dataset repeats is evaluated once and weighted."""
    layout: Layout
    num_tokens: int
    """Repetitions counted."""
    num_expressions: int
    """Repetitions counted."""


class _Expressions:
    """The distinct expressions of a dataset, encoded once: U of them."""

    def __init__(self, texts: list[str]) -> None:
        self._ids = [np.array(encode(text), dtype=np.int64) for text in texts]
        self.lengths_U = np.array([len(ids) - 1 for ids in self._ids], dtype=np.int64)

    def batches(self, rows: npt.NDArray[np.int64], size: int, single_block: bool) -> Iterator[Batch]:
        for part in np.split(rows, range(size, len(rows), size)):
            yield self._batch(part, single_block)

    def _batch(self, rows: npt.NDArray[np.int64], single_block: bool) -> Batch:
        distinct, counts_B = np.unique(rows, return_counts=True)
        ascending = np.argsort(self.lengths_U[distinct], kind="stable")
        distinct, counts_B = distinct[ascending], counts_B[ascending]
        lengths_B = self.lengths_U[distinct]
        ids = [self._ids[row] for row in distinct]
        return Batch(
            torch.from_numpy(np.concatenate([one[:-1] for one in ids])),
            torch.from_numpy(np.concatenate([one[1:] for one in ids])),
            torch.from_numpy(np.concatenate([np.arange(length) for length in lengths_B])),
            torch.from_numpy(np.repeat(counts_B.astype(np.float32), lengths_B)),
            layout(lengths_B, single_block=single_block),
            int(lengths_B @ counts_B),
            len(rows),
        )


class _Stream(IterableDataset[T]):
    """What a function yields, from its beginning each time."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[T]:
        return self._begin()


class MixedDataModule(pl.LightningDataModule):
    """D_{t-1} split at random into training and validation rows.

    Both parts have the same mixture in expectation: the paper validates on the contaminated set too.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, rng: np.random.Generator) -> None:
        super().__init__()
        if len(dataset) < 2:
            raise ValueError(f"{len(dataset)} example cannot be split into training and validation")
        order = rng.permutation(len(dataset))
        num_validation = config.num_validation_examples(len(dataset))
        number = {text: i for i, text in enumerate(dict.fromkeys(dataset.texts))}
        rows = np.array([number[text] for text in dataset.texts], dtype=np.int64)
        self._expressions = _Expressions(list(number))
        self._train_rows = rows[order[num_validation:]]
        self._validation_rows = rows[order[:num_validation]]
        self._config = config
        self._single_block = config.batching == "padded"
        self._rng = rng

    @property
    def num_train_tokens(self) -> int:
        """Predicted tokens of one epoch, `<eos>` included."""
        return int(self._expressions.lengths_U[self._train_rows].sum())

    @property
    def validation_entropy_nats(self) -> float:
        """Entropy of the validation set taken as a distribution: no model has a lower loss on it."""
        shares = np.unique(self._validation_rows, return_counts=True)[1] / len(self._validation_rows)
        return float(-(shares * np.log(shares)).sum())

    def train_batches(self) -> Iterator[Batch]:
        """One epoch after another without end, each shuffled anew."""
        while True:
            rows = self._rng.permutation(self._train_rows)
            yield from self._expressions.batches(rows, self._config.batch_size, self._single_block)

    def validation_batches(self) -> Iterator[Batch]:
        # No gradients to keep: larger batches are faster and no less exact
        return self._expressions.batches(self._validation_rows, 4 * self._config.batch_size, self._single_block)

    def _stretches(self) -> Iterator[list[Batch]]:
        batches = islice(self.train_batches(), self._config.num_steps)
        while stretch := list(islice(batches, self._config.validate_every)):
            yield stretch

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        """The batches of all optimizer steps, in lists from one validation to the next."""
        return DataLoader(_Stream(self._stretches), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Stream(self.validation_batches), batch_size=None)
