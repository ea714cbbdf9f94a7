"""How probable a model finds a text: the exact counterpart of `sample.py`, which draws from the same law."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ouroloop.sample import SlotLayer, assign_slots
from ouroloop.tokenizer import EOS_ID, VOCABULARY, encode

_TOKENS_AT_ONCE = 16_384  # bounds the memory of a forward pass
_MAX_STRETCH = 1.15  # of the shortest row of a batch, to the longest
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
def log_probabilities_at(model: PreTrainedModel, texts: Sequence[str], temperatures: Sequence[float]) -> Nats:
    """The same at several temperatures, [temperature, text].

    Batches are of similar lengths, so little is padded; a text that stands twice is evaluated once.
    """
    rows: dict[str, list[int]] = {text: encode(text) for text in texts}
    longest, limit = max(map(len, rows.values()), default=1) - 1, model.config.max_position_embeddings
    if longest > limit:
        raise ValueError(f"a text of {longest - 1} words does not fit a model with {limit} positions")
    was_training = model.training
    model.eval()
    nats: dict[str, list[float]] = {}
    try:
        for batch in _batches(rows):
            nats |= zip(batch, _score(model, [rows[text] for text in batch], temperatures), strict=True)
    finally:
        model.train(was_training)
    return np.array([nats[text] for text in texts], dtype=np.float64).reshape(len(texts), len(temperatures)).T


def _batches(rows: Mapping[str, Sequence[int]]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in sorted(rows, key=lambda text: (len(rows[text]), text)):
        length = len(rows[text])
        if batch and (length * (len(batch) + 1) > _TOKENS_AT_ONCE or length > _MAX_STRETCH * len(rows[batch[0]])):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _score(model: PreTrainedModel, rows: Sequence[Sequence[int]], temperatures: Sequence[float]) -> list[list[float]]:
    ids_BL = torch.full((len(rows), max(map(len, rows))), EOS_ID)
    is_text_BL = torch.zeros(ids_BL.shape, dtype=torch.bool)
    for i, ids in enumerate(rows):  # padded on the right, where causality alone keeps it out of what counts
        ids_BL[i, : len(ids)] = torch.tensor(ids)
        is_text_BL[i, : len(ids)] = True
    ids_BL, is_text_BL = ids_BL.to(model.device), is_text_BL.to(model.device)
    logits_BLV = model(input_ids=ids_BL[:, :-1], use_cache=False).logits
    nats_TB = []
    for temperature in temperatures:
        nats_BL = _steps(logits_BLV, temperature).gather(-1, ids_BL[:, 1:, None]).squeeze(-1)
        nats_TB.append(nats_BL.where(is_text_BL[:, 1:], 0.0).sum(dim=1))
    values: list[list[float]] = _finite(torch.stack(nats_TB, dim=1)).cpu().tolist()
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
    cache = Cache(layers=[SlotLayer(len(rows)) for _ in range(model.config.num_hidden_layers)])
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
        slot_of_branch = assign_slots(parents)
        moved = slot_of_branch != parents
        source, target = torch.from_numpy(parents[moved]), torch.from_numpy(slot_of_branch[moved])
        for layer in cache.layers:
            layer.copy_slots(source.to(model.device), target.to(model.device))
        next_ids = np.empty(len(parents), dtype=np.int64)
        next_ids[slot_of_branch] = tokens
        slots[live] = slot_of_branch[branch]
        ids_RL = torch.from_numpy(next_ids[:, None]).to(model.device)
    return nats
