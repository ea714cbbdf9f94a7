"""Soft targets: what they say of a token, what learning them costs, and that no tail is cut."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ouroloop.config import ModelConfig
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.targets import Targets, cross_entropy, of_model, of_tokens
from ouroloop.testbed.logic.testbed import TOKENIZER

V = TOKENIZER.size
ROWS = [np.array(TOKENIZER.encode(text), dtype=np.int64) for text in ("( not False )", "True", "( True or True )")]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    shape = ModelConfig(num_layers=1, num_heads=2, hidden_size=16, context_length=32)
    built = build_model(shape, TOKENIZER, seed=1).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(4)  # far from uniform
    return built


def alone(model: torch.nn.Module, ids: np.ndarray, temperature: float) -> Tensor:
    """(L, V), one row by itself, unpadded."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids[None, :-1])).logits[0]
    return torch.softmax(logits / temperature, dim=-1)


def dense(targets: Targets) -> Tensor:
    return torch.zeros(len(targets.tokens_NK), V).scatter_(1, targets.tokens_NK.long(), targets.probabilities_NK)


def random_logits(count: int) -> Tensor:
    return 3 * torch.randn(count, V, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (0.5, V + 1)])
def test_they_are_what_the_model_predicts_of_each_text_alone(
    model: torch.nn.Module, temperature: float, top_k: int | None
) -> None:
    """More tokens than the vocabulary has are all of them."""
    found = of_model(model, ROWS, V, top_k, temperature)
    for ids, targets in zip(ROWS, found, strict=True):
        assert torch.allclose(dense(targets), alone(model, ids, temperature), atol=1e-6)


def test_of_a_large_vocabulary_they_are_the_likeliest_and_the_rest_stays_theirs(model: torch.nn.Module) -> None:
    for ids, targets in zip(ROWS, of_model(model, ROWS, V, 2, 1.0), strict=True):
        p_NV = alone(model, ids, 1.0)
        assert targets.probabilities_NK.shape == (len(ids) - 1, 2)
        assert torch.allclose(targets.probabilities_NK, p_NV.sort(descending=True).values[:, :2], atol=1e-6)
        assert (targets.probabilities_NK.sum(1) < 0.999).any()


def test_the_loss_is_the_cross_entropy() -> None:
    logits, p_NV = random_logits(20), random_logits(40)[20:].softmax(-1)
    whole = Targets(torch.arange(V).repeat(20, 1), p_NV)
    assert torch.allclose(cross_entropy(logits, whole), F.cross_entropy(logits, p_NV, reduction="none"), atol=1e-5)


def test_tokens_that_are_not_told_apart_are_one_outcome() -> None:
    """The loss is that of the coarser distribution, so that a student with the right rest has the lowest, the entropy,
    however it shares the rest."""
    p_NV = random_logits(20).softmax(-1)
    p_NK, tokens_NK = p_NV.topk(3)
    targets = Targets(tokens_NK, p_NK)
    assert cross_entropy(p_NV.log(), targets).sum() == pytest.approx(targets.entropy_nats(), rel=1e-5)
    coarse = torch.cat([p_NK, 1 - p_NK.sum(1, keepdim=True)], dim=1)
    assert targets.entropy_nats() == pytest.approx(float(torch.distributions.Categorical(coarse).entropy().sum()))
    other = random_logits(40)[20:]
    assert (cross_entropy(other, targets) > cross_entropy(p_NV.log(), targets)).all()
    q_NV = p_NV.clone()
    tail = p_NV.topk(V).indices[:, 3:]
    q_NV.scatter_(1, tail, ((1 - p_NK.sum(1, keepdim=True)) / (V - 3)).expand(-1, V - 3))
    assert torch.allclose(cross_entropy(q_NV.log(), targets), cross_entropy(p_NV.log(), targets), atol=1e-5)


@pytest.mark.parametrize("width", [1, 4, V])
def test_a_token_that_teaches_itself_costs_what_it_costs_without_soft_targets(width: int) -> None:
    logits = random_logits(6).requires_grad_()
    ids = np.array([0, 7, 3, 3, 1, 5], dtype=np.int64)
    targets = of_tokens(ids, width)
    plain = F.cross_entropy(logits, torch.from_numpy(ids), reduction="none")
    assert torch.allclose(cross_entropy(logits, targets), plain, atol=1e-6)
    assert targets.entropy_nats() == 0
    cross_entropy(logits, targets).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.allclose(logits.grad, logits.detach().softmax(-1) - F.one_hot(torch.from_numpy(ids), V), atol=1e-5)


def test_a_mixed_batch_has_soft_rows_and_rows_that_teach_their_tokens(model: torch.nn.Module) -> None:
    """What an original text teaches beside one that a model wrote is the plain cross-entropy of its tokens."""
    logits, soft = random_logits(8), of_model(model, ROWS[:1], V, 3, 1.0)[0]
    hard = of_tokens(ROWS[1][1:], 3)
    both = Targets(*map(torch.cat, zip(soft, hard, strict=True)))
    loss_N = cross_entropy(logits[: len(both.tokens_NK)], both)
    num_soft = len(soft.tokens_NK)
    assert torch.equal(loss_N[:num_soft], cross_entropy(logits[:num_soft], soft))
    labels = torch.from_numpy(ROWS[1][1:])
    plain = F.cross_entropy(logits[num_soft : num_soft + len(labels)], labels, reduction="none")
    assert torch.allclose(loss_N[num_soft:], plain, atol=1e-6)


@pytest.mark.parametrize(("size", "bits"), [(2**15 - 1, 16), (2**15, 32)])
def test_the_highest_token_of_a_vocabulary_is_held(size: int, bits: int) -> None:
    class Sure(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: Tensor, use_cache: bool) -> object:
            return type("Out", (), {"logits": F.one_hot(torch.full(input_ids.shape, size - 1), size) * 50.0})

    (found,) = of_model(Sure(), ROWS[1:2], size, 2, 1.0)
    assert found.tokens_NK.dtype == getattr(torch, f"int{bits}")
    assert (found.tokens_NK[:, 0] == size - 1).all()
    assert cross_entropy(50.0 * F.one_hot(torch.tensor([size - 1] * 2), size), found) == pytest.approx(0, abs=1e-5)
