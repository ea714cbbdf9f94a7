"""Packed: every expression as if it were alone, whatever the architecture, and no padding outside attention."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import ConfigError, ModelConfig
from ouroloop.learner.network import batches
from ouroloop.learner.network.batches import Layout, layout, packed_attention, packed_logits, padded_logits
from ouroloop.learner.network.model import build_model
from ouroloop.testbed.logic.testbed import TOKENIZER

LENGTHS = np.array([1, 3, 4, 9, 40, 41, 60])


def model_of(model_type: str = "gpt2", **options: bool | int | float | str) -> PreTrainedModel:
    shape = ModelConfig(
        model_type=model_type, num_layers=2, num_heads=2, hidden_size=32, context_length=64, options=options
    )
    return build_model(shape, TOKENIZER, seed=1).eval()


def tokens(lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 8, (int(lengths.sum()),), generator=torch.Generator().manual_seed(3))
    return ids, torch.cat([torch.arange(length) for length in lengths])


@given(st.lists(st.integers(1, 126), min_size=1, max_size=40).map(sorted), st.booleans())
def test_a_layout_holds_every_token_once_and_no_more_padding_than_one_block(lengths: list[int], single: bool) -> None:
    found = layout(np.array(lengths), single_block=single)
    assert found.index_P[found.back_N].tolist() == list(range(sum(lengths)))
    assert len(found.index_P) <= len(lengths) * lengths[-1]
    assert sum(num_texts for num_texts, _ in found.shapes) == len(lengths)
    assert len(found.shapes) == 1 or not single


def test_short_and_long_expressions_are_kept_in_blocks_of_their_own() -> None:
    assert layout(np.array([5] * 40 + [120] * 3)).shapes == [(40, 5), (3, 120)]


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama", "opt", "qwen2"])
def test_packed_is_every_expression_by_itself(model_type: str) -> None:
    model = model_of(model_type)
    ids, positions = tokens(LENGTHS)
    with torch.no_grad():
        with packed_attention(model):
            together = packed_logits(model, ids, positions, layout(LENGTHS))
        alone = torch.cat([model(input_ids=one[None]).logits[0] for one in ids.split([*LENGTHS])])
        padded = padded_logits(model, ids, layout(LENGTHS, single_block=True))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_whether_texts_are_kept_apart_is_asked_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was trained on a GPU, and is trained on, is there already; so must be all that it is given."""
    model, asked = model_of(), list[object]()

    def noted(lengths: np.ndarray, device: object = None) -> Layout:
        asked.append(device)
        return layout(lengths)

    monkeypatch.setattr(batches, "layout", noted)
    with packed_attention(model):
        assert asked == [model.device]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_texts_are_kept_apart_on_a_gpu() -> None:
    with packed_attention(model_of().cuda()):
        pass


def test_gradients_are_those_of_the_padded_batch() -> None:
    ids, positions = tokens(LENGTHS)
    gradients = []
    for packed in (True, False):
        model = model_of().train()
        if packed:
            with packed_attention(model):
                logits = packed_logits(model, ids, positions, layout(LENGTHS))
                F.cross_entropy(logits, ids).backward()
        else:
            F.cross_entropy(padded_logits(model, ids, layout(LENGTHS)), ids).backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("model_type", "options"), [("bloom", {}), ("mamba", {}), ("mistral", {"sliding_window": 16})])
def test_an_architecture_that_cannot_be_packed_is_refused_and_left_as_it_was(
    model_type: str, options: dict[str, int]
) -> None:
    model = model_of(model_type, **options)
    before = model.config._attn_implementation
    refusal = f"'{model_type}' cannot be trained packed.*use train.batching=padded"
    with pytest.raises(ConfigError, match=refusal), packed_attention(model):
        pass
    assert model.config._attn_implementation == before
    with torch.no_grad():
        assert padded_logits(model, tokens(LENGTHS)[0], layout(LENGTHS)).shape == (LENGTHS.sum(), 8)
