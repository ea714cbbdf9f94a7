"""A training step as one CUDA graph: its hundreds of kernels are launched at once.

A small model keeps a GPU busy for less time than the host needs to launch what it computes. A graph has a fixed shape,
so a batch is filled up to one of a few shapes with texts that count for nothing; each shape is run once as it is, and
then recorded for the next time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import TrainConfig
from ouroloop.learner.network.batches import Batch, Layout, layout, packed_logits, sent

_TOKENS, _LENGTHS = 512, 32
"""The tokens of a batch, and the length of its longest text, are filled up to multiples of these."""


def fits(config: TrainConfig, device: torch.device) -> bool:
    """Whether the steps of a training are all alike but for their shape, and computed where that pays."""
    return (
        device.type == "cuda"
        and (config.batching, config.accumulate, config.devices, config.targets) == ("packed", 1, 1, "tokens")
        and config.precision != "16-mixed"  # which skips a step that overflows
    )


class Filled(NamedTuple):
    """A batch of fixed shape: N tokens, of which the last count for nothing, in one block."""

    ids_N: Tensor
    labels_N: Tensor
    positions_N: Tensor
    counts_N: Tensor
    blocks: Layout

    @property
    def targets(self) -> None:
        """Each token teaches itself."""
        return None

    @property
    def tensors(self) -> list[Tensor]:
        *of_tokens, (_, *of_places) = self
        return [*of_tokens, *of_places]


def filled(batch: Batch, size: int, device: torch.device | str = "cpu") -> Filled:
    """A batch of at most `size` texts, filled up with texts of zeros, all at position 0, which every model has."""
    num_tokens = len(batch.ids_N)
    longest = -(-max(batch.lengths_B) // _LENGTHS) * _LENGTHS
    missing = -num_tokens % _TOKENS
    added = [min(longest, missing - first) for first in range(0, missing, longest)]
    lengths_B = np.zeros(size + -(-_TOKENS // _LENGTHS), dtype=np.int64)
    lengths_B[: len(batch.lengths_B) + len(added)] = [*batch.lengths_B, *added]

    def longer(values_N: Tensor) -> Tensor:
        return sent(torch.cat([values_N, values_N.new_zeros(missing)]), device)

    return Filled(
        longer(batch.ids_N),
        longer(batch.labels_N),
        longer(batch.positions_N),
        longer(batch.counts_N),
        layout(lengths_B, single_block=True, longest=longest, device=device),
    )


def logits(model: PreTrainedModel, batch: Filled) -> Tensor:
    """Logits (N, V) of what follows each token."""
    return packed_logits(model, batch.ids_N, batch.positions_N, batch.blocks)


class GraphedSteps:
    """Optimizer steps on batches, each computed by `backward`, which returns its loss and leaves gradients.

    On a CPU, which has no graphs, each is run as it is.
    """

    def __init__(
        self,
        backward: Callable[[Filled, Tensor], Tensor],
        clip: Callable[[torch.optim.Optimizer], None],
        optimizer: torch.optim.Optimizer,
        size: int,
        device: torch.device,
    ) -> None:
        self._backward, self._clip, self._optimizer = backward, clip, optimizer
        self._size, self._device = size, device
        self._peaks = [float(group["initial_lr"]) for group in optimizer.param_groups]  # a schedule has begun by now
        self._num_tokens = torch.zeros((), device=device)
        self._recorded = dict[tuple[int, ...], tuple[Filled, torch.cuda.CUDAGraph, Tensor]]()
        if device.type == "cuda":
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["capturable"], group["lr"] = True, torch.tensor(float(group["lr"]), device=device)

    def step(self, batch: Batch, learning_rate_factor: float) -> Tensor:
        """The loss, as `backward` gives it."""
        given = filled(batch, self._size, self._device)
        self._num_tokens.fill_(batch.num_tokens)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"].fill_(peak * learning_rate_factor)
        if self._device.type != "cuda":
            return self._run(given)
        shape = (len(given.ids_N), *given.blocks.shapes[0])
        if shape not in self._recorded:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):  # on which it is recorded too
                loss = self._run(given)
            torch.cuda.current_stream().wait_stream(self._stream)
            self._recorded[shape] = (given, *self._record(given))
            return loss
        own, graph, result = self._recorded[shape]
        for to, values in zip(own.tensors, given.tensors, strict=True):
            to.copy_(values)
        graph.replay()
        return result.clone()

    def _run(self, given: Filled) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward(given, self._num_tokens)
        self._clip(self._optimizer)
        self._optimizer.step()
        return loss

    def _record(self, given: Filled) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        self._optimizer.zero_grad(set_to_none=True)  # so that the graph has gradients of its own
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = self._run(given)
        return graph, loss
