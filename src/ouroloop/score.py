"""How probable a model finds a text: the exact counterpart of `sample.py`, which draws from the same law."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from ouroloop.tokenizer import VOCABULARY, encode

_TOKENS_AT_ONCE = 16_384  # bounds the memory of a forward pass


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, texts: Sequence[str], temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """The log-probability in nats of each text, its `<eos>` included: of `sample` writing just this text.

    Rows of a batch are equally long, so nothing is padded; a text that stands twice is evaluated once.

    Raises:
        KeyError: a word outside the alphabet.
        ValueError: a text that the model has no positions for.
        FloatingPointError: the model gives no finite distribution.
    """
    by_length: dict[int, dict[str, list[int]]] = defaultdict(dict)
    for text in texts:
        ids = encode(text)
        by_length[len(ids) - 1][text] = ids
    longest, limit = max(by_length, default=0), model.config.max_position_embeddings
    if longest > limit:
        raise ValueError(f"a text of {longest - 1} words does not fit a model with {limit} positions")
    was_training = model.training
    model.eval()
    nats: dict[str, float] = {}
    try:
        for length, rows in sorted(by_length.items()):
            distinct, size = sorted(rows), max(1, _TOKENS_AT_ONCE // length)
            for batch in (distinct[start : start + size] for start in range(0, len(distinct), size)):
                ids_BL = torch.tensor([rows[text] for text in batch], device=model.device)
                nats |= zip(batch, _score(model, ids_BL, temperature), strict=True)
    finally:
        model.train(was_training)
    return np.array([nats[text] for text in texts], dtype=np.float64)


def _score(model: PreTrainedModel, ids_BL: torch.Tensor, temperature: float) -> list[float]:
    logits_BLV = model(input_ids=ids_BL[:, :-1], use_cache=False).logits[..., : len(VOCABULARY)]
    steps_BLV = torch.log_softmax(logits_BLV.double() / temperature, dim=-1)
    nats_B = steps_BLV.gather(-1, ids_BL[:, 1:, None]).sum(dim=(1, 2))
    if not torch.isfinite(nats_B).all():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    values: list[float] = nats_B.cpu().tolist()
    return values
