"""Somebody's model that a loop starts from: a folder of transformers, or a name of the hub, at a fixed revision.

Its weights are read from safetensors alone, and nothing that came with it is run. Its own decoding, such as a top-k, is
left behind: S_t is sampled by ours.
"""

import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel

from ouroloop.config import ConfigError, PretrainedModelConfig
from ouroloop.errors import needs, reason
from ouroloop.learner.network.hub import downloaded
from ouroloop.learner.network.model import in_own_memory
from ouroloop.learner.network.subwords import Subwords

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def folder_of(config: PretrainedModelConfig) -> Path:
    """Where it lies on this machine, downloaded if need be.

    Raises:
        ConfigError: it is not to be had, not what it was when the loop began, or has no weights in safetensors.
    """
    if config.is_local:
        folder = Path(config.pretrained)
        content = config.content()
        if config.revision not in (None, content):
            raise ConfigError(f"{_name(config)} is not what it was: its revision is {content}, not {config.revision}")
    else:
        folder = downloaded(config.pretrained, config.pinned)
    _require_files(config, folder)
    return folder


def _name(config: PretrainedModelConfig) -> str:
    return f"model.pretrained {config.pretrained!r}"


def _require_files(config: PretrainedModelConfig, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{_name(config)} is no model of transformers: it has no config.json")
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        there_are = f", only {', '.join(pickled[:3])}, and nothing is unpickled" if pickled else ""
        raise ConfigError(f"{_name(config)} has no weights in safetensors{there_are}")
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ConfigError(f"{_name(config)} has no tokenizer: none of {', '.join(_TOKENIZERS)}")


def _shape(config: PretrainedModelConfig, folder: Path) -> PretrainedConfig:
    try:
        shape = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # an unknown type, or code of its own
        raise ConfigError(f"{_name(config)} cannot be read: {reason(error)}") from None
    if type(shape) not in AutoModelForCausalLM._model_mapping:
        raise ConfigError(f"{_name(config)} is no causal LM of transformers: its model_type is {shape.model_type!r}")
    return shape


def load_base(config: PretrainedModelConfig) -> PreTrainedModel:
    """In full precision, as every generation starts from it.

    Raises:
        ConfigError: it cannot be had, or is no causal LM.
    """
    folder = folder_of(config)
    shape = _shape(config, folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=shape,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers and safetensors make of a damaged file
        raise ConfigError(f"{_name(config)} cannot be loaded: {reason(error)}") from None
    lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if lacking:  # transformers would draw them at random
        raise ConfigError(f"{_name(config)} is no causal LM: {len(lacking)} weights are missing, as {lacking[0]}")
    num_rows = model.get_input_embeddings().weight.shape[0]
    if (size := load_tokenizer(config).size) > num_rows:
        raise ConfigError(f"{_name(config)}: its tokenizer has {size:,} tokens, the model embeds {num_rows:,}")
    return in_own_memory(model)


def num_positions(config: PretrainedModelConfig) -> int:
    """What its texts may have of tokens: `context_length`, or as many as the model has positions for."""
    has = getattr(_shape(config, folder_of(config)).get_text_config(), "max_position_embeddings", None)
    if has is not None and config.context_length is not None and config.context_length > has:
        raise ConfigError(f"model.context_length {config.context_length} must be at most {has}, its positions")
    wanted = config.context_length or has
    if wanted is None:
        raise ConfigError(f"{_name(config)} says no number of positions: give model.context_length")
    return int(wanted)


def load_tokenizer(config: PretrainedModelConfig) -> Subwords:
    return _tokenizer(config, folder_of(config))


@lru_cache(maxsize=4)
def _tokenizer(config: PretrainedModelConfig, folder: Path) -> Subwords:
    try:
        library = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ConfigError(f"{_name(config)}: its tokenizer cannot be loaded: {reason(error)}") from None
    return Subwords(library, num_positions(config))


def require_peft(config: PretrainedModelConfig) -> None:
    """Raises ConfigError when adapters are wanted and the library for them is not there."""
    if config.lora_rank is not None and find_spec("peft") is None:
        raise needs("model.lora_rank", "peft", "text")


def adapters(model: PreTrainedModel, config: PretrainedModelConfig, seed: int) -> Any:
    """Low-rank matrices beside all linear layers of the blocks, put into the model: what is trained instead of them.

    `merge_and_unload` adds them to the weights and gives the plain model back.
    """
    from peft import LoraConfig, LoraModel

    assert config.lora_rank is not None
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")  # GPT-2's layers are stored transposed
        torch.manual_seed(seed)
        return LoraModel(model, lora, "default")
