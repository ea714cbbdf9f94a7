"""Training a model whose weights, gradients and optimizer state are shared out over the devices: torch's fully_shard.

Sampling and scoring need the whole model on each device again: what is saved is memory in training steps.
"""

from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import PreTrainedModel


def sharding(num_devices: int) -> ModelParallelStrategy:
    """Lightning's strategy for it; its `fsdp` is the older kind, which torch runs on GPUs alone."""
    return ModelParallelStrategy(data_parallel_size=num_devices, tensor_parallel_size=1)


def shard(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Block by block, so that only one at a time is whole anywhere."""
    blocks = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: object) -> bool:
    return isinstance(model, FSDPModule)


def whole_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every weight, in the first process; nothing in the others."""
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return weights
