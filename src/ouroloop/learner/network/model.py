"""M_t before and after training: a causal LM of transformers, built from its configuration, saved, loaded."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are built here and never fetched
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ouroloop.config import ConfigError, ModelConfig, SamplingConfig
from ouroloop.testbed.base import Tokenizer

transformers_logging.disable_progress_bar()

# Every name under which a causal LM of transformers keeps a dropout rate.
_DROPOUTS = (
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "embed_dropout", "hidden_dropout", "resid_dropout",
    "dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob",
)  # fmt: skip


def transformers_config(config: ModelConfig, tokenizer: Tokenizer) -> PretrainedConfig:
    """The transformers configuration of the wanted shape.

    Raises:
        ConfigError: an unknown model type or option, or values that transformers refuses.
    """
    try:
        built = AutoConfig.for_model(config.model_type)
        unknown = [key for key in config.options if not hasattr(built, key)]
        if unknown:
            raise ConfigError(f"model.options: {config.model_type} has no option {unknown[0]!r}")
        wanted: dict[str, Any] = {
            "vocab_size": tokenizer.size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "max_position_embeddings": config.context_length,
            "bos_token_id": tokenizer.eos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": None,  # an inherited one would freeze the embedding of a word
        }
        if hasattr(built, "intermediate_size"):
            wanted["intermediate_size"] = 4 * config.hidden_size
        if hasattr(built, "num_key_value_heads"):
            wanted["num_key_value_heads"] = config.num_heads
        wanted |= {name: config.dropout for name in _DROPOUTS if hasattr(built, name)}
        own_names = {built.attribute_map.get(key) for key in wanted}
        taken = [key for key in config.options if key in wanted.keys() | own_names]
        if taken:
            raise ConfigError(f"model.options: {taken[0]!r} follows from the other fields of model")
        return AutoConfig.for_model(config.model_type, **(wanted | config.options))
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"model {config.model_type!r}: {str(error).splitlines()[0]}") from None


def build_model(config: ModelConfig, tokenizer: Tokenizer, seed: int) -> PreTrainedModel:
    """A freshly initialised causal LM; the same seed gives the same weights."""
    built = transformers_config(config, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(built)
        except (ValueError, KeyError, TypeError, AssertionError) as error:  # no causal LM head, or an impossible option
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"model {config.model_type!r} cannot be built: {reason}") from None
    return model


def num_parameters(model: PreTrainedModel) -> int:
    """Trainable parameters without position embeddings, as nanoGPT and the paper count them."""
    positions = getattr(getattr(model, "transformer", None), "wpe", None)
    total: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return total - (int(positions.weight.numel()) if positions is not None else 0)


def save_model(model: PreTrainedModel, tokenizer: Tokenizer, sampling: SamplingConfig, folder: Path) -> None:
    """A plain transformers folder: safetensors, configuration, tokenizer, and how S_t was sampled."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,  # the library's default of 50 would cut tails
        top_p=1.0,
        max_new_tokens=sampling.max_new_tokens,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )
    model.save_pretrained(folder)
    tokenizer.build(model.config.max_position_embeddings).save_pretrained(folder)


def load_model(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    return model.eval()
