"""The mixed fresh and synthetic dataset in batches, and what runs a causal LM over them without padding.

    1. a dataset is split at random into training and validation rows, and batched at random,
    2. the tokens of a batch are in one row, one text after another, and everything that treats tokens alone,
       which is nearly all of a transformer, sees that row,
    3. only attention must not look from one text into another: it gets them apart, in blocks of similar length.

So a batch may be any random one. Batches of similar lengths would need no packing, but a model learns worse from them,
and not the same distribution of lengths.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import AttentionInterface, PreTrainedModel

from ouroloop.config import ConfigError, TrainConfig
from ouroloop.errors import reason
from ouroloop.learner.network import targets, world
from ouroloop.learner.network.rows import cheapest_ranges, positions
from ouroloop.learner.network.targets import Ids, Targets
from ouroloop.science.dataset import Dataset, Source
from ouroloop.testbed.base import Tokenizer

_IMPLEMENTATION = "ouroloop_packed"
_BLOCK_COST = 100  # one more block takes as long as attention to this many more tokens of padding


class Layout(NamedTuple):
    """How the N tokens of a batch, in one row, fall into blocks of texts, each padded to its longest: P places."""

    shapes: list[tuple[int, int]]
    """(B, L) of each block."""
    index_P: Tensor
    """Where the token of each place stands in the row; 0 on padding."""
    is_padding_P: Tensor
    back_N: Tensor
    """In which place each token stands."""

    def apart(self, values_P: Tensor) -> Iterator[Tensor]:
        """What is in the places, block by block: (B, L, …)."""
        sizes = [num_texts * length for num_texts, length in self.shapes]
        for shape, values in zip(self.shapes, torch.split(values_P, sizes), strict=True):
            yield values.view(*shape, *values.shape[1:])


def layout(
    lengths_B: npt.NDArray[np.int64],
    *,
    single_block: bool = False,
    longest: int = 0,
    device: torch.device | str = "cpu",
) -> Layout:
    """The layout of texts that stand one after another, in the blocks with the least to compute or in a single one.

    Several blocks take texts of ascending length; a single one is at least as wide as `longest`.
    """

    def costs(end: int) -> npt.NDArray[np.int64]:
        tokens: npt.NDArray[np.int64] = np.arange(end, 0, -1) * lengths_B[end - 1]
        return tokens + _BLOCK_COST

    shapes, indices, are_tokens = list[tuple[int, int]](), list[npt.NDArray[np.int64]](), list[npt.NDArray[np.bool]]()
    starts_B = np.cumsum(lengths_B) - lengths_B
    for first, end in [(0, len(lengths_B))] if single_block else cheapest_ranges(len(lengths_B), costs):
        columns_L = np.arange(max(longest, lengths_B[end - 1]))
        is_token_BL = columns_L < lengths_B[first:end, None]
        shapes.append(is_token_BL.shape)
        indices.append(np.where(is_token_BL, starts_B[first:end, None] + columns_L, 0).ravel())
        are_tokens.append(is_token_BL.ravel())
    is_token_P = np.concatenate(are_tokens)
    places = (np.concatenate(indices), ~is_token_P, np.flatnonzero(is_token_P))
    return Layout(shapes, *(sent(torch.from_numpy(array), device) for array in places))


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Send a tensor to a device, without waiting for what a GPU still has to do."""
    is_gpu = torch.device(device).type == "cuda"
    return tensor.pin_memory().to(device, non_blocking=True) if is_gpu else tensor.to(device)


class _IntoBlocks(torch.autograd.Function):
    """(N, F) to (P, F).

    Torch's own gradient, this way and the other, adds up what has the same index. Nothing here has, but a GPU would
    sort for it.
    """

    @staticmethod
    def forward(ctx: Any, states_NF: Tensor, index_P: Tensor, back_N: Tensor) -> Tensor:
        ctx.save_for_backward(back_N)
        return states_NF.index_select(0, index_P)

    @staticmethod
    def backward(ctx: Any, grad_PF: Tensor) -> tuple[Tensor, None, None]:
        return grad_PF.index_select(0, ctx.saved_tensors[0]), None, None


class _OutOfBlocks(torch.autograd.Function):
    """(P, F) to (N, F)."""

    @staticmethod
    def forward(ctx: Any, states_PF: Tensor, index_P: Tensor, is_padding_P: Tensor, back_N: Tensor) -> Tensor:
        ctx.save_for_backward(index_P, is_padding_P)
        return states_PF.index_select(0, back_N)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None, None]:
        index_P, is_padding_P = ctx.saved_tensors
        return grad_NF.index_select(0, index_P).masked_fill_(is_padding_P[:, None], 0), None, None, None


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each text, as an attention function of transformers; all are (1, heads, N, D)."""
    assert packed is not None
    heads, keys_and_values = query.shape[1], key.shape[1]
    rows = [
        _IntoBlocks.apply(  # type: ignore[no-untyped-call]
            states[0].transpose(0, 1).flatten(1), packed.index_P, packed.back_N
        )
        for states in (query, key, value)
    ]
    attended: list[Tensor] = []
    for parts in zip(*map(packed.apart, rows), strict=True):
        q, k, v = (
            states_BLF.unflatten(2, (count, -1)).transpose(1, 2)
            for states_BLF, count in zip(parts, (heads, keys_and_values, keys_and_values), strict=True)
        )
        out_BHLD = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=heads != keys_and_values
        )
        attended.append(out_BHLD.transpose(1, 2).flatten(0, 1))
    together_PHD = attended[0] if len(attended) == 1 else torch.cat(attended)
    back_NF: Tensor = _OutOfBlocks.apply(  # type: ignore[no-untyped-call]
        together_PHD.flatten(1), packed.index_P, packed.is_padding_P, packed.back_N
    )
    return back_NF.view(1, -1, heads, together_PHD.shape[-1]), None


AttentionInterface.register(_IMPLEMENTATION, _attention)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, only `packed_logits` may be called on this model.

    Raises:
        ConfigError: its architecture lets texts see one another, or has no attention to replace.
    """
    usual = model.config._attn_implementation
    why = ""
    try:
        model.set_attn_implementation(_IMPLEMENTATION)
        why = "" if _keeps_apart(model, usual) else "texts in one row would see one another"
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        why = reason(error)
    try:
        if why:
            raise ConfigError(
                f"model {model.config.model_type!r} cannot be trained packed ({why}); use train.batching=padded"
            )
        yield
    finally:
        model.set_attn_implementation(usual)


@torch.no_grad()
def _keeps_apart(model: PreTrainedModel, usual: str) -> bool:
    """Whether two texts, the longer as long as can be, get the same logits as each gets alone."""
    was_training = model.training
    model.eval()
    lengths_B = np.array([7, min(positions(model.config) or 256, 256)])
    ids_N = torch.arange(lengths_B.sum(), device=model.device) ** 2 % model.config.vocab_size
    positions_N = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths_B])).to(model.device)
    both_NV = packed_logits(model, ids_N, positions_N, layout(lengths_B, device=model.device))
    model.set_attn_implementation(usual)
    alone_NV = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0] for ids in ids_N.split([*lengths_B])])
    model.set_attn_implementation(_IMPLEMENTATION)
    model.train(was_training)
    return torch.allclose(both_NV, alone_NV, rtol=1e-3, atol=1e-4 * max(1.0, float(alone_NV.abs().max())))


def packed_logits(model: PreTrainedModel, ids_N: Tensor, positions_N: Tensor, packed: Layout) -> Tensor:
    """Logits (N, V) of what follows each token, texts not seeing one another."""
    out = model(input_ids=ids_N[None], position_ids=positions_N[None], packed=packed, use_cache=False)
    logits_NV: Tensor = out.logits[0]
    return logits_NV


def padded_logits(model: PreTrainedModel, ids_N: Tensor, packed: Layout) -> Tensor:
    """The same, with each block run through the whole model, padding included, which works for any causal LM."""
    # Rows are padded on the right, so causality alone keeps padding out of every real position
    blocks = packed.apart(ids_N[packed.index_P])
    logits = [model(input_ids=ids_BL, use_cache=False).logits.flatten(0, 1) for ids_BL in blocks]
    return torch.cat(logits)[packed.back_N]


T = TypeVar("T")


class Batch(NamedTuple):
    """Distinct texts in one row of N tokens, one after another; labels are ids shifted left."""

    ids_N: Tensor
    labels_N: Tensor
    positions_N: Tensor
    """Position of each token within its text, from 0."""
    counts_N: Tensor
    """How often the text is in the batch: what a dataset repeats is evaluated once and weighted."""
    lengths_B: tuple[int, ...]
    """Lengths of the texts, ascending; a tuple, since Lightning moves every array to a device. Unit: tokens."""
    num_tokens: int
    """Repetitions counted, and also what other processes have of the batch."""
    num_texts: int
    """Likewise."""
    targets: Targets | None
    """None where each token teaches itself: its label."""


Teach = Callable[[list[Ids]], list[Targets]]
"""Gives texts, as ids, their soft targets."""


class _Texts:
    """The distinct texts of a dataset, encoded once: U of them, some of which may be taught softly.

    A batch is this process's share of one.
    """

    def __init__(self, texts: list[tuple[str, bool]], tokenizer: Tokenizer, teach: Teach | None) -> None:
        self._ids = [np.array(tokenizer.encode(text), dtype=np.int64) for text, _ in texts]
        self.lengths_U = np.array([len(ids) - 1 for ids in self._ids], dtype=np.int64)
        self.is_soft_U = np.array([is_soft for _, is_soft in texts])
        self._targets = dict[int, Targets]()
        if teach is not None and self.is_soft_U.any():
            rows = np.flatnonzero(self.is_soft_U).tolist()
            self._targets = dict(zip(rows, teach([self._ids[row] for row in rows]), strict=True))

    def entropy_nats(self, rows: npt.NDArray[np.int64]) -> float:
        """Entropy of the soft targets of these texts, summed."""
        return sum(self._targets[row].entropy_nats() for row in rows.tolist())

    def batches(self, rows: npt.NDArray[np.int64], size: int) -> Iterator[Batch]:
        for part in np.split(rows, range(size, len(rows), size)):
            yield self._batch(part)

    def _batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        share = rows[world.rank() :: world.size()]
        distinct, counts_B = np.unique(share if len(share) else rows[:1], return_counts=True)
        counts_B *= min(1, len(share))  # fewer texts in the batch than processes: one text, of no weight
        ascending = np.argsort(self.lengths_U[distinct], kind="stable")
        distinct, counts_B = distinct[ascending], counts_B[ascending]
        lengths_B = self.lengths_U[distinct]
        ids = [self._ids[row] for row in distinct]
        return Batch(
            torch.from_numpy(np.concatenate([one[:-1] for one in ids])),
            torch.from_numpy(np.concatenate([one[1:] for one in ids])),
            torch.from_numpy(np.concatenate([np.arange(length) for length in lengths_B])),
            torch.from_numpy(np.repeat(counts_B.astype(np.float32), lengths_B)),
            tuple(lengths_B.tolist()),
            int(self.lengths_U[rows].sum()),
            len(rows),
            self._targets_of(distinct),
        )

    def _targets_of(self, distinct: npt.NDArray[np.int64]) -> Targets | None:
        if not self._targets:
            return None
        width = next(iter(self._targets.values())).tokens_NK.shape[1]
        given = (self._targets.get(row) or targets.of_tokens(self._ids[row][1:], width) for row in distinct.tolist())
        return Targets(*map(torch.cat, zip(*given, strict=True)))


class _Stream(IterableDataset[T]):
    """What a function yields, from its beginning each time."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[T]:
        return self._begin()


class MixedDataModule(pl.LightningDataModule):
    """D_{t-1} split at random into training and validation rows.

    Both parts have the same mixture in expectation: the paper validates on the contaminated set too. `teach` gives the
    texts that models wrote their soft targets.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: Tokenizer,
        config: TrainConfig,
        rng: np.random.Generator,
        teach: Teach | None = None,
    ) -> None:
        super().__init__()
        if len(dataset) < 2:
            raise ValueError(f"{len(dataset)} example cannot be split into training and validation")
        order = rng.permutation(len(dataset))
        num_validation = config.num_validation_examples(len(dataset))
        is_soft = dataset.sources == (Source.SAMPLED if teach else -1)
        examples = list(zip(dataset.texts, is_soft.tolist(), strict=True))
        number = {example: i for i, example in enumerate(dict.fromkeys(examples))}
        rows = np.array([number[example] for example in examples], dtype=np.int64)
        self._texts = _Texts(list(number), tokenizer, teach)
        self._train_rows = rows[order[num_validation:]]
        self._validation_rows = rows[order[:num_validation]]
        self._config = config
        self._rng = rng

    @property
    def validation_floor_nats(self) -> float:
        """A lower bound on any model's loss on the validation set, per text.

        It is the entropy of its texts taken as a distribution and, where they are taught softly, of what they teach.
        """
        is_soft = self._texts.is_soft_U[self._validation_rows]
        hard, soft = self._validation_rows[~is_soft], self._validation_rows[is_soft]
        floor = self._texts.entropy_nats(soft) / len(self._validation_rows)
        if len(hard):
            shares = np.unique(hard, return_counts=True)[1] / len(hard)
            floor += float(-(shares * np.log(shares)).sum()) * (len(hard) / len(self._validation_rows))
        return floor

    def train_steps(self) -> Iterator[list[Batch]]:
        """What each optimizer step sees: at most `accumulate` batches.

        One epoch follows another without end, each shuffled anew.
        """
        size = self._config.batch_size * self._config.accumulate
        while True:
            rows = self._rng.permutation(self._train_rows)
            for step in np.split(rows, range(size, len(rows), size)):
                yield list(self._texts.batches(step, self._config.batch_size))

    def validation_batches(self) -> Iterator[Batch]:
        # No gradients to keep: larger batches are faster and no less exact
        return self._texts.batches(self._validation_rows, 4 * self._config.batch_size)

    def _stretches(self) -> Iterator[list[list[Batch]]]:
        steps = islice(self.train_steps(), self._config.num_steps)
        while stretch := list(islice(steps, self._config.validate_every)):
            yield stretch

    def train_dataloader(self) -> DataLoader[list[list[Batch]]]:
        """All optimizer steps, in lists from one validation to the next."""
        return DataLoader(_Stream(self._stretches), batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        module: Any = self.trainer and self.trainer.lightning_module
        if isinstance(batch, list) and module.graphed is not None:
            return batch  # each step of the stretch is filled up first
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Stream(self.validation_batches), batch_size=None)
