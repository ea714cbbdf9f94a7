"""Several causal LMs as one, whose next-token distribution is the mean of theirs.

It is sampled, scored and learned from as each of them is, but it is not a model of transformers.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache


class Output(NamedTuple):
    logits: Tensor


class Mean(torch.nn.Module):
    """Its key-value cache has the layers of all members, one member's after another's."""

    def __init__(self, members: Sequence[PreTrainedModel]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.config: Any = copy.copy(members[0].config)
        self.config.num_hidden_layers = sum(member.config.num_hidden_layers for member in members)

        self.train(members[0].training)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, past_key_values: Cache | None = None, **options: Any) -> Output:
        log_p, first = list[Tensor](), 0
        member: Any
        for member in self.members:
            end = first + member.config.num_hidden_layers
            own = None if past_key_values is None else Cache(layers=past_key_values.layers[first:end])
            logits = member(input_ids=input_ids, past_key_values=own, **options).logits
            log_p.append(logits.float().log_softmax(-1))
            first = end
        return Output(torch.stack(log_p).logsumexp(0) - math.log(len(log_p)))


def mean_of(members: Sequence[PreTrainedModel]) -> Any:
    """The mean of the members; a single one is its own mean."""
    return members[0] if len(members) == 1 else Mean(members)
