"""Muon: momentum whose update of a weight matrix is made orthogonal (Jordan, 2024: kellerjordan.github.io/posts/muon).

All directions of a matrix are learned at one pace, so a small model needs half of the steps that it
needs with AdamW. torch has a Muon too, but it orthogonalises one matrix after another in bfloat16, which took
twice as long on a CPU made for that; here matrices of one shape go together, in float32, and wide ones by
way of their Gram matrix. What is not a matrix of a block is trained by AdamW in the same step: where a model is small,
the work around a step of a torch optimizer takes longer than the step itself.
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
_QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""Three in a row take singular values in [0.01, 1] to [0.73, 1.27], as near to 1 as any three can (Amsel et al. 2025,
arXiv:2505.16932: the odd quintic that is best on the interval that the last one leaves). One quintic applied five
times, as in Jordan's Muon, does no better and takes twice the products."""


def block_matrices(model: PreTrainedModel) -> list[dict[str, Any]]:
    """The matrices that Muon is for, in groups of one shape: the weights of all linear layers but the head.

    The head learns word by word.
    """
    head = model.get_output_embeddings()
    kinds = ((nn.Linear, False), (Conv1D, True))  # transformers' Conv1D is a linear layer with its weight transposed
    alike: dict[tuple[torch.Size, bool], list[Tensor]] = defaultdict(list)
    for kind, inputs_first in kinds:
        for module in model.modules():
            if isinstance(module, kind) and module is not head:
                alike[module.weight.shape, inputs_first].append(module.weight)
    return [{"params": weights, "inputs_first": inputs_first} for (_, inputs_first), weights in alike.items()]


class Muon(Optimizer):
    """Muon for groups of matrices of one shape, and AdamW for groups that have `betas`.

    A matrix is (outputs, inputs) or, where its group says `inputs_first`, the other way round.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": weight_decay, "inputs_first": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            state = self.state[weights[0]]
            (self._adamw if "betas" in group else self._muon)(group, weights, [w.grad for w in weights], state)
        return result

    def _muon(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], state: dict[str, Any]
    ) -> None:
        gradient_KRC = torch.stack(gradients)
        if not state:
            state["momentum"] = torch.zeros_like(gradient_KRC)
        momentum_KRC = state["momentum"].lerp_(gradient_KRC, 1 - _MOMENTUM)
        # Nesterov's: the gradient, moved towards its mean over the last steps
        with torch.autocast(gradient_KRC.device.type, enabled=False):  # this too runs inside mixed-precision training
            update_KRC = orthogonal(gradient_KRC.lerp_(momentum_KRC, _MOMENTUM))
        rows, columns = weights[0].shape
        outputs, inputs = (columns, rows) if group["inputs_first"] else (rows, columns)
        rate = group["lr"] * max(1, outputs / inputs) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        if isinstance(rate, Tensor):  # in a step that is recorded
            torch._foreach_sub_(weights, (update_KRC * rate).unbind())
        else:
            torch._foreach_add_(weights, update_KRC.unbind(), alpha=-rate)

    def _adamw(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], state: dict[str, Any]
    ) -> None:
        if not state:
            state["means"], state["squares"] = ([torch.zeros_like(w) for w in weights] for _ in range(2))
            state["steps"] = [torch.zeros((), device=w.device) for w in weights]
        torch._foreach_add_(state["steps"], 1)
        torch._fused_adamw_(
            weights,
            gradients,
            state["means"],
            state["squares"],
            [],
            state["steps"],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def orthogonal(x_KRC: Tensor) -> Tensor:
    """K matrices with the singular vectors of the given ones, and singular values from about 0.7 to 1.3.

    By Newton and Schulz: X becomes Q·X, with Q = a + b·A + c·A² and A = X·Xᵀ. All Q are polynomials of the first A, so
    A becomes Q·A·Q; where one side is far longer, it is cheaper to update only A, the one of the shorter side, and to
    apply the product of all Q at the end.
    """
    x_KRC = x_KRC / (x_KRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    _, rows, columns = x_KRC.shape
    if max(rows, columns) < 2 * min(rows, columns):
        for a, b, c in _QUINTICS:
            gram_KRR = x_KRC @ x_KRC.mT
            x_KRC = torch.baddbmm(x_KRC, torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c), x_KRC, beta=a)
        return x_KRC
    is_tall = rows > columns
    gram_KSS = x_KRC.mT @ x_KRC if is_tall else x_KRC @ x_KRC.mT
    product_KSS = factor_KSS = _factor(gram_KSS, *_QUINTICS[0])
    for quintic in _QUINTICS[1:]:
        gram_KSS = factor_KSS @ gram_KSS @ factor_KSS
        factor_KSS = _factor(gram_KSS, *quintic)
        product_KSS = factor_KSS @ product_KSS
    return x_KRC @ product_KSS if is_tall else product_KSS @ x_KRC


def _factor(gram_KSS: Tensor, a: float, b: float, c: float) -> Tensor:
    factor_KSS = torch.baddbmm(gram_KSS, gram_KSS, gram_KSS, beta=b, alpha=c)
    factor_KSS.diagonal(dim1=1, dim2=2).add_(a)
    return factor_KSS
