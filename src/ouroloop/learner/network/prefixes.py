"""A tree of prefixes, walked by length: a row for each distinct one, in a slot of the key-value cache.

The first child of a row stays in its parent's slot and each further one takes a free slot, so that a row is copied once
per branch. All rows are equally long, so there is no padding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from ouroloop.config import ConfigError
from ouroloop.testbed.base import Tokenizer

_FIRST_CAPACITY = 32  # tokens that the cache has room for at first; doubled when they are used up


class SlotLayer(DynamicLayer):
    """Keys and values of one layer in a buffer [slot, head, position, feature] that is written in place.

    `num_slots` is how many rows there can be from now on. It is read when the buffer grows: few texts are long, so most
    of a long buffer with a slot for every text would never be used.
    """

    def __init__(self, num_slots: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self._length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, _, added, _ = key_states.shape
        end = self._length + added
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            capacity = max(_FIRST_CAPACITY, end)
            self.keys, self.values = self._empty(key_states, capacity), self._empty(value_states, capacity)
        elif end > self.keys.shape[2]:
            for name in ("keys", "values"):
                old = getattr(self, name)
                grown = self._empty(old, 2 * old.shape[2])
                grown[:rows, :, : self._length] = old[:rows, :, : self._length]
                setattr(self, name, grown)
        self.keys[:rows, :, self._length : end] = key_states
        self.values[:rows, :, self._length : end] = value_states
        self._length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def _empty(self, like: Tensor, capacity: int) -> Tensor:
        _, heads, _, features = like.shape
        return like.new_empty(self.num_slots, heads, capacity, features)

    def copy_slots(self, source: Tensor, target: Tensor) -> None:
        """Copy slots, none of which is both a source and a target."""
        for buffer in (self.keys, self.values):
            buffer[target, :, : self._length] = buffer[source, :, : self._length]

    def get_seq_length(self) -> int:
        return self._length


def cache_of(model: PreTrainedModel, num_slots: int) -> Cache:
    return Cache(layers=[SlotLayer(num_slots) for _ in range(model.config.num_hidden_layers)])


def branch(cache: Cache, parents: npt.NDArray[np.int64], num_slots: int, device: torch.device) -> npt.NDArray[np.int64]:
    """The slot of every child, which then holds what its parent's does; see `assign_slots` for `parents`.

    `num_slots` is how many rows there can be from now on.
    """
    slots = assign_slots(parents)
    moved = slots != parents
    source, target = (torch.from_numpy(of_child[moved]).to(device) for of_child in (parents, slots))
    for layer in cache.layers:
        if len(source):
            layer.copy_slots(source, target)
        layer.num_slots = num_slots
    return slots


def assign_slots(parents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A slot below len(parents) for every child; `parents` is sorted, one entry per child.

    A parent's first child keeps its slot unless that lies too high; all others take free slots, in
    ascending order. No target is the slot of any parent that lives on, so copies cannot collide.
    """
    num_children = len(parents)
    slots = np.where(np.diff(parents, prepend=-1) != 0, parents, num_children)
    moving = slots >= num_children
    is_free = np.ones(num_children, dtype=bool)
    is_free[slots[~moving]] = False
    slots[moving] = np.flatnonzero(is_free)
    return slots


@torch.inference_mode()
def require_causal(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Check once what training and sampling take for granted about a model.

    Raises:
        ConfigError: a later token changes what is predicted before it, or the key-value cache changes
            what is predicted at all.
    """
    name = model.config.model_type
    model.eval()
    start, eos, size = tokenizer.start_id, tokenizer.eos_id, tokenizer.size
    ids_BL = torch.tensor([[start, 5, 2, 1, 6, eos], [start, 5, 2, 0, 4, 3]]) % size
    try:
        logits_BLV = model(input_ids=ids_BL, use_cache=False).logits
        cache = cache_of(model, 2)
        steps = [model(input_ids=ids_BL[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(6)]
    except Exception as error:  # whatever its architecture makes of our cache
        raise ConfigError(f"model {name!r} cannot be sampled with a key-value cache: {type(error).__name__}") from None
    atol = 1e-4 * max(1.0, float(logits_BLV.abs().max()))  # a trained model's logits are larger, as is their rounding
    if not torch.allclose(logits_BLV[0, :3], logits_BLV[1, :3], atol=atol):
        raise ConfigError(f"model {name!r} is not causal: a later token changes its earlier predictions")
    cached_BLV = torch.cat(steps, dim=1)
    if cached_BLV.shape != logits_BLV.shape or not torch.allclose(cached_BLV, logits_BLV, atol=atol):
        raise ConfigError(f"model {name!r} predicts something else with a key-value cache than without")
