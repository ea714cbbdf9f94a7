"""M_t before and after training: a causal LM of transformers, built from its configuration, saved, loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.utils import logging as transformers_logging

from ouroloop.config import ConfigError, ModelConfig, SamplingConfig
from ouroloop.errors import did_you_mean, reason, shown
from ouroloop.testbed.base import Tokenizer

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # what matters in its warnings we check ourselves

# Every name under which a causal LM of transformers keeps a dropout rate.
_DROPOUTS = (
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "embed_dropout", "hidden_dropout", "resid_dropout",
    "dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob",
)  # fmt: skip


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """The model is in evaluation mode inside, and afterwards in the one that it was in before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def transformers_config(config: ModelConfig, tokenizer: Tokenizer) -> PretrainedConfig:
    """The transformers configuration of the wanted shape.

    Raises:
        ConfigError: an unknown model type or option, or values that transformers refuses.
    """
    kind = config.model_type
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"model {shown(kind)} is unknown to transformers{did_you_mean(kind, CONFIG_MAPPING.keys())}")
    try:
        built = AutoConfig.for_model(kind)
        known = built.to_dict().keys() | built.attribute_map.keys()
        unknown = [key for key in config.options if key not in known]
        if unknown:
            near = did_you_mean(unknown[0], known)
            raise ConfigError(f"model.options: {kind} has no option {shown(unknown[0])}{near}")
        wanted: dict[str, Any] = {
            "vocab_size": tokenizer.size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "max_position_embeddings": config.context_length,
            "bos_token_id": tokenizer.start_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": None,  # an inherited one would freeze the embedding of a word
        }
        if hasattr(built, "intermediate_size"):
            wanted["intermediate_size"] = 4 * config.hidden_size
        if hasattr(built, "num_key_value_heads"):
            wanted["num_key_value_heads"] = config.num_heads
        wanted |= {name: config.dropout for name in _DROPOUTS if hasattr(built, name)}
        own_names = {built.attribute_map.get(key) for key in wanted}
        taken = [key for key in config.options if key in wanted.keys() | own_names | {"model_type"}]
        if taken:
            raise ConfigError(f"model.options: {taken[0]!r} follows from the other fields of model")
        return AutoConfig.for_model(kind, **(wanted | config.options))
    except ConfigError:
        raise
    except Exception as error:  # whatever this type makes of the shape and the options
        raise ConfigError(f"model {kind!r}: {reason(error)}") from None


def build_model(config: ModelConfig, tokenizer: Tokenizer, seed: int) -> PreTrainedModel:
    """A freshly initialised causal LM; the same seed gives the same weights."""
    built = transformers_config(config, tokenizer)
    with torch.random.fork_rng(devices=[]):  # the model is built on the CPU, wherever it is trained
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(built)
        except Exception as error:  # no causal LM head, or an impossible option
            for key, value in config.options.items():
                if isinstance(error, KeyError) and error.args == (value,) and "act" in key:  # says no more than that
                    allowed = ", ".join(sorted(ACT2FN))
                    raise ConfigError(f"model.options.{key}: got {shown(value)}, allowed is {allowed}") from None
            raise ConfigError(f"model {config.model_type!r} cannot be built: {reason(error)}") from None
    return model


def num_parameters(model: PreTrainedModel) -> int:
    """Trainable parameters without position embeddings, as nanoGPT and the paper count them."""
    positions = getattr(getattr(model, "transformer", None), "wpe", None)
    total: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return total - (int(positions.weight.numel()) if positions is not None else 0)


def save_model(
    model: PreTrainedModel, tokenizer: Tokenizer, sampling: SamplingConfig, most_tokens: int, folder: Path
) -> None:
    """A plain transformers folder: safetensors, configuration, tokenizer, and how S_t was sampled."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,  # the library's default of 50 would cut tails
        top_p=1.0,
        min_p=sampling.min_p or None,
        max_new_tokens=sampling.max_new_tokens,
        bos_token_id=tokenizer.start_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )
    model.save_pretrained(folder)
    tokenizer.build(most_tokens).save_pretrained(folder)


def load_model(folder: Path) -> PreTrainedModel:
    """A model as `save_model` left it.

    Raises:
        ConfigError: weights are missing or of another shape, which transformers would draw at random.
    """
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    for state in ("missing", "mismatched", "unexpected"):
        names = sorted(map(str, info[f"{state}_keys"]))
        if names:
            shown_names = ", ".join(names[:3]) + (" …" if names[3:] else "")
            raise ConfigError(f"{len(names)} of its weights are {state}: {shown_names}")
    return in_own_memory(model)


def in_own_memory(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights in torch's own memory, not a file's, so that products are summed as before saving."""
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model.eval()
