"""From D_{t-1} to M_t: the Lightning module around the LM, and one call that trains it.

The weights of the lowest validation loss are put back at the end. Running out of patience would be no reason to
stop, since the loss stands still for long before the brackets are learned; the one safe reason is that there is
nothing left to gain: no model comes below the entropy of the validation set, or of its soft targets, and on a
collapsed dataset that floor is soon reached.

A step on a small model takes some 15 ms, and the Trainer's own work around it 3 more. Therefore what the
Trainer sees as one batch is the whole stretch of steps between two validations, which the module walks
through by manual optimization.
"""

import logging
import math
import warnings
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import ConfigError, TrainConfig
from ouroloop.errors import reason
from ouroloop.learner.base import Progress, Training
from ouroloop.learner.network import graph, neox, world
from ouroloop.learner.network.batches import (
    Batch,
    MixedDataModule,
    layout,
    packed_attention,
    packed_logits,
    padded_logits,
)
from ouroloop.learner.network.graph import Filled, GraphedSteps
from ouroloop.learner.network.muon import Muon, block_matrices
from ouroloop.learner.network.neox import PackedNeoX
from ouroloop.learner.network.sharding import is_sharded, shard, sharding, whole_weights
from ouroloop.learner.network.targets import cross_entropy

logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)  # tips, not messages
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning 2.6.6 under torch 2.13
warnings.filterwarnings("ignore", message=".*does not have many workers")  # batches are made in microseconds


class LanguageModel(pl.LightningModule):
    """Trains a causal LM by maximum likelihood: AdamW, or Muon and AdamW, warm-up, cosine decay, loss in nats.

    The training loss is the mean over the tokens of a step; validation is the sum over a text
    (its `<eos>` included), averaged over the texts of the validation set.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig, report: Progress) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = torch.compile(model, dynamic=True) if config.compile else model
        self._plain = model
        self.config = config
        self._muon_groups = block_matrices(model) if config.muon_learning_rate else []
        self._by_hand: PackedNeoX | None = None
        self.graphed: GraphedSteps | None = None
        """What takes batches from the host, and computes the steps on them."""
        self._report = report
        self.train_losses: list[Tensor] = []
        """Nats per token, one scalar per optimizer step; where there are several processes, this one's part of it."""
        self.validation_losses: list[tuple[int, float]] = []
        """(optimizer step, nats per text)."""
        self.num_tokens = 0
        """Predicted tokens trained on, padding excluded."""
        self._validation_sum = 0.0
        self._num_validated = 0

    def configure_model(self) -> None:
        if self.config.strategy == "fsdp" and not is_sharded(self.model):
            shard(self.model, self.device_mesh["data_parallel"])

    @property
    def num_steps(self) -> int:
        """Optimizer steps done; Lightning's `global_step` counts the steps of each optimizer."""
        return len(self.train_losses)

    def summed_loss(self, batch: Batch) -> Tensor:
        """Loss in nats, summed over the texts of the batch."""
        return self.nats(self._logits(batch), batch)

    def nats(self, logits_NV: Tensor, batch: Batch | Filled) -> Tensor:
        """The same, from these logits."""
        logits_NV = logits_NV.float() / self.config.loss_temperature
        if batch.targets is None:
            nats_N = F.cross_entropy(logits_NV, batch.labels_N, reduction="none")
        else:
            nats_N = cross_entropy(logits_NV, batch.targets)
        with torch.autocast(self.device.type, enabled=False):  # which would sum in three digits
            return nats_N.float() @ batch.counts_N

    def _logits(self, batch: Batch) -> Tensor:
        lengths_B = np.array(batch.lengths_B)
        if self._by_hand is not None:
            return self._by_hand.logits(batch.ids_N, batch.positions_N, lengths_B)
        if self.config.batching == "packed":
            # A GPU computes padding faster than it starts a kernel for each block, whose number is compiled in
            single = self.config.compile or self.device.type != "cpu"
            blocks = layout(lengths_B, single_block=single, device=self.device)
            return packed_logits(self.model, batch.ids_N, batch.positions_N, blocks)
        return padded_logits(self.model, batch.ids_N, layout(lengths_B, single_block=True, device=self.device))

    def training_step(self, stretch: list[list[Batch]], index: int) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        for step in stretch:
            num_tokens = sum(batch.num_tokens for batch in step)
            if self.graphed is not None:
                self.train_losses.append(self.graphed.step(step[0], learning_rate_factor(self.num_steps, self.config)))
            else:
                optimizer.zero_grad()
                self.train_losses.append(torch.stack([self._backward(batch, num_tokens) for batch in step]).sum())
                optimizer.step()
                schedule.step()
            self.num_tokens += num_tokens
            if self.num_steps % max(1, self.config.num_steps // 100) == 0:
                self._report(self.num_steps, float(self.train_losses[-1]) * world.size())

    def _backward(self, batch: Batch, num_tokens: int) -> Tensor:
        """Add to the gradients those of the mean over `num_tokens` tokens; return what the batch adds to it."""
        loss = self.summed_loss(batch) / num_tokens
        self.manual_backward(loss * world.size())  # gradients of several processes are averaged
        return loss.detach()

    def _backward_filled(self, batch: Filled, num_tokens: Tensor) -> Tensor:
        """The same, of a batch on one device whose shape is fixed."""
        loss = self.nats(graph.logits(self.model, batch), batch) / num_tokens
        self.manual_backward(loss)
        return loss.detach()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here and not in the loop above: by now what mixed precision has scaled up is scaled down again.
        # By torch, since Lightning's own clipping refuses a fused optimizer in bfloat16, which scales nothing
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.config.gradient_clip)

    def on_fit_start(self) -> None:
        # Not before: by now the weights are where they will be trained
        self._by_hand = PackedNeoX(self._plain) if neox.fits(self._plain, self.config) else None
        if graph.fits(self.config, self.device):
            optimizer: Any = self.optimizers()
            self.graphed = GraphedSteps(
                self._backward_filled,
                self.on_before_optimizer_step,
                optimizer.optimizer,
                self.config.batch_size,
                self.device,
            )

    def on_fit_end(self) -> None:
        self.graphed = None
        self.zero_grad()  # what is left of the gradients would hold the memory of the graphs

    def on_validation_epoch_start(self) -> None:
        self._validation_sum, self._num_validated = 0.0, 0

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._validation_sum += float(self.summed_loss(batch))
        self._num_validated += batch.num_texts

    def on_validation_epoch_end(self) -> None:
        if world.size() > 1:
            own = torch.tensor(self._validation_sum, dtype=torch.float64, device=self.device)
            self._validation_sum = float(world.total(own))
        self.validation_losses.append((self.num_steps, self._validation_sum / self._num_validated))

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        taken = {id(matrix) for group in self._muon_groups for matrix in group["params"]}
        rest = [p for _, p in _trained(self) if id(p) not in taken]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
        ]
        rates: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.adam_beta1, config.adam_beta2)}
        optimizer: torch.optim.Optimizer
        if config.muon_learning_rate:
            groups = [*self._muon_groups, *(group | rates for group in groups)]
            optimizer = Muon(groups, config.muon_learning_rate, config.weight_decay)
        else:
            # A fused one would unscale gradients itself, after they were clipped
            optimizer = torch.optim.AdamW(groups, **rates, fused=config.precision != "16-mixed")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def _trained(module: pl.LightningModule) -> list[tuple[str, torch.nn.Parameter]]:
    """Its weights but for those that adapters leave as they were."""
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Portion of the peak learning rate at optimizer step `step`, counted from 0."""
    if step < config.num_warmup_steps:
        return (step + 1) / (config.num_warmup_steps + 1)
    progress = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.final_learning_rate_ratio + (1 - config.final_learning_rate_ratio) * cosine


class BestWeights(pl.Callback):
    """Keeps the weights of the lowest validation loss, in memory, and puts them back at the end.

    A loss of at most `enough_nats` ends the training.
    """

    def __init__(self, enough_nats: float) -> None:
        self.lowest_loss = math.inf
        self._enough_nats = enough_nats
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LanguageModel)
        _, nats = module.validation_losses[-1]
        if nats < self.lowest_loss:  # never true of NaN: a diverged model is not chosen
            self.lowest_loss = nats
            self._weights = {name: weight.detach().clone() for name, weight in _trained(module)}
        trainer.should_stop = nats <= self._enough_nats

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self._weights:
            raise FloatingPointError("no validation loss was finite: the model diverged; lower train.learning_rate")
        with torch.no_grad():
            for name, weight in _trained(module):  # of a sharded model this process's part
                weight.copy_(self._weights[name])


def build_trainer(config: TrainConfig, callbacks: list[pl.Callback]) -> pl.Trainer:
    """The Trainer of a configuration. Raises ConfigError when this machine, or Muon, cannot do what is asked of it."""
    if config.strategy == "fsdp" and config.muon_learning_rate:
        raise ConfigError("train.muon_learning_rate needs whole matrices, which train.strategy=fsdp splits; drop one")
    if config.strategy == "fsdp" and config.devices == 1:
        raise ConfigError("train.strategy=fsdp splits a model across devices: train.devices must be at least 2")
    if config.strategy == "fsdp" and config.compile:
        raise ConfigError("train.compile does not go with train.strategy=fsdp; drop one")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a kernel for each tensor
    torch.backends.cuda.enable_cudnn_sdp(False)  # whose gradients are not deterministic
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported")  # it is refused below
            trainer = pl.Trainer(
                accelerator=config.accelerator,
                devices=config.devices,
                strategy=_strategy(config),
                plugins=[world.Environment()],
                precision=config.precision,
                deterministic="warn" if torch.cuda.is_available() else None,
                max_epochs=1,
                val_check_interval=1,
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        asked = f"train.accelerator={config.accelerator} and train.strategy={config.strategy}"
        asked += f" on train.devices={config.devices}" if config.devices > 1 else ""
        raise ConfigError(f"this machine cannot train with {asked}: {reason(error)}") from None
    if config.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise ConfigError("train.precision=16-mixed needs a GPU, and none is used here; choose bf16-mixed or 32-true")
    if config.compile and trainer.strategy.root_device.type == "cpu":
        _require_compiler()
    return trainer


def _require_compiler() -> None:
    """Raise ConfigError where there is no C++ compiler, which torch would report in a page at the first step."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes a second, and few trainings need it

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise ConfigError(f"train.compile needs a C++ compiler here: {reason(error)}") from None


def _strategy(config: TrainConfig) -> str | ModelParallelStrategy:
    if config.strategy == "fsdp":
        return sharding(config.devices)
    return "ddp" if config.strategy == "auto" and config.devices > 1 else config.strategy


def train(
    model: PreTrainedModel,
    data: MixedDataModule,
    config: TrainConfig,
    seed: int,
    report: Progress,
) -> Training:
    """Train `model` in place and leave it with its best weights, in evaluation mode.

    `report` gets (optimizer step, nats per token) about a hundred times; `seed` decides the dropout.

    Raises:
        ConfigError: the model cannot be trained packed, or `build_trainer` refuses.
        FloatingPointError: no validation loss was finite.
    """
    torch.manual_seed(seed)
    trained = deepcopy(model) if config.strategy == "fsdp" else model  # sharding leaves nothing whole
    module = LanguageModel(trained, config, report)
    best = BestWeights(data.validation_floor_nats + config.stop_gap_nats if config.stop_gap_nats else -math.inf)
    trainer = build_trainer(config, [best])
    trained.train()
    with packed_attention(trained) if config.batching == "packed" else nullcontext():
        trainer.fit(module, datamodule=data)
    if is_sharded(trained):
        model.load_state_dict(whole_weights(trained), strict=world.rank() == 0)
    model.to(trainer.strategy.root_device).eval()  # Lightning moves it back to the CPU
    losses = world.total(torch.stack(module.train_losses)).tolist()
    return Training(best.lowest_loss, losses, module.validation_losses, module.num_tokens)
