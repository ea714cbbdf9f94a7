"""Muon: the update has the directions of the gradient and none of its sizes, whatever the shape and the layout."""

import pytest
import torch
from torch import Tensor

from ouroloop.config import ModelConfig
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.muon import Muon, block_matrices, orthogonal
from ouroloop.testbed.logic.testbed import TOKENIZER


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(24, 24), (24, 36), (24, 96), (96, 24)])
def test_singular_vectors_stay_and_singular_values_become_nearly_one(shape: tuple[int, int]) -> None:
    """Against the singular value decomposition; the quintic takes values above about 0.01 of the norm to 0.7 to 1.2."""
    stack = random(3, *shape)
    for matrix, result in zip(stack.double(), orthogonal(stack).double(), strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ result @ vh.T
        values = inner.diagonal()
        assert 0.65 < values.min() <= values.max() < 1.25
        assert (inner - torch.diag(values)).abs().max() < 1e-3  # float32, five iterations
        assert torch.allclose(result, u @ inner @ vh, atol=1e-3)


def test_the_gram_matrix_leads_to_the_same_as_the_matrix_itself() -> None:
    """The plain iteration of the paper, in double precision, is the oracle."""
    x = random(2, 24, 96)
    plain = x.double() / x.double().norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = plain @ plain.mT
        plain = 3.4445 * plain + (-4.7750 * gram + 2.0315 * gram @ gram) @ plain
    assert torch.allclose(orthogonal(x).double(), plain, atol=1e-4)


def stepped(matrix: Tensor, gradients: list[Tensor], inputs_first: bool) -> Tensor:
    weight = torch.nn.Parameter(matrix.clone())
    muon = Muon([{"params": [weight], "inputs_first": inputs_first}], learning_rate=0.1, weight_decay=0.5)
    for gradient in gradients:
        weight.grad = gradient
        muon.step()
    return weight.detach()


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
