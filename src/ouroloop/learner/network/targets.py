"""What a text teaches at each of its tokens: the one that stands there, or how probable a model finds each token.

In a large vocabulary the K likeliest tokens are told apart and the others taken together. So no tail is cut: the
student learns how much the others weigh together, and how they share that is left to the student.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ouroloop.learner.network.rows import alike, padded

_TOKENS_AT_ONCE, _LOGITS_AT_ONCE = 4_096, 2**25  # what a forward pass computes: more would not stay in a CPU's caches

Ids = npt.NDArray[np.int64]


MOST_TOKENS = 4_096
"""The largest vocabulary of which every token's probability is held, for every token of m texts."""


class Targets(NamedTuple):
    """After each of N tokens: K tokens, and how probable each is. What they lack to 1 is all others' together."""

    tokens_NK: Tensor
    """In no more bits than the vocabulary needs: the targets of m texts are K times as many as their tokens."""
    probabilities_NK: Tensor

    def entropy_nats(self) -> float:
        """Entropy, summed over the N tokens, with all others counted as one outcome: no student has a lower loss."""
        p_NK = self.probabilities_NK.double()
        rest_N = (1 - p_NK.sum(1)).clamp(min=0)
        return float(torch.special.entr(p_NK).sum() + torch.special.entr(rest_N).sum())


def of_tokens(ids: Ids, width: int) -> Targets:
    """Targets that are the texts' own tokens: K = `width` at each, of which the first is certain."""
    tokens_NK = torch.from_numpy(ids)[:, None].repeat(1, width)
    probabilities_NK = torch.zeros(tokens_NK.shape)
    probabilities_NK[:, 0] = 1.0
    return Targets(tokens_NK, probabilities_NK)


@torch.no_grad()
def of_model(model: Any, rows: Sequence[Ids], size: int, top_k: int | None, temperature: float) -> list[Targets]:
    """What a causal LM predicts within each row of ids, the first of which is the start symbol's."""
    found: dict[int, Targets] = {}
    k = size if top_k is None else min(top_k, size)
    kind = torch.int16 if size < 2**15 else torch.int32
    for batch in alike([len(row) - 1 for row in rows], min(_TOKENS_AT_ONCE, _LOGITS_AT_ONCE // size)):
        ids_BL = padded([rows[i][:-1] for i in batch], 0)
        logits_BLV = model(input_ids=ids_BL.to(model.device), use_cache=False).logits[..., :size].float()
        p_BLK, tokens_BLK = (logits_BLV / temperature).softmax(-1).topk(k)
        for at, i in enumerate(batch):
            length = len(rows[i]) - 1
            found[i] = Targets(tokens_BLK[at, :length].cpu().to(kind), p_BLK[at, :length].cpu().clone())
    return [found[i] for i in range(len(rows))]


def cross_entropy(logits_NV: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy of each token, in nats."""
    log_q_NV = F.log_softmax(logits_NV, dim=-1)
    tokens_NK, p_NK = targets.tokens_NK.long(), targets.probabilities_NK
    loss_N = -(p_NK * log_q_NV.gather(1, tokens_NK)).sum(1)
    if tokens_NK.shape[1] == logits_NV.shape[1]:
        return loss_N
    others_N = log_q_NV.scatter(1, tokens_NK, -torch.inf).logsumexp(1)
    return loss_N - (1 - p_NK.sum(1)).clamp(min=0) * others_N
