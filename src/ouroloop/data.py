"""The mixed fresh and synthetic dataset as a Lightning data module: split, batched by length, padded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ouroloop.cycle import Dataset
from ouroloop.tokenizer import EOS_ID, encode


class Batch(NamedTuple):
    """Rows of one length class. B rows, L tokens; labels are ids shifted left, -100 on padding."""

    ids_BL: Tensor
    labels_BL: Tensor
    num_tokens: int
    """Labels that are not padding."""


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


class _Batches(IterableDataset[Batch]):
    """Batches of the rows, in epochs that each shuffle anew when `rng` is given, else one fixed pass."""

    def __init__(self, rows: Sequence[npt.NDArray[np.int64]], batch_size: int, rng: np.random.Generator | None):
        self._rows = rows
        self._lengths = np.array([len(row) - 1 for row in rows], dtype=np.int64)
        self._batch_size = batch_size
        self._rng = rng

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rng = self._rng or np.random.default_rng(0)
            for batch in batches_by_length(self._lengths, self._batch_size, rng):
                yield _collate([self._rows[i] for i in batch])
            if self._rng is None:
                return


def _collate(rows: Sequence[npt.NDArray[np.int64]]) -> Batch:
    longest = max(len(row) for row in rows) - 1
    ids_BL = np.full((len(rows), longest), EOS_ID, dtype=np.int64)
    labels_BL = np.full((len(rows), longest), -100, dtype=np.int64)
    for i, row in enumerate(rows):
        ids_BL[i, : len(row) - 1] = row[:-1]
        labels_BL[i, : len(row) - 1] = row[1:]
    num_tokens = sum(len(row) - 1 for row in rows)
    return Batch(torch.from_numpy(ids_BL), torch.from_numpy(labels_BL), num_tokens)


class MixedDataModule(pl.LightningDataModule):
    """D_{t-1} split at random into training and validation rows.

    Both parts have the same mixture in expectation: the paper validates on the contaminated set too.
    The training side never ends; the Trainer stops it by steps.
    """

    def __init__(
        self, dataset: Dataset, *, batch_size: int, validation_fraction: float, rng: np.random.Generator
    ) -> None:
        super().__init__()
        if len(dataset) < 2:
            raise ValueError(f"{len(dataset)} example cannot be split into training and validation")
        order = rng.permutation(len(dataset))
        num_validation = min(max(1, round(validation_fraction * len(dataset))), len(dataset) - 1)
        cache: dict[str, npt.NDArray[np.int64]] = {}
        rows = []
        for text in dataset.texts:
            if text not in cache:
                cache[text] = np.array(encode(text), dtype=np.int64)
            rows.append(cache[text])
        self.train_rows = [rows[i] for i in order[num_validation:]]
        self.validation_rows = [rows[i] for i in order[:num_validation]]
        self._batch_size = batch_size
        self._rng = rng

    @property
    def num_train_tokens(self) -> int:
        """Predicted tokens of one epoch, `<eos>` included."""
        return sum(len(row) - 1 for row in self.train_rows)

    def train_dataloader(self) -> torch.utils.data.DataLoader[Batch]:
        batches = _Batches(self.train_rows, self._batch_size, self._rng)
        return torch.utils.data.DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> torch.utils.data.DataLoader[Batch]:
        # No gradients to keep: larger batches are faster and no less exact
        batches = _Batches(self.validation_rows, 4 * self._batch_size, None)
        return torch.utils.data.DataLoader(batches, batch_size=None)
