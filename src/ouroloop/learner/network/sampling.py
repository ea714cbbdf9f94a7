"""S_t: m texts drawn from a model at a stated temperature, with nothing else hidden.

Texts that begin alike are not evaluated twice. The sampler walks the tree of prefixes by length and
keeps one row per distinct prefix with the number of texts that share it. At each step

    1. one forward pass gives every row its distribution over the next token,
    2. the row's count is split over its children by one multinomial draw,
    3. `<eos>` children are finished texts; of the others the first stays in its parent's slot of the
       key-value cache and each further one takes a free slot, so that a row is copied once per branch.

The multinomial split of n equal prefixes is the distribution of n independent draws: this is plain ancestral
sampling, at the cost of the distinct prefixes only. All rows are equally long, so there is no padding.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from ouroloop.config import ConfigError, SamplingConfig
from ouroloop.learner.base import Samples
from ouroloop.learner.network.rows import alike, most_tokens, padded
from ouroloop.testbed.base import Array, Tokenizer

_FEW_TOKENS = 1_024  # the largest vocabulary whose tokens' counts are drawn; with more, each text's token is
_SPLIT_AT_ONCE = 2**22  # bounds the memory of many distributions
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


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    count: int,
    config: SamplingConfig,
    rng: np.random.Generator,
    prompt: str = "",
) -> Samples:
    """`count` independent texts, in random order; `prompt` is the beginning that all of them share.

    A text ends at `<eos>`, which is not part of it, or is cut off after `config.max_new_tokens` tokens.
    The distribution is the model's softmax at `config.temperature`, with its least probable tokens cut off as far as
    `config.min_p` says: no top-k, no top-p, no penalty. `rng` makes every draw; the same rng state on the same machine
    gives the same texts. The log-probability of a text is that of drawing it, given the prompt; `<eos>` is included
    unless the text was cut off.

    Raises:
        FloatingPointError: the model gives no finite distribution.
    """
    was_training = model.training
    model.eval()
    start = tokenizer.encode(prompt)[:-1]
    try:
        drawn = [
            (ids, log_p)
            for first in range(0, count, config.batch_size)
            for _, ids, log_p, copies in tree(
                model, tokenizer, [start], np.array([min(config.batch_size, count - first)]), config, rng
            )
            for _ in range(copies)
        ]
    finally:
        model.train(was_training)
    order = rng.permutation(len(drawn))
    texts: dict[tuple[int, ...], str] = {}
    for ids, _ in drawn:
        if ids not in texts:
            texts[ids] = tokenizer.decode([*start[1:], *ids])
    return Samples([texts[drawn[i][0]] for i in order], [drawn[i][1] for i in order])


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
        cache = Cache(layers=[SlotLayer(2) for _ in range(model.config.num_hidden_layers)])
        steps = [model(input_ids=ids_BL[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(6)]
    except Exception as error:  # whatever its architecture makes of our cache
        raise ConfigError(f"model {name!r} cannot be sampled with a key-value cache: {type(error).__name__}") from None
    atol = 1e-4 * max(1.0, float(logits_BLV.abs().max()))  # a trained model's logits are larger, as is their rounding
    if not torch.allclose(logits_BLV[0, :3], logits_BLV[1, :3], atol=atol):
        raise ConfigError(f"model {name!r} is not causal: a later token changes its earlier predictions")
    cached_BLV = torch.cat(steps, dim=1)
    if cached_BLV.shape != logits_BLV.shape or not torch.allclose(cached_BLV, logits_BLV, atol=atol):
        raise ConfigError(f"model {name!r} predicts something else with a key-value cache than without")


def tree(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    starts: Sequence[Sequence[int]],
    counts: npt.NDArray[np.int64],
    config: SamplingConfig,
    rng: np.random.Generator,
) -> Iterator[tuple[int, tuple[int, ...], float, int]]:
    """(which start, token ids after it, their log-probability in nats, how often they were drawn) of each text.

    The starts are distinct and equally long; `counts` says how many texts begin with each.
    """
    eos, count, roots = tokenizer.eos_id, int(counts.sum()), np.arange(len(starts))
    cache = Cache(layers=[SlotLayer(count) for _ in range(model.config.num_hidden_layers)])
    prefixes = np.zeros((count, config.max_new_tokens), dtype=np.min_scalar_type(tokenizer.size))
    log_p = np.zeros(len(starts))
    ids_RL = torch.tensor(starts, device=model.device)
    for length in range(config.max_new_tokens):
        logits_RV = model(input_ids=ids_RL, past_key_values=cache, use_cache=True).logits[:, -1]
        drawn = _split(logits_RV[:, : tokenizer.size], counts, config, rng)
        ends = drawn.tokens == eos
        for row, copies, ended in zip(drawn.rows[ends], drawn.copies[ends], drawn.log_p[ends], strict=True):
            yield int(roots[row]), tuple(prefixes[row, :length].tolist()), float(log_p[row] + ended), int(copies)
        parents, tokens = drawn.rows[~ends], drawn.tokens[~ends]
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
        inherited = (drawn.copies[~ends], log_p[parents] + drawn.log_p[~ends], roots[parents])
        counts, log_p, roots = (of_child[np.argsort(slots)] for of_child in inherited)
        for layer in cache.layers:
            layer.num_slots = int(counts.sum())
        ids_RL = torch.from_numpy(prefixes[: len(parents), length : length + 1].astype(np.int64)).to(model.device)
    for unfinished, copies in enumerate(counts):
        yield int(roots[unfinished]), tuple(prefixes[unfinished].tolist()), float(log_p[unfinished]), int(copies)


class _Drawn(NamedTuple):
    """Tokens that rows go on with, by row and token; how many texts do, and how probable that is, given the row."""

    rows: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    copies: npt.NDArray[np.int64]
    log_p: Array


def _split(
    logits_RV: Tensor, counts: npt.NDArray[np.int64], config: SamplingConfig, rng: np.random.Generator
) -> _Drawn:
    if logits_RV.shape[1] > _FEW_TOKENS:
        return _split_by_text(logits_RV, counts, config, rng)
    probabilities_RV = _distributions(logits_RV, config).cpu().numpy()
    copies_RV = rng.multinomial(counts, probabilities_RV)
    rows, tokens = np.nonzero(copies_RV)
    return _Drawn(rows, tokens, copies_RV[rows, tokens], np.log(probabilities_RV[rows, tokens]))


def _split_by_text(
    logits_RV: Tensor, counts: npt.NDArray[np.int64], config: SamplingConfig, rng: np.random.Generator
) -> _Drawn:
    """Draw from the same distribution by a number in [0, 1) for each text and the row's cumulative probabilities.

    A multinomial draw would have to ask for every one of many tokens how many texts take it.
    """
    num_tokens, parts = logits_RV.shape[1], list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]]()
    numbers = np.split(rng.random(counts.sum()), np.cumsum(counts)[:-1])
    size = max(1, _SPLIT_AT_ONCE // num_tokens)
    for first in range(0, len(counts), size):
        own = counts[first : first + size]
        is_text_RK = np.arange(own.max()) < own[:, None]
        numbers_RK = np.zeros(is_text_RK.shape)
        numbers_RK[is_text_RK] = np.concatenate(numbers[first : first + size])
        probabilities_RV = _distributions(logits_RV[first : first + size], config)
        up_to_RV = probabilities_RV.cumsum(-1)
        wanted_RK = torch.from_numpy(numbers_RK).to(up_to_RV.device) * up_to_RV[:, -1:]
        tokens_RK = torch.searchsorted(up_to_RV, wanted_RK, right=True).clamp_(max=num_tokens - 1)
        log_p_RK = probabilities_RV.gather(1, tokens_RK).log()
        rows, _ = np.nonzero(is_text_RK)
        parts.append((first + rows, tokens_RK.cpu().numpy()[is_text_RK], log_p_RK.cpu().numpy()[is_text_RK]))
    rows, tokens, log_p = (np.concatenate(part) for part in zip(*parts, strict=True))
    keys, index, copies = np.unique(rows * num_tokens + tokens, return_index=True, return_counts=True)
    return _Drawn(keys // num_tokens, keys % num_tokens, copies, log_p[index])


def _distributions(logits_RV: Tensor, config: SamplingConfig) -> Tensor:
    if config.min_p:
        probabilities_RV = _steps(logits_RV, config.temperature, config.min_p).exp()
    else:  # not the exponential of the logarithm, whose last bits differ
        probabilities_RV = torch.softmax(_doubled(logits_RV) / config.temperature, dim=-1)
    if not torch.isfinite(probabilities_RV).all():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    return probabilities_RV


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


_TOKENS_AT_ONCE = 16_384  # bounds the memory of a forward pass
_MANY = 10_000  # texts above which it pays to share prefixes
_TEXTS_AT_ONCE = 1_024  # bounds the memory of the key-value cache
_SCORES_AT_ONCE = 2**25  # logits: bounds the memory of a forward pass's output where the vocabulary is large


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    temperatures: Sequence[float] = (1.0,),
    min_p: float = 0.0,
) -> Array:
    """Log-probability of each text, its `<eos>` included: that of `sample` writing just this text and ending it.

    In nats, [temperature, text]. Batches are of similar lengths, so little is padded; a text that occurs twice is
    evaluated once. Very many texts share the evaluation of their prefixes. What `min_p` cuts has -inf.

    Raises:
        KeyError: a word that the tokenizer does not have.
        ValueError: a text that the model has no positions for.
        FloatingPointError: the model gives no finite distribution.
    """
    rows: dict[str, list[int]] = {text: tokenizer.encode(text) for text in texts}
    longest, limit = max(map(len, rows.values()), default=1) - 1, most_tokens(model, tokenizer)
    if longest > limit:
        raise ValueError(f"a text of {longest - 1} words does not fit a model with {limit} positions")
    was_training = model.training
    model.eval()
    try:
        if len(texts) > _MANY:
            return _of_tree(model, tokenizer, texts, temperatures, min_p)
        log_p: dict[str, list[float]] = {}
        ordered, at_once = sorted(rows), min(_TOKENS_AT_ONCE, _SCORES_AT_ONCE // tokenizer.size)
        for batch in alike([len(rows[text]) for text in ordered], at_once):
            chosen = [ordered[i] for i in batch]
            scores = _score(model, tokenizer, [rows[text] for text in chosen], temperatures, min_p)
            log_p |= zip(chosen, scores, strict=True)
    finally:
        model.train(was_training)
    return np.array([log_p[text] for text in texts], dtype=np.float64).reshape(len(texts), len(temperatures)).T


def _score(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    min_p: float,
) -> list[list[float]]:
    ids_BL = padded(rows, tokenizer.eos_id)
    is_text_BL = torch.arange(ids_BL.shape[1]) < torch.tensor([len(ids) for ids in rows])[:, None]
    logits_BLV = _doubled(
        model(input_ids=ids_BL[:, :-1].to(model.device), use_cache=False).logits[..., : tokenizer.size]
    )
    ids_BL, is_text_BL = ids_BL.to(logits_BLV.device), is_text_BL.to(logits_BLV.device)
    log_p_TB = []
    for temperature in temperatures:
        log_p_BL = _steps(logits_BLV, temperature, min_p).gather(-1, ids_BL[:, 1:, None]).squeeze(-1)
        log_p_TB.append(log_p_BL.where(is_text_BL[:, 1:], 0.0).sum(dim=1))
    values: list[list[float]] = _finite(torch.stack(log_p_TB, dim=1)).cpu().tolist()
    return values


def _steps(logits: Tensor, temperature: float, min_p: float) -> Tensor:
    """Log-probabilities of the next token; -inf for tokens that are cut off, whose mass the others share."""
    log_p = torch.log_softmax(_doubled(logits) / temperature, dim=-1)
    if min_p == 0:
        return log_p
    is_cut = log_p < log_p.max(dim=-1, keepdim=True).values + np.log(min_p)
    return torch.log_softmax(log_p.masked_fill(is_cut, -torch.inf), dim=-1)


def _doubled(logits: Tensor) -> Tensor:
    """Logits in double precision; those on Apple's GPUs, which do not have it, move to the CPU."""
    return (logits.cpu() if logits.device.type == "mps" else logits).double()


def _finite(log_p: Tensor) -> Tensor:
    """The same, which must be finite, or -inf where a token was cut off."""
    if torch.isnan(log_p).any():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    return log_p


def _of_tree(
    model: PreTrainedModel, tokenizer: Tokenizer, texts: Sequence[str], temperatures: Sequence[float], min_p: float
) -> Array:
    """Evaluate each distinct prefix once, level by level, as when sampling.

    For all expressions of depth 3 that is a fifth of the tokens.
    """
    rows = [tokenizer.encode(text)[1:] for text in texts]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    log_p = np.empty((len(temperatures), len(rows)))
    at_once = min(_TEXTS_AT_ONCE, _SCORES_AT_ONCE // tokenizer.size)
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        log_p[:, chosen] = _tree_log_probs(model, tokenizer, [rows[i] for i in chosen], temperatures, min_p)
    return log_p


def _tree_log_probs(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    min_p: float,
) -> Array:
    size = tokenizer.size
    lengths = np.array([len(row) for row in rows])
    ids_NL = padded(rows, tokenizer.eos_id).numpy()
    cache = Cache(layers=[SlotLayer(len(rows)) for _ in range(model.config.num_hidden_layers)])
    log_p = np.zeros((len(temperatures), len(rows)))
    live, slots = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)  # of the text's prefix
    ids_RL = torch.tensor([[tokenizer.start_id]], device=model.device)
    for length in range(ids_NL.shape[1]):
        logits_RV = model(input_ids=ids_RL, past_key_values=cache, use_cache=True).logits[:, -1]
        for of_temperature, temperature in zip(log_p, temperatures, strict=True):
            steps_RV = _finite(_steps(logits_RV[:, :size], temperature, min_p)).cpu().numpy()
            of_temperature[live] += steps_RV[slots[live], ids_NL[live, length]]
        live = live[lengths[live] > length + 1]
        if not len(live):
            break
        branches, branch = np.unique(slots[live] * size + ids_NL[live, length], return_inverse=True)
        parents, tokens = np.divmod(branches, size)
        slot_of_branch = assign_slots(parents)
        moved = slot_of_branch != parents
        source, target = torch.from_numpy(parents[moved]), torch.from_numpy(slot_of_branch[moved])
        for layer in cache.layers:
            layer.copy_slots(source.to(model.device), target.to(model.device))
            layer.num_slots = len(live)
        next_ids = np.empty(len(parents), dtype=np.int64)
        next_ids[slot_of_branch] = tokens
        slots[live] = slot_of_branch[branch]
        ids_RL = torch.from_numpy(next_ids[:, None]).to(model.device)
    return log_p
