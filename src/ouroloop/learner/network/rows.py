"""How long texts may be, which are computed at once, so that little is padded or wasted; and their padding."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ouroloop.testbed.base import Tokenizer

_MAX_STRETCH = 1.15  # the longest row of a batch over the shortest


def positions(shape: PretrainedConfig) -> int | None:
    """How many positions a model has; None where its configuration names none."""
    found: int | None = getattr(shape.get_text_config(), "max_position_embeddings", None)
    return found


def most_tokens(model: PreTrainedModel, tokenizer: Tokenizer) -> int:
    """How many tokens of a text the model takes, the start symbol counted: what it has positions for, less if texts
    are cut before.
    """
    return min(limit for limit in (positions(model.config), tokenizer.max_tokens) if limit is not None)


def alike(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Batches of rows of similar lengths, as indices of the rows: the shortest first, equally long ones in order."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        is_full = lengths[i] * (len(batch) + 1) > tokens_at_once
        if batch and (is_full or lengths[i] > _MAX_STRETCH * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int] | npt.NDArray[np.int64]], filling: int) -> Tensor:
    """Ids (B, L), filled up on the right, where causality alone keeps the filling out of what counts."""
    ids_BL = np.full((len(rows), max(map(len, rows))), filling)
    for ids_L, ids in zip(ids_BL, rows, strict=True):
        ids_L[: len(ids)] = ids
    return torch.from_numpy(ids_BL)


def cheapest_ranges(count: int, costs: Callable[[int], npt.NDArray[np.number]]) -> list[tuple[int, int]]:
    """Ranges (first, end) that together cover 0 to `count` at the least cost.

    `costs(end)` is the cost of each range that ends there, by where it begins, from 0 on.
    """
    cost, first_of = np.zeros(count + 1), [0]
    for end in range(1, count + 1):
        options = cost[:end] + costs(end)
        first_of.append(int(options.argmin()))
        cost[end] = options[first_of[-1]]
    ranges, end = list[tuple[int, int]](), count
    while end:
        ranges.insert(0, (first_of[end], end))
        end = first_of[end]
    return ranges
