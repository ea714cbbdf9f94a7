"""Muon: momentum whose update of a weight matrix is made orthogonal (Jordan, 2024: kellerjordan.github.io/posts/muon).

All directions of a matrix are learned at one pace, so that a small model needs half of the steps that it
needs with AdamW. torch has a Muon too, but orthogonalises one matrix after another in bfloat16, which took
twice as long on a CPU made for it; here matrices of one shape go together, in float32, and wide ones by
way of their Gram matrix.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_MOMENTUM = 0.9
_QUINTIC = (3.4445, -4.7750, 2.0315)  # takes singular values in (0, 1] to about 1 in few iterations
_NUM_ITERATIONS = 5


def block_matrices(model: PreTrainedModel) -> list[dict[str, Any]]:
    """What Muon is for, in groups: the weights of all linear layers but the head, which learns word by word."""
    head = model.get_output_embeddings()
    kinds = ((nn.Linear, False), (Conv1D, True))  # transformers' Conv1D is a linear layer with its weight transposed
    return [
        {
            "params": [m.weight for m in model.modules() if isinstance(m, kind) and m is not head],
            "inputs_first": inputs_first,
        }
        for kind, inputs_first in kinds
    ]


class Muon(Optimizer):
    """For groups of matrices, (outputs, inputs) or, where a group says `inputs_first`, the other way round."""

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": weight_decay, "inputs_first": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append((matrix, self._update(matrix)))
            for (rows, columns), pairs in alike.items():
                outputs, inputs = (columns, rows) if group["inputs_first"] else (rows, columns)
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                for (matrix, _), update in zip(pairs, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(update, alpha=group["lr"] * max(1, outputs / inputs) ** 0.5)
        return result

    def _update(self, matrix: Tensor) -> Tensor:
        """Nesterov's: the gradient, moved towards its mean over the last steps."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(momentum, _MOMENTUM)


def orthogonal(x_KRC: Tensor) -> Tensor:
    """K matrices with the singular vectors of the given ones, and singular values from about 0.7 to 1.2.

    By Newton and Schulz: X becomes Q·X, with Q = a + b·A + c·A² and A = X·Xᵀ. All Q are polynomials of the first A, so
    A becomes Q·A·Q; for wide matrices it is cheaper to follow A alone and to apply the product of all Q at the end.
    """
    if x_KRC.shape[1] > x_KRC.shape[2]:
        return orthogonal(x_KRC.mT).mT
    a, b, c = _QUINTIC
    x_KRC = x_KRC / (x_KRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    _, rows, columns = x_KRC.shape
    if columns < 2 * rows:
        for _ in range(_NUM_ITERATIONS):
            gram_KRR = x_KRC @ x_KRC.mT
            x_KRC = torch.baddbmm(x_KRC, torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c), x_KRC, beta=a)
        return x_KRC
    gram_KRR = x_KRC @ x_KRC.mT
    shift_RR = a * torch.eye(rows, dtype=x_KRC.dtype, device=x_KRC.device)
    factor_KRR = product_KRR = torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c) + shift_RR
    for _ in range(_NUM_ITERATIONS - 1):
        gram_KRR = factor_KRR @ gram_KRR @ factor_KRR
        factor_KRR = torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c) + shift_RR
        product_KRR = factor_KRR @ product_KRR
    return product_KRR @ x_KRC
