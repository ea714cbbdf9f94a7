"""How probable a model finds a text: the exact counterpart of `sample.py`, which draws from the same law."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ouroloop.sample import _assign_slots, _SlotLayer
from ouroloop.tokenizer import EOS_ID, VOCABULARY, encode

_TOKENS_AT_ONCE = 16_384  # bounds the memory of a forward pass
_TEXTS_AT_ONCE = 1_024  # bounds the memory of the key-value cache

Nats = npt.NDArray[np.float64]


def log_probabilities(model: PreTrainedModel, texts: Sequence[str], temperature: float = 1.0) -> Nats:
    """The log-probability in nats of each text, its `<eos>` included: of `sample` writing just this text.

    Raises:
        KeyError: a word outside the alphabet.
        ValueError: a text that the model has no positions for.
        FloatingPointError: the model gives no finite distribution.
    """
    nats: Nats = log_probabilities_at(model, texts, [temperature])[0]
    return nats


@torch.inference_mode()
def log_probabilities_at(
    model: PreTrainedModel, texts: Sequence[str], temperatures: Sequence[float], cut_at: int | None = None
) -> Nats:
    """The same at several temperatures, [temperature, text]; a text of `cut_at` words was cut off before `<eos>`.

    Rows of a batch are equally long, so nothing is padded; a text that stands twice is evaluated once.
    """
    by_length: dict[int, dict[str, list[int]]] = defaultdict(dict)
    for text in texts:
        ids = encode(text)
        if len(ids) - 2 == cut_at:
            ids.pop()
        by_length[len(ids) - 1][text] = ids
    longest, limit = max(by_length, default=0), model.config.max_position_embeddings
    if longest > limit:
        raise ValueError(f"a text of {longest - 1} words does not fit a model with {limit} positions")
    was_training = model.training
    model.eval()
    nats: dict[str, list[float]] = {}
    try:
        for length, rows in sorted(by_length.items()):
            distinct, size = sorted(rows), max(1, _TOKENS_AT_ONCE // length)
            for batch in (distinct[start : start + size] for start in range(0, len(distinct), size)):
                ids_BL = torch.tensor([rows[text] for text in batch], device=model.device)
                nats |= zip(batch, _score(model, ids_BL, temperatures), strict=True)
    finally:
        model.train(was_training)
    return np.array([nats[text] for text in texts], dtype=np.float64).reshape(len(texts), len(temperatures)).T


def _score(model: PreTrainedModel, ids_BL: Tensor, temperatures: Sequence[float]) -> list[list[float]]:
    logits_BLV = model(input_ids=ids_BL[:, :-1], use_cache=False).logits
    nats_BT = torch.stack(
        [_steps(logits_BLV, t).gather(-1, ids_BL[:, 1:, None]).sum(dim=(1, 2)) for t in temperatures], dim=1
    )
    values: list[list[float]] = _finite(nats_BT).cpu().tolist()
    return values


def _steps(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits[..., : len(VOCABULARY)].double() / temperature, dim=-1)


def _finite(nats: Tensor) -> Tensor:
    if not torch.isfinite(nats).all():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    return nats


@torch.inference_mode()
def log_probabilities_of_tree(model: PreTrainedModel, texts: Sequence[str], temperatures: Sequence[float]) -> Nats:
    """What `log_probabilities_at` gives, for very many distinct texts that begin alike.

    Each distinct prefix is evaluated once, level by level, as when sampling: a fifth of the tokens of all
    expressions of depth 3. `model` must be in evaluation mode.
    """
    rows = [encode(text)[1:] for text in texts]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    nats = np.empty((len(temperatures), len(rows)))
    for start in range(0, len(order), _TEXTS_AT_ONCE):
        chosen = order[start : start + _TEXTS_AT_ONCE]
        nats[:, chosen] = _tree(model, [rows[i] for i in chosen], temperatures)
    return nats


def _tree(model: PreTrainedModel, rows: Sequence[Sequence[int]], temperatures: Sequence[float]) -> Nats:
    lengths = np.array([len(row) for row in rows])
    ids_NL = np.full((len(rows), lengths.max()), EOS_ID)
    for row, ids in zip(ids_NL, rows, strict=True):
        row[: len(ids)] = ids
    cache = Cache(layers=[_SlotLayer(len(rows)) for _ in range(model.config.num_hidden_layers)])
    nats = np.zeros((len(temperatures), len(rows)))
    live, slots = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)  # of the text's prefix
    ids_RL = torch.tensor([[EOS_ID]], device=model.device)
    for length in range(ids_NL.shape[1]):
        logits_RV = model(input_ids=ids_RL, past_key_values=cache, use_cache=True).logits[:, -1]
        for of_temperature, temperature in zip(nats, temperatures, strict=True):
            steps_RV = _finite(_steps(logits_RV, temperature)).cpu().numpy()
            of_temperature[live] += steps_RV[slots[live], ids_NL[live, length]]
        live = live[lengths[live] > length + 1]
        if not len(live):
            break
        branches, branch = np.unique(slots[live] * len(VOCABULARY) + ids_NL[live, length], return_inverse=True)
        parents, tokens = np.divmod(branches, len(VOCABULARY))
        slot_of_branch = _assign_slots(parents)
        moved = slot_of_branch != parents
        source, target = torch.from_numpy(parents[moved]), torch.from_numpy(slot_of_branch[moved])
        for layer in cache.layers:
            layer.copy_slots(source.to(model.device), target.to(model.device))
        next_ids = np.empty(len(parents), dtype=np.int64)
        next_ids[slot_of_branch] = tokens
        slots[live] = slot_of_branch[branch]
        ids_RL = torch.from_numpy(next_ids[:, None]).to(model.device)
    return nats
