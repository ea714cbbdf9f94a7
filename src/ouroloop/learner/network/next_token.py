"""The distribution of the next token: a softmax in double precision, less what is cut off as too improbable."""

import numpy as np
import torch
from torch import Tensor

from ouroloop.config import SamplingConfig


def probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """The distributions that texts are drawn from, each over the last axis; raises what `finite` does."""
    if config.min_p:
        return finite(log_probabilities(logits, config.temperature, config.min_p).exp())
    # Not the exponential of the logarithm, whose last bits differ
    return finite(torch.softmax(doubled(logits) / config.temperature, dim=-1))


def log_probabilities(logits: Tensor, temperature: float, min_p: float) -> Tensor:
    """The same in nats; -inf for tokens that are cut off, whose mass the others share."""
    log_p = torch.log_softmax(doubled(logits) / temperature, dim=-1)
    if min_p == 0:
        return log_p
    is_cut = log_p < log_p.max(dim=-1, keepdim=True).values + np.log(min_p)
    return torch.log_softmax(log_p.masked_fill(is_cut, -torch.inf), dim=-1)


def doubled(logits: Tensor) -> Tensor:
    """Logits in double precision; those on Apple's GPUs, which do not have it, move to the CPU."""
    return (logits.cpu() if logits.device.type == "mps" else logits).double()


def finite(softmax: Tensor) -> Tensor:
    """The same: a softmax or its logarithm, -inf where a token was cut off, is either a number everywhere or NaN.

    Raises:
        FloatingPointError: it is NaN somewhere.
    """
    if torch.isnan(softmax).any():
        raise FloatingPointError("the model's next-token distribution is not finite: it has diverged")
    return softmax
