"""The mixed fresh and synthetic dataset as a Lightning data module: split, batched at random."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ouroloop.cycle import Dataset
from ouroloop.packing import Layout, layout
from ouroloop.tokenizer import encode


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

    def batch(self, rows: npt.NDArray[np.int64], single_block: bool) -> Batch:
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


class _Batches(IterableDataset[Batch]):
    """Batches of the rows, in epochs that each shuffle anew when `rng` is given, else one fixed pass."""

    def __init__(
        self,
        expressions: _Expressions,
        rows: npt.NDArray[np.int64],
        batch_size: int,
        single_block: bool,
        rng: np.random.Generator | None,
    ) -> None:
        self._expressions, self._rows, self._rng = expressions, rows, rng
        self._batch_size, self._single_block = batch_size, single_block

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows = self._rows if self._rng is None else self._rng.permutation(self._rows)
            for batch in np.split(rows, range(self._batch_size, len(rows), self._batch_size)):
                yield self._expressions.batch(batch, self._single_block)
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
        batching: Literal["packed", "padded"] = "packed",
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
        self._single_block = batching == "padded"
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
        batches = _Batches(self._expressions, self._train_rows, self._batch_size, self._single_block, self._rng)
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        # No gradients to keep: larger batches are faster and no less exact
        batches = _Batches(self._expressions, self._validation_rows, 4 * self._batch_size, self._single_block, None)
        return DataLoader(batches, batch_size=None)
