"""S_t: m texts drawn from a model at a stated temperature, with nothing else hidden.

Texts that begin alike are not evaluated twice. The sampler walks the tree of prefixes by length and
keeps one row per distinct prefix with the number of texts that share it. At each step

    1. one forward pass gives every row its distribution over the next token,
    2. the row's count is split over its children by one multinomial draw,
    3. `<eos>` children are finished texts; of the others the first stays in its parent's slot of the
       key-value cache and each further one takes a free slot, so that a row is copied once per branch.

The multinomial split of n equal prefixes is the law of n independent draws: this is plain ancestral
sampling, at the cost of the distinct prefixes only. All rows are equally long, so there is no padding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from ouroloop.config import ConfigError, SamplingConfig
from ouroloop.tokenizer import EOS_ID, VOCABULARY, decode, encode

_FIRST_CAPACITY = 32  # tokens that the cache has room for at first; doubled when they are used up


class SlotLayer(DynamicLayer):
    """Keys and values of one layer in a buffer [slot, head, position, feature] that is written in place."""

    def __init__(self, num_slots: int) -> None:
        super().__init__()
        self._num_slots = num_slots
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
        return like.new_empty(self._num_slots, heads, capacity, features)

    def copy_slots(self, source: Tensor, target: Tensor) -> None:
        """No slot is both a source and a target."""
        for buffer in (self.keys, self.values):
            buffer[target, :, : self._length] = buffer[source, :, : self._length]

    def get_seq_length(self) -> int:
        return self._length


def sample(
    model: PreTrainedModel, count: int, config: SamplingConfig, rng: np.random.Generator, prompt: str = ""
) -> list[str]:
    """`count` independent texts, in random order; `prompt` is the beginning that all of them share.

    A text ends at `<eos>`, which is not part of it, or is cut off after `config.max_new_tokens` words.
    The law is the model's softmax at `config.temperature`: no top-k, no top-p, no penalty. `rng` makes
    every draw; the same rng state on the same machine gives the same texts.

    Raises:
        FloatingPointError: the model gives no finite distribution.
    """
    return sample_with_nats(model, count, config, rng, prompt)[0]


@torch.inference_mode()
def sample_with_nats(
    model: PreTrainedModel, count: int, config: SamplingConfig, rng: np.random.Generator, prompt: str = ""
) -> tuple[list[str], list[float]]:
    """The same texts, and the log-probability in nats with which each of them is drawn, given the prompt.

    It is that of `<eos>` too, unless the text was cut off.
    """
    was_training = model.training
    model.eval()
    try:
        drawn = [
            (text, nats)
            for start in range(0, count, config.batch_size)
            for text, nats, copies in _tree(model, min(config.batch_size, count - start), config, rng, prompt)
            for _ in range(copies)
        ]
    finally:
        model.train(was_training)
    order = rng.permutation(len(drawn))
    return [drawn[i][0] for i in order], [drawn[i][1] for i in order]


@torch.inference_mode()
def require_causal(model: PreTrainedModel) -> None:
    """Checks once what training and sampling take for granted of a model.

    Raises:
        ConfigError: a later token changes what is predicted before it, or the key-value cache changes
            what is predicted at all.
    """
    name = model.config.model_type
    model.eval()
    ids_BL = torch.tensor([[EOS_ID, 5, 2, 1, 6, EOS_ID], [EOS_ID, 5, 2, 0, 4, 3]])
    try:
        logits_BLV = model(input_ids=ids_BL, use_cache=False).logits
        cache = Cache(layers=[SlotLayer(2) for _ in range(model.config.num_hidden_layers)])
        steps = [model(input_ids=ids_BL[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(6)]
    except Exception as error:  # whatever its architecture makes of our cache
        raise ConfigError(f"model {name!r} cannot be sampled with a key-value cache: {type(error).__name__}") from None
    if not torch.allclose(logits_BLV[0, :3], logits_BLV[1, :3], atol=1e-4):
        raise ConfigError(f"model {name!r} is not causal: a later token changes what it predicts before")
    if not torch.allclose(torch.cat(steps, dim=1), logits_BLV, atol=1e-4):
        raise ConfigError(f"model {name!r} predicts something else with a key-value cache")


def _tree(
    model: PreTrainedModel, count: int, config: SamplingConfig, rng: np.random.Generator, prompt: str
) -> Iterator[tuple[str, float, int]]:
    """(text, its log-probability in nats, how often it was drawn)."""
    start = encode(prompt)[:-1]
    cache = Cache(layers=[SlotLayer(count) for _ in range(model.config.num_hidden_layers)])
    prefixes = np.zeros((count, config.max_new_tokens), dtype=np.uint8)
    counts, nats = np.array([count]), np.zeros(1)
    ids_RL = torch.tensor([start], device=model.device)

    def text(row: int | np.integer, length: int) -> str:
        return " ".join(filter(None, [prompt, decode(prefixes[row, :length])]))

    for length in range(config.max_new_tokens):
        logits_RV = model(input_ids=ids_RL, past_key_values=cache, use_cache=True).logits[:, -1]
        children_RV, probabilities_RV = _split(logits_RV, counts, config.temperature, rng)
        for row in np.flatnonzero(children_RV[:, EOS_ID]):
            ends = float(nats[row] + np.log(probabilities_RV[row, EOS_ID]))
            yield text(row, length), ends, int(children_RV[row, EOS_ID])
        children_RV[:, EOS_ID] = 0
        parents, tokens = np.nonzero(children_RV)
        if not len(parents):
            return
        slots = assign_slots(parents)
        moved = np.flatnonzero(slots != parents)
        if len(moved):
            source, target = torch.from_numpy(parents[moved]), torch.from_numpy(slots[moved])
            for layer in cache.layers:
                layer.copy_slots(source.to(model.device), target.to(model.device))
            prefixes[slots[moved], :length] = prefixes[parents[moved], :length]
        prefixes[slots, length] = tokens
        of_children = nats[parents] + np.log(probabilities_RV[parents, tokens])
        counts, nats = np.empty(len(parents), dtype=np.int64), np.empty(len(parents))
        counts[slots], nats[slots] = children_RV[parents, tokens], of_children
        ids_RL = torch.from_numpy(prefixes[: len(parents), length : length + 1].astype(np.int64)).to(model.device)
    for unfinished, copies in enumerate(counts):
        yield text(unfinished, config.max_new_tokens), float(nats[unfinished]), int(copies)


def _split(
    logits_RV: Tensor, counts: npt.NDArray[np.int64], temperature: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """How many of each row's texts go on with each token, and with what probability, both [rows, vocabulary]."""
    probabilities_RV = torch.softmax(logits_RV[:, : len(VOCABULARY)].double() / temperature, dim=-1).cpu().numpy()
    if not np.isfinite(probabilities_RV).all():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    return rng.multinomial(counts, probabilities_RV), probabilities_RV


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
