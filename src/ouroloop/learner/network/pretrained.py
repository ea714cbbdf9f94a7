"""Somebody's model, at a fixed revision: one that a loop starts from, a folder of transformers or a name of the hub.

Its weights are read from safetensors alone, and nothing that came with it is run. Its own decoding, such as a top-k, is
not used: S_t is sampled by ours.
"""

import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ouroloop.config import ConfigError, NamedModel, PretrainedModelConfig
from ouroloop.errors import needs, reason
from ouroloop.fetching import OFFLINE_BY_CHOICE, online
from ouroloop.learner.network.model import in_own_memory
from ouroloop.learner.network.rows import positions
from ouroloop.learner.network.subwords import Subwords

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]
"""What is taken from the hub: neither pickled weights nor code."""


def folder_of(model: NamedModel) -> Path:
    """Where it lies on this machine, downloaded if need be.

    Raises:
        ConfigError: it cannot be had, is not what it was when the loop began, or has no weights in safetensors.
    """
    folder = model.folder if model.is_local else downloaded(model)
    if model.is_local and model.revision not in (None, content := model.content()):
        raise ConfigError(f"{model} has changed: its revision is {content}, not {model.revision}")
    _require_files(model, folder)
    return folder


def downloaded(model: NamedModel) -> Path:
    """The folder of a name of the hub, from the cache if it is there.

    Raises:
        ConfigError: there is no such model, or it cannot be reached.
    """
    name, commit = model.name, model.pinned
    try:
        try:
            return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED, local_files_only=True))
        except Exception:
            if OFFLINE_BY_CHOICE:
                raise
        with online():
            return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED))
    except Exception as error:  # the network, the hub and its cache each raise their own
        raise ConfigError(f"cannot get {model} at {commit[:12]}: {reason(error)}") from None


def _require_files(model: NamedModel, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{model} is not a model of transformers: it has no config.json")
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        there_are = f", only {', '.join(pickled[:3])}, and nothing is unpickled" if pickled else ""
        raise ConfigError(f"{model} has no weights in safetensors{there_are}")
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ConfigError(f"{model} has no tokenizer: none of {', '.join(_TOKENIZERS)}")


def shape_of(model: NamedModel, folder: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # an unknown type, or code of its own
        raise ConfigError(f"{model} cannot be read: {reason(error)}") from None


def weights_of(
    auto: Any, model: NamedModel, folder: Path, shape: PretrainedConfig
) -> tuple[PreTrainedModel, list[str]]:
    """A model in full precision, by one of transformers' classes, and the names of weights that it draws at random.

    Raises:
        ConfigError: a file is damaged, or of another shape.
    """
    try:
        loaded, info = auto.from_pretrained(
            folder,
            config=shape,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers and safetensors make of a damaged file
        raise ConfigError(f"{model} cannot be loaded: {reason(error)}") from None
    return in_own_memory(loaded), sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))


def words_of(model: NamedModel, folder: Path) -> PreTrainedTokenizerBase:
    """Its tokenizer."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ConfigError(f"{model}: its tokenizer cannot be loaded: {reason(error)}") from None


def require_rows(model: NamedModel, loaded: PreTrainedModel, num_tokens: int) -> None:
    """Raise ConfigError where the model embeds fewer tokens than its tokenizer has."""
    num_rows = loaded.get_input_embeddings().weight.shape[0]
    if num_tokens > num_rows:
        raise ConfigError(f"{model}: its tokenizer has {num_tokens:,} tokens, the model embeds {num_rows:,}")


def _causal_shape(model: NamedModel, folder: Path) -> PretrainedConfig:
    shape = shape_of(model, folder)
    if type(shape) not in AutoModelForCausalLM._model_mapping:
        raise ConfigError(f"{model} is not a causal LM of transformers: its model_type is {shape.model_type!r}")
    return shape


def load_base(config: PretrainedModelConfig) -> PreTrainedModel:
    """The model as every generation starts from it.

    Raises:
        ConfigError: it cannot be had, or is not a causal LM.
    """
    folder = folder_of(config.named)
    base, lacking = weights_of(AutoModelForCausalLM, config.named, folder, _causal_shape(config.named, folder))
    if lacking:
        raise ConfigError(
            f"{config.named} is not a causal LM: {len(lacking)} weights are missing, such as {lacking[0]}"
        )
    require_rows(config.named, base, load_tokenizer(config).size)
    return base


def num_positions(config: PretrainedModelConfig) -> int:
    """How many tokens its texts may have: `context_length`, or as many as the model has positions for."""
    shape = _causal_shape(config.named, folder_of(config.named))
    has = positions(shape)
    if has is not None and config.context_length is not None and config.context_length > has:
        raise ConfigError(
            f"model.context_length {config.context_length} must be at most {has}, the number of its positions, and "
            "sampling.max_new_tokens less"
        )
    wanted = config.context_length or has
    if wanted is None:
        raise ConfigError(f"{config.named} does not say how many positions it has: give model.context_length")
    return int(wanted)


def require_positions(config: PretrainedModelConfig, max_new_tokens: int) -> None:
    """Raise ConfigError where the model has no positions for all that it may write."""
    if (has := num_positions(config)) <= max_new_tokens:
        raise ConfigError(
            f"{config.named} has {has} positions, and must have at least {max_new_tokens + 1}: the start token and "
            f"sampling.max_new_tokens, which may be at most {has - 1}"
        )


def load_tokenizer(config: PretrainedModelConfig) -> Subwords:
    return _tokenizer(config, folder_of(config.named))


@lru_cache(maxsize=4)
def _tokenizer(config: PretrainedModelConfig, folder: Path) -> Subwords:
    return Subwords(words_of(config.named, folder), num_positions(config))


def require_peft(config: PretrainedModelConfig) -> None:
    """Raise ConfigError when adapters are wanted and the library for them is not installed."""
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
