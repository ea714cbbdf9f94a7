"""Muon: the update has the directions of the gradient and none of its sizes, whatever the shape and the layout."""

import pytest
import torch
from torch import Tensor

from ouroloop.config import ModelConfig
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.muon import _QUINTICS, Muon, block_matrices, orthogonal
from ouroloop.testbed.logic.testbed import TOKENIZER


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def to_one(sizes: Tensor) -> Tensor:
    for a, b, c in _QUINTICS:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    return sizes


@pytest.mark.parametrize("shape", [(24, 24), (24, 36), (36, 24), (24, 96), (96, 24)])
def test_singular_vectors_stay_and_singular_values_go_to_one(shape: tuple[int, int]) -> None:
    """The singular value decomposition is the oracle: the way by the Gram matrix is that of each value by itself."""
    stack = random(3, *shape)
    for matrix, result in zip(stack.double(), orthogonal(stack).double(), strict=True):
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
        expected = u @ torch.diag(to_one(values / matrix.norm())) @ vh
        assert torch.allclose(result, expected, atol=1e-3)  # float32, three iterations


def test_the_quintics_take_every_size_from_a_hundredth_of_the_norm_on_near_to_one() -> None:
    sizes = to_one(torch.linspace(0.01, 1, 100_000, dtype=torch.float64))
    assert 0.725 < sizes.min() <= sizes.max() < 1.275


def stepped(matrix: Tensor, gradients: list[Tensor], inputs_first: bool) -> Tensor:
    weight = torch.nn.Parameter(matrix.clone())
    muon = Muon([{"params": [weight], "inputs_first": inputs_first}], learning_rate=0.1, weight_decay=0.5)
    for gradient in gradients:
        weight.grad = gradient
        muon.step()
    return weight.detach()


def test_mixed_precision_is_none_of_its_business() -> None:
    """Lightning holds its context around a step by hand too."""
    weight, gradients = random(24, 36), [random(24, 36)]
    expected = stepped(weight, gradients, inputs_first=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stepped(weight, [gradients[0].clone()], inputs_first=False), expected)


def test_a_transposed_layer_learns_the_same() -> None:
    weight, gradients = random(8, 32), [random(8, 32), random(8, 32) + 1]
    result = stepped(weight, gradients, inputs_first=False)
    transposed = stepped(weight.T, [gradient.T for gradient in gradients], inputs_first=True)
    assert torch.allclose(result, transposed.T, atol=1e-6)


def test_the_size_of_the_gradient_does_not_matter_and_that_of_the_layer_does() -> None:
    weight = torch.zeros(8, 32)
    small = stepped(weight, [1e-3 * random(8, 32)], inputs_first=False)
    large = stepped(weight, [1e3 * random(8, 32)], inputs_first=False)
    assert torch.allclose(small, large, atol=1e-5)
    widening = stepped(weight, [random(8, 32)], inputs_first=True)  # 8 inputs, 32 outputs
    assert torch.allclose(widening, 2 * large, atol=1e-5)


def test_weight_decay_shrinks_a_weight_whose_gradient_is_nothing() -> None:
    weight = random(8, 8)
    assert torch.allclose(stepped(weight, [torch.zeros(8, 8)], inputs_first=False), 0.95 * weight)


@pytest.mark.parametrize(("model_type", "matrices_per_layer"), [("gpt2", 4), ("gpt_neox", 4), ("llama", 7), ("opt", 6)])
def test_it_is_for_the_matrices_of_the_blocks_alone(model_type: str, matrices_per_layer: int) -> None:
    model = build_model(ModelConfig(model_type=model_type, num_layers=2, num_heads=2, hidden_size=16), TOKENIZER, 1)
    chosen = [weight for group in block_matrices(model) for weight in group["params"]]
    assert len(chosen) == len({id(weight) for weight in chosen}) == 2 * matrices_per_layer
    words = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    assert not words & {id(weight) for weight in chosen}
    assert all(weight.dim() == 2 and 16 in weight.shape for weight in chosen)


def test_groups_with_betas_are_stepped_by_adamw() -> None:
    """torch's own is the oracle."""
    weights = [[torch.nn.Parameter(random(3, 4)), torch.nn.Parameter(random(5))] for _ in range(2)]
    decays = (0.1, 0.0)
    groups = [
        [{"params": [w], "lr": 0.01, "betas": (0.9, 0.95), "weight_decay": d} for w, d in zip(own, decays, strict=True)]
        for own in weights
    ]
    optimizers = Muon(groups[0], learning_rate=1.0, weight_decay=1.0), torch.optim.AdamW(groups[1])
    for step in range(5):
        for own, optimizer in zip(weights, optimizers, strict=True):
            for weight in own:
                weight.grad = random(*weight.shape) * (step - 1.5)
            optimizer.step()
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
