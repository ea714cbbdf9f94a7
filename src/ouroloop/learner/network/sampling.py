"""S_t: m texts drawn from a model at a stated temperature, with nothing else hidden.

Texts that begin alike are not evaluated twice. The sampler walks the tree of prefixes by length and
keeps one row per distinct prefix with the number of texts that share it. At each step

    1. one forward pass gives every row its distribution over the next token,
    2. the row's count is split over its children by one multinomial draw,
    3. `<eos>` children are finished texts; each of the others has its slot of the key-value cache.

The multinomial split of n equal prefixes is the distribution of n independent draws: this is plain ancestral
sampling, at the cost of the distinct prefixes only.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.base import Samples
from ouroloop.learner.network.model import evaluating
from ouroloop.learner.network.next_token import probabilities
from ouroloop.learner.network.prefixes import branch, cache_of
from ouroloop.testbed.base import Array, Tokenizer

_FEW_TOKENS = 1_024  # the largest vocabulary whose tokens' counts are drawn; with more, each text's token is
_SPLIT_AT_ONCE = 2**22  # bounds the memory of many distributions


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
    start = tokenizer.encode(prompt)[:-1]
    with evaluating(model):
        drawn = [
            (ids, log_p)
            for first in range(0, count, config.batch_size)
            for _, ids, log_p, copies in tree(
                model, tokenizer, [start], np.array([min(config.batch_size, count - first)]), config, rng
            )
            for _ in range(copies)
        ]
    order = rng.permutation(len(drawn))
    texts: dict[tuple[int, ...], str] = {}
    for ids, _ in drawn:
        if ids not in texts:
            texts[ids] = tokenizer.decode([*start[1:], *ids])
    return Samples([texts[drawn[i][0]] for i in order], [drawn[i][1] for i in order])


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
    cache = cache_of(model, count)
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
        slots = branch(cache, parents, int(drawn.copies[~ends].sum()), model.device)
        moved = slots != parents
        prefixes[slots[moved], :length] = prefixes[parents[moved], :length]
        prefixes[slots, length] = tokens
        inherited = (drawn.copies[~ends], log_p[parents] + drawn.log_p[~ends], roots[parents])
        counts, log_p, roots = (of_child[np.argsort(slots)] for of_child in inherited)
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
    probabilities_RV = probabilities(logits_RV, config).cpu().numpy()
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
        probabilities_RV = probabilities(logits_RV[first : first + size], config)
        up_to_RV = probabilities_RV.cumsum(-1)
        wanted_RK = torch.from_numpy(numbers_RK).to(up_to_RV.device) * up_to_RV[:, -1:]
        tokens_RK = torch.searchsorted(up_to_RV, wanted_RK, right=True).clamp_(max=num_tokens - 1)
        log_p_RK = probabilities_RV.gather(1, tokens_RK).log()
        rows, _ = np.nonzero(is_text_RK)
        parts.append((first + rows, tokens_RK.cpu().numpy()[is_text_RK], log_p_RK.cpu().numpy()[is_text_RK]))
    rows, tokens, log_p = (np.concatenate(part) for part in zip(*parts, strict=True))
    keys, index, copies = np.unique(rows * num_tokens + tokens, return_index=True, return_counts=True)
    return _Drawn(keys // num_tokens, keys % num_tokens, copies, log_p[index])
