"""What another model makes of texts: its last hidden state at their last token, as MAUVE compares them.

Any model of transformers that reads texts will do, a causal one or an encoder. It learns nothing, and is no part of
what a loop writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from ouroloop.config import ConfigError, NamedModel
from ouroloop.errors import reason
from ouroloop.learner.network import pretrained
from ouroloop.learner.network.rows import alike, padded, positions
from ouroloop.testbed.base import Array

_LONGEST = 1_024  # tokens of a text, as in MAUVE's own code: what comes after is not read
_TOKENS_AT_ONCE = 8_192


@dataclass(frozen=True)
class HiddenStates:
    """Texts in, a row of features for each out: the same texts give the same bits."""

    model: PreTrainedModel
    words: PreTrainedTokenizerBase
    num_threads: int

    @property
    def longest(self) -> int:
        """How many tokens of a text are read."""
        return int(min(_LONGEST, positions(self.model.config) or _LONGEST, self.words.model_max_length))

    def __call__(self, texts: Sequence[str]) -> Array:
        torch.set_num_threads(self.num_threads)
        ids = [self._encoded(text) for text in texts]
        features = np.empty((len(texts), self.model.config.get_text_config().hidden_size))
        for batch in alike([len(of_one) for of_one in ids], _TOKENS_AT_ONCE):
            features[batch] = self._last_BD([ids[i] for i in batch]).double().cpu().numpy()
        return features

    def _encoded(self, text: str) -> list[int]:
        """Ids as the model's own tokenizer wraps them; for a text without tokens, a symbol in their place."""
        ids: list[int] = self.words.encode(text, truncation=True, max_length=self.longest, split_special_tokens=True)
        first = (self.words.bos_token_id, self.words.eos_token_id, self.words.pad_token_id, 0)
        return ids or [next(symbol for symbol in first if symbol is not None)]

    @torch.inference_mode()
    def _last_BD(self, ids: Sequence[list[int]]) -> Tensor:
        device, lengths_B = self.model.device, torch.tensor([len(of_one) for of_one in ids])
        ids_BL = padded(ids, 0).to(device)
        is_text_BL = (torch.arange(ids_BL.shape[1]) < lengths_B[:, None]).long().to(device)
        hidden_BLD: Tensor = self.model(input_ids=ids_BL, attention_mask=is_text_BL).last_hidden_state
        return hidden_BLD[torch.arange(len(ids)), (lengths_B - 1).to(device)]


def load_reader(model: NamedModel, device: str, num_threads: int) -> HiddenStates:
    """What gives texts their features; `device` is the kind on which a learner computes.

    Raises:
        ConfigError: it cannot be had, or gives texts no features.
    """
    folder = pretrained.folder_of(model)
    network, lacking = pretrained.weights_of(AutoModel, model, folder, pretrained.shape_of(model, folder))
    if lacking := [name for name in lacking if not name.startswith("pooler.")]:  # above the features
        raise ConfigError(f"{model}: {len(lacking)} weights are missing, such as {lacking[0]}")
    words = pretrained.words_of(model, folder)
    pretrained.require_rows(model, network, len(words))
    reader = HiddenStates(network.to(device if device in ("cpu", "mps") else "cuda"), words, num_threads)
    try:
        found = reader(["A text.", ""])
    except Exception as error:  # each architecture that reads no texts, or writes at once, raises its own
        raise ConfigError(f"{model} gives a text no features: {reason(error)}") from None
    if not np.isfinite(found).all():
        raise ConfigError(f"{model} gives a text features that are not finite numbers")
    return reader
