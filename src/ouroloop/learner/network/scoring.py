"""How probable a model finds given texts: what `sampling` would draw, without drawing it."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ouroloop.learner.network import next_token
from ouroloop.learner.network.model import evaluating
from ouroloop.learner.network.next_token import doubled, finite
from ouroloop.learner.network.prefixes import branch, cache_of
from ouroloop.learner.network.rows import alike, most_tokens, padded
from ouroloop.testbed.base import Array, Tokenizer

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
    with evaluating(model):
        if len(texts) > _MANY:
            return _of_tree(model, tokenizer, texts, temperatures, min_p)
        log_p: dict[str, list[float]] = {}
        ordered, at_once = sorted(rows), min(_TOKENS_AT_ONCE, _SCORES_AT_ONCE // tokenizer.size)
        for batch in alike([len(rows[text]) for text in ordered], at_once):
            chosen = [ordered[i] for i in batch]
            scores = _score(model, tokenizer, [rows[text] for text in chosen], temperatures, min_p)
            log_p |= zip(chosen, scores, strict=True)
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
    logits_BLV = doubled(
        model(input_ids=ids_BL[:, :-1].to(model.device), use_cache=False).logits[..., : tokenizer.size]
    )
    ids_BL, is_text_BL = ids_BL.to(logits_BLV.device), is_text_BL.to(logits_BLV.device)
    log_p_TB = []
    for temperature in temperatures:
        steps_BLV = next_token.log_probabilities(logits_BLV, temperature, min_p)
        log_p_BL = steps_BLV.gather(-1, ids_BL[:, 1:, None]).squeeze(-1)
        log_p_TB.append(log_p_BL.where(is_text_BL[:, 1:], 0.0).sum(dim=1))
    values: list[list[float]] = finite(torch.stack(log_p_TB, dim=1)).cpu().tolist()
    return values


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
    cache = cache_of(model, len(rows))
    log_p = np.zeros((len(temperatures), len(rows)))
    live, slots = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)  # of the text's prefix
    ids_RL = torch.tensor([[tokenizer.start_id]], device=model.device)
    for length in range(ids_NL.shape[1]):
        logits_RV = model(input_ids=ids_RL, past_key_values=cache, use_cache=True).logits[:, -1]
        for of_temperature, temperature in zip(log_p, temperatures, strict=True):
            steps_RV = finite(next_token.log_probabilities(logits_RV[:, :size], temperature, min_p)).cpu().numpy()
            of_temperature[live] += steps_RV[slots[live], ids_NL[live, length]]
        live = live[lengths[live] > length + 1]
        if not len(live):
            break
        branches, branch_of = np.unique(slots[live] * size + ids_NL[live, length], return_inverse=True)
        parents, tokens = np.divmod(branches, size)
        slot_of_branch = branch(cache, parents, len(live), model.device)
        next_ids = np.empty(len(parents), dtype=np.int64)
        next_ids[slot_of_branch] = tokens
        slots[live] = slot_of_branch[branch_of]
        ids_RL = torch.from_numpy(next_ids[:, None]).to(model.device)
    return log_p
