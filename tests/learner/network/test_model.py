"""Any causal LM of transformers, from a configuration alone; saved without pickles, loaded by anyone."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ouroloop.config import ConfigError, LoopConfig, ModelConfig, SamplingConfig
from ouroloop.learner.network.model import build_model, load_model, num_parameters, save_model
from ouroloop.learner.network.prefixes import require_causal
from ouroloop.presets import load_preset
from ouroloop.testbed.logic.testbed import TOKENIZER
from ouroloop.testbed.tokenizer import WordTokenizer

SHAPE = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "context_length": 32}


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neox", "qwen2"])
def test_any_model_type(model_type: str) -> None:
    model = build_model(ModelConfig(model_type=model_type, dropout=0.25, **SHAPE), TOKENIZER, seed=1)
    assert model.config.model_type == model_type
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.config.vocab_size) == (2, 16, 8)
    assert model(input_ids=torch.tensor([[7, 5, 2]])).logits.shape == (1, 3, 8)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neox", "qwen2", "opt", "olmo"])
def test_what_we_take_for_granted_holds(model_type: str) -> None:
    """Causal, the same with a cache, and every word's embedding can learn."""
    model = build_model(ModelConfig(model_type=model_type, dropout=0.25, **SHAPE), TOKENIZER, 1)
    require_causal(model, TOKENIZER)
    embedding = model.get_input_embeddings()
    assert embedding.padding_idx is None


@pytest.mark.parametrize(
    ("model_type", "message"), [("bert", "not causal|key-value cache"), ("mamba", "key-value cache")]
)
def test_what_is_not_a_causal_lm_with_a_cache_is_refused(model_type: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_causal(build_model(ModelConfig(model_type=model_type, **SHAPE), TOKENIZER, 1), TOKENIZER)


def test_the_vocabulary_is_the_tokenizers() -> None:
    tokenizer = WordTokenizer(["night", "day"])
    model = build_model(ModelConfig(**SHAPE), tokenizer, 1)
    assert (model.config.vocab_size, model.config.bos_token_id, model.config.eos_token_id) == (3, 2, 2)
    require_causal(model, tokenizer)


def test_dropout_reaches_the_model() -> None:
    model = build_model(ModelConfig(dropout=0.25, **SHAPE), TOKENIZER, 1)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


def test_the_papers_model_has_10_6_million_parameters() -> None:
    config = load_preset("paper", [], LoopConfig).model
    assert num_parameters(build_model(config, TOKENIZER, 1)) == pytest.approx(10.6e6, rel=0.01)


def test_the_papers_largest_model_has_49_2_million_parameters() -> None:
    config = load_preset("paper-49m", [], LoopConfig).model
    with torch.device("meta"):
        assert num_parameters(build_model(config, TOKENIZER, 1)) == pytest.approx(49.2e6, abs=0.1e6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no-such"}, "no-such"),
        ({"options": {"no_such": 1}}, "gpt2 has no option 'no_such'"),
        ({"model_type": "t5"}, "t5"),
        ({"options": {"vocab_size": 4}}, "'vocab_size' follows from the other fields"),
        ({"options": {"n_embd": 4}}, "'n_embd' follows from the other fields"),
        ({"options": {"activation_function": "nope"}}, "activation_function: got 'nope', allowed is gelu, .*relu, "),
    ],
)
def test_a_wrong_model_is_refused_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_model(ModelConfig.model_validate(SHAPE | change), TOKENIZER, 1)
    assert "\n" not in str(caught.value)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_model(ModelConfig(**SHAPE), TOKENIZER, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_the_saved_folder_is_plain_transformers(tmp_path: Path, model_type: str) -> None:
    model = build_model(ModelConfig(model_type=model_type, **SHAPE), TOKENIZER, 3).eval()
    save_model(model, TOKENIZER, SamplingConfig(temperature=0.7, max_new_tokens=20), 32, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".ckpt"))]
    ids = AutoTokenizer.from_pretrained(tmp_path)("( not", return_tensors="pt").input_ids
    stranger = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(stranger(input_ids=ids).logits, expected)
        assert torch.equal(load_model(tmp_path)(input_ids=ids).logits, expected)
    decoding = stranger.generation_config
    assert (decoding.do_sample, decoding.temperature, decoding.top_k, decoding.top_p) == (True, 0.7, 0, 1.0)
