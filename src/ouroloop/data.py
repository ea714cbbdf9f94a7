"""The mixed fresh and synthetic dataset as a Lightning data module: split, batched by length, padded."""

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ouroloop.cycle import Dataset
from ouroloop.tokenizer import EOS_ID, encode


class Batch(NamedTuple):
    """Expressions of one length class: B distinct ones, L tokens; labels are ids shifted left, -100 on padding."""

    ids_BL: Tensor
    labels_BL: Tensor
    counts_B: Tensor
    """How often each is in the batch: what a dataset repeats is evaluated once and weighted."""
    num_tokens: int
    """Labels that are not padding, repetitions counted."""
    num_expressions: int
    """Repetitions counted."""


def batches_by_length(
    lengths: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Row indices in batches of similar lengths and about equally many tokens, in random order.

    Every row is in exactly one batch; a batch has `batch_size` rows on average. Rows of equal length
    meet in a new combination each time.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    ends = np.cumsum(lengths[order])
    num_batches = -(-len(lengths) // batch_size)
    batch_of_row = np.minimum((ends - 1) * num_batches // ends[-1], num_batches - 1)
    batches = np.split(order, np.flatnonzero(np.diff(batch_of_row)) + 1)
    return [batches[i] for i in rng.permutation(len(batches))]


def random_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """The plain way: row indices in batches of `batch_size` whatever their lengths, in random order."""
    return np.split(rng.permutation(len(lengths)), range(batch_size, len(lengths), batch_size))


_BATCHINGS = {"length": batches_by_length, "random": random_batches}


class _Expressions:
    """The distinct expressions of a dataset, encoded once: U of them, padded to the longest."""

    def __init__(self, texts: list[str]) -> None:
        encoded = [encode(text) for text in texts]
        self.lengths_U = np.array([len(ids) - 1 for ids in encoded], dtype=np.int64)
        self._ids_UL = np.full((len(texts), self.lengths_U.max()), EOS_ID, dtype=np.int64)
        self._labels_UL = np.full_like(self._ids_UL, -100)
        for row, ids in enumerate(encoded):
            self._ids_UL[row, : len(ids) - 1] = ids[:-1]
            self._labels_UL[row, : len(ids) - 1] = ids[1:]

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        distinct, counts = np.unique(rows, return_counts=True)
        lengths = self.lengths_U[distinct]
        longest = lengths.max()
        return Batch(
            torch.from_numpy(self._ids_UL[distinct, :longest]),
            torch.from_numpy(self._labels_UL[distinct, :longest]),
            torch.from_numpy(counts.astype(np.float32)),
            int(lengths @ counts),
            len(rows),
        )


class _Batches(IterableDataset[Batch]):
    """Batches of the rows, in epochs that each shuffle anew when `rng` is given, else one fixed pass."""

    def __init__(
        self,
        expressions: _Expressions,
        rows: npt.NDArray[np.int64],
        batch_size: int,
        batching: str,
        rng: np.random.Generator | None,
    ) -> None:
        self._expressions, self._rows, self._rng = expressions, rows, rng
        self._batches_of = partial(_BATCHINGS[batching], expressions.lengths_U[rows], batch_size)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            for batch in self._batches_of(self._rng or np.random.default_rng(0)):
                yield self._expressions.batch(self._rows[batch])
            if self._rng is None:
                return


class MixedDataModule(pl.LightningDataModule):
    """D_{t-1} split at random into training and validation rows.

    Both parts have the same mixture in expectation: the paper validates on the contaminated set too.
    The training side never ends; the Trainer stops it by steps.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        batching: Literal["length", "random"] = "length",
        validation_fraction: float,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        if len(dataset) < 2:
            raise ValueError(f"{len(dataset)} example cannot be split into training and validation")
        order = rng.permutation(len(dataset))
        num_validation = min(max(1, round(validation_fraction * len(dataset))), len(dataset) - 1)
        number = {text: i for i, text in enumerate(dict.fromkeys(dataset.texts))}
        rows = np.array([number[text] for text in dataset.texts], dtype=np.int64)
        self._expressions = _Expressions(list(number))
        self._train_rows = rows[order[num_validation:]]
        self._validation_rows = rows[order[:num_validation]]
        self._batch_size = batch_size
        self._batching = batching
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

    def train_dataloader(self) -> DataLoader[Batch]:
        batches = _Batches(self._expressions, self._train_rows, self._batch_size, self._batching, self._rng)
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        # No gradients to keep: larger batches are faster and no less exact
        batches = _Batches(self._expressions, self._validation_rows, 4 * self._batch_size, "length", None)
        return DataLoader(batches, batch_size=None)
