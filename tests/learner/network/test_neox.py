"""The network written out by hand is the model of transformers: its logits, and its gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import LoopConfig, ModelConfig
from ouroloop.learner.network.batches import layout, padded_logits
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.neox import PackedNeoX, fits, groups
from ouroloop.presets import load_preset
from ouroloop.testbed.logic.testbed import TOKENIZER

LENGTHS = np.array([1, 3, 4, 9, 40, 41, 60, 120])
OPTIONS: dict[str, bool | int | float | str] = {"hidden_act": "relu", "use_parallel_residual": False}


def model_of(heads: int = 2, **options: bool | int | float | str) -> PreTrainedModel:
    shape = ModelConfig(
        model_type="gpt_neox", num_layers=2, num_heads=heads, hidden_size=48, context_length=128, options=options
    )
    model = build_model(shape, TOKENIZER, seed=1)
    with torch.no_grad():  # norms and biases begin as ones and noughts, which hide an error in their place
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return model


def row_of(lengths: np.ndarray, num_words: int = 8) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, num_words, (int(lengths.sum()),), generator=torch.Generator().manual_seed(3))
    return ids, torch.cat([torch.arange(length) for length in lengths])


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:1], LENGTHS[-1:], LENGTHS[:4]])
@pytest.mark.parametrize(("heads", "rotary"), [(2, 0.25), (3, 0.5), (4, 1.0)])
def test_logits_are_those_of_each_text_by_itself(lengths: np.ndarray, heads: int, rotary: float) -> None:
    model = model_of(heads, **OPTIONS)
    model.config.rope_parameters["partial_rotary_factor"] = rotary
    model = type(model)(model.config)
    ids, positions = row_of(lengths, num_words=5)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=one[None]).logits[0] for one in ids.split([*lengths])])
        by_hand = PackedNeoX(model).logits(ids, positions, lengths)
    torch.testing.assert_close(by_hand, alone, rtol=1e-4, atol=1e-5)  # float32, sums in another order


def test_gradients_are_those_of_autograd() -> None:
    ids, positions = row_of(LENGTHS, num_words=6)
    labels, gradients = ids.roll(-1), []
    for by_hand in (True, False):
        model = model_of(**OPTIONS)
        if by_hand:
            logits = PackedNeoX(model).logits(ids, positions, LENGTHS)
        else:
            logits = padded_logits(model, ids, layout(LENGTHS))
        F.cross_entropy(logits, labels).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[1].items():
        assert gradient is not None
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_it_learns_from_the_same_weights_as_the_model() -> None:
    model = model_of(**OPTIONS)
    ids, positions = row_of(LENGTHS)
    network = PackedNeoX(model)
    before = network.logits(ids, positions, LENGTHS)
    torch.optim.SGD(model.parameters(), lr=0.1).step(lambda: F.cross_entropy(before, ids).backward())
    alone = torch.cat([model(input_ids=one[None]).logits[0] for one in ids.split([*LENGTHS])])
    after = network.logits(ids, positions, LENGTHS)
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(after, alone, rtol=1e-4, atol=1e-4)


def test_it_is_for_the_laptop_and_for_nothing_that_it_would_change() -> None:
    config = load_preset("laptop", [], LoopConfig)
    assert config.train is not None
    assert isinstance(config.model, ModelConfig)
    assert fits(build_model(config.model, TOKENIZER, 1), config.train)
    assert fits(model_of(**OPTIONS), config.train)
    others: list[dict[str, bool | int | float | str]] = [
        {},
        OPTIONS | {"hidden_act": "gelu"},
        OPTIONS | {"use_parallel_residual": True},
        OPTIONS | {"attention_bias": False},
    ]
    assert not any(fits(model_of(**options), config.train) for options in others)
    assert not fits(model_of(16, **OPTIONS), config.train)  # three features of a head are no pairs
    with_dropout = config.model.model_copy(update={"dropout": 0.1})
    assert not fits(build_model(with_dropout, TOKENIZER, 1), config.train)
    for elsewhere in ({"batching": "padded"}, {"precision": "bf16-mixed"}, {"compile": True}, {"strategy": "fsdp"}):
        assert not fits(model_of(**OPTIONS), config.train.model_copy(update=elsewhere))


@given(st.lists(st.integers(1, 126), min_size=1, max_size=40).map(sorted))
def test_groups_hold_every_text_once_and_cost_no_more_than_one_or_all_apart(lengths: list[int]) -> None:
    found = groups(np.array(lengths))
    assert np.concatenate(found).tolist() == lengths

    def cost(sizes: list[int]) -> int:
        return sum(size**2 + 7_000 for size in sizes)

    chosen = cost([int(group.sum()) for group in found])
    assert chosen <= min(cost(lengths), cost([sum(lengths)]))
