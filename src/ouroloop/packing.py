"""Runs a causal LM over expressions of different lengths without padding.

The tokens of a batch stand in one row, one expression after another, and everything that treats tokens
alone, which is nearly all of a transformer, sees that row. Only attention must not look from one expression
into another: it gets them apart, in blocks of similar length. So a batch may be any random one. Batches
of similar lengths would need no packing, but they learn worse, and not the same distribution of lengths.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from ouroloop.config import ConfigError

_IMPLEMENTATION = "ouroloop_packed"
_BLOCK_COST = 100  # one more block takes as long as attention to so many more tokens of padding


class Layout(NamedTuple):
    """How the N tokens of a batch, in one row, fall into blocks."""

    blocks: list[Tensor]
    """Of B expressions each, padded to the longest: where each token stands in the row, (B, L); 0 on padding."""
    back_N: Tensor
    """Where each token stands in the blocks, flattened and joined."""


def layout(lengths_B: npt.NDArray[np.int64], *, single_block: bool = False) -> Layout:
    """For expressions of ascending length that stand one after another; the blocks with the least to compute."""
    blocks, backs = list[Tensor](), list[npt.NDArray[np.int64]]()
    starts_B = np.cumsum(lengths_B) - lengths_B
    num_places = 0
    for first, end in [(0, len(lengths_B))] if single_block else _ranges(lengths_B):
        columns_L = np.arange(lengths_B[end - 1])
        is_token_BL = columns_L < lengths_B[first:end, None]
        blocks.append(torch.from_numpy(np.where(is_token_BL, starts_B[first:end, None] + columns_L, 0)))
        backs.append(num_places + np.flatnonzero(is_token_BL))
        num_places += is_token_BL.size
    return Layout(blocks, torch.from_numpy(np.concatenate(backs)))


def _ranges(lengths_B: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    cost, first_of = np.zeros(len(lengths_B) + 1), [0]
    for end in range(1, len(lengths_B) + 1):
        costs = cost[:end] + np.arange(end, 0, -1) * lengths_B[end - 1] + _BLOCK_COST
        first_of.append(int(costs.argmin()))
        cost[end] = costs[first_of[-1]]
    ranges, end = list[tuple[int, int]](), len(lengths_B)
    while end:
        ranges.insert(0, (first_of[end], end))
        end = first_of[end]
    return ranges


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
    """Causal attention within each expression, as an attention function of transformers; all are (1, heads, N, D)."""
    assert packed is not None
    heads, keys_and_values = query.shape[1], key.shape[1]
    attended: list[Tensor] = []
    rows = [states[0].transpose(0, 1).flatten(1) for states in (query, key, value)]
    for index_BL in packed.blocks:
        q, k, v = (
            states_NF.index_select(0, index_BL.flatten()).view(*index_BL.shape, count, -1).transpose(1, 2)
            for states_NF, count in zip(rows, (heads, keys_and_values, keys_and_values), strict=True)
        )
        out_BHLD = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=heads != keys_and_values
        )
        attended.append(out_BHLD.transpose(1, 2).flatten(0, 1))
    together = attended[0] if len(attended) == 1 else torch.cat(attended)
    return together.index_select(0, packed.back_N)[None], None


AttentionInterface.register(_IMPLEMENTATION, _attention)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `packed_logits` of this model may be asked, and nothing else.

    Raises:
        ConfigError: its architecture lets expressions see one another, or has no attention to replace.
    """
    usual = model.config._attn_implementation
    why = ""
    try:
        model.set_attn_implementation(_IMPLEMENTATION)
        why = "" if _keeps_apart(model, usual) else "expressions in one row would see one another"
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
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
    """Whether two texts, the longer as long as can be, get the logits that they get by themselves."""
    was_training = model.training
    model.eval()
    lengths_B = np.array([7, min(model.config.max_position_embeddings, 256)])
    ids_N = torch.arange(lengths_B.sum(), device=model.device) ** 2 % model.config.vocab_size
    positions_N = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths_B])).to(model.device)
    both_NV = packed_logits(model, ids_N, positions_N, layout(lengths_B))
    model.set_attn_implementation(usual)
    alone_NV = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0] for ids in ids_N.split([*lengths_B])])
    model.set_attn_implementation(_IMPLEMENTATION)
    model.train(was_training)
    return torch.allclose(both_NV, alone_NV, rtol=1e-3, atol=1e-4)


def packed_logits(model: PreTrainedModel, ids_N: Tensor, positions_N: Tensor, packed: Layout) -> Tensor:
    """Logits (N, V) of what follows each token, expressions not seeing one another."""
    out = model(input_ids=ids_N[None], position_ids=positions_N[None], packed=packed, use_cache=False)
    logits_NV: Tensor = out.logits[0]
    return logits_NV


def padded_logits(model: PreTrainedModel, ids_N: Tensor, packed: Layout) -> Tensor:
    """The same, each block run through all of the model with its padding: what works for any causal LM."""
    # Rows are padded on the right, so causality alone keeps padding out of every real position
    logits = [model(input_ids=ids_N[index_BL], use_cache=False).logits.flatten(0, 1) for index_BL in packed.blocks]
    return torch.cat(logits)[packed.back_N]
