"""Token-level editing: texts whose most predictable tokens a model writes anew."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from ouroloop.learner.network.model import evaluating
from ouroloop.learner.network.rows import most_tokens, padded
from ouroloop.testbed.base import Array, Tokenizer

_AT_ONCE = 64  # texts of a forward pass


@torch.inference_mode()
def edit(
    model: PreTrainedModel, tokenizer: Tokenizer, texts: Sequence[str], threshold: float, rng: np.random.Generator
) -> list[str]:
    """Each text with every token drawn anew that is at least `threshold` probable after the text's own beginning.

    At temperature 1. The end stays where it is: no token becomes `<eos>`. A text none of whose tokens turns out another
    stays as it is, letter by letter; so does one without tokens, or with more than the model takes.
    """
    edited, limit = list(texts), most_tokens(model, tokenizer)
    rows = {i: np.array(tokenizer.encode(text)) for i, text in enumerate(texts)}
    whole = (i for i, ids in rows.items() if 2 < len(ids) <= limit and ids[-1] == tokenizer.eos_id)
    order = sorted(whole, key=lambda i: (len(rows[i]), i))
    with evaluating(model):
        for start in range(0, len(order), _AT_ONCE):
            batch = order[start : start + _AT_ONCE]
            ids_BL = padded([rows[i] for i in batch], tokenizer.eos_id)
            logits_BLV = model(input_ids=ids_BL[:, :-1].to(model.device), use_cache=False).logits.cpu()
            p_BLV = torch.softmax(logits_BLV[..., : tokenizer.size].double(), dim=-1).numpy()
            for p_LV, i in zip(p_BLV, batch, strict=True):
                words = rows[i][1:-1]
                redrawn = _redrawn(p_LV[: len(words)], words, threshold, tokenizer.eos_id, rng)
                if redrawn != words.tolist():
                    edited[i] = tokenizer.decode(redrawn)
    return edited


def _redrawn(
    p_LV: Array, words: npt.NDArray[np.int64], threshold: float, eos: int, rng: np.random.Generator
) -> list[int]:
    places = np.arange(len(words))
    is_sure = p_LV[places, words] >= threshold
    p_LV = p_LV.copy()
    p_LV[:, eos] = 0.0
    cumulative = np.cumsum(p_LV, axis=1)
    drawn = (cumulative < rng.random(len(words))[:, None] * cumulative[:, -1:]).sum(axis=1)
    return [int(token) for token in np.where(is_sure, drawn, words)]
