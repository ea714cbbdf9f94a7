"""From D_{t-1} to M_t: the Lightning module around the LM, and one call that trains it.

The weights of the lowest validation loss are put back at the end. Patience would be no reason to stop,
since the loss stands still for long before the brackets are learned; the one safe reason is that there
is nothing left to gain: no model comes below the entropy of the validation set, and on a collapsed
dataset that floor is soon reached.
"""

import logging
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ouroloop.config import TrainConfig
from ouroloop.data import Batch, MixedDataModule
from ouroloop.packing import packed_attention, packed_logits, padded_logits

logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)  # tips, not messages
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning 2.6.6 under torch 2.13
warnings.filterwarnings("ignore", message=".*does not have many workers")  # batches are made in microseconds


class LanguageModel(pl.LightningModule):
    """Trains a causal LM by maximum likelihood: AdamW, warm-up, cosine decay, loss in nats.

    The training loss is the mean over the tokens of a batch; validation is the sum over an expression
    (its `<eos>` included), averaged over the expressions of the validation set.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = torch.compile(model) if config.compile else model
        self.config = config
        self.train_losses: list[Tensor] = []
        """Nats per token, one scalar per optimizer step."""
        self.validation_losses: list[tuple[int, float]] = []
        """(optimizer step, nats per expression)."""
        self.num_tokens = 0
        """Predicted tokens trained on, padding excluded."""
        self._validation_sum = 0.0
        self._num_validated = 0

    def _nats_sum(self, batch: Batch) -> Tensor:
        if self.config.batching == "packed":
            logits_NV = packed_logits(self.model, batch.ids_N, batch.positions_N, batch.layout)
        else:
            logits_NV = padded_logits(self.model, batch.ids_N, batch.layout)
        return F.cross_entropy(logits_NV.float(), batch.labels_N, reduction="none") @ batch.counts_N

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self._nats_sum(batch) / batch.num_tokens
        self.num_tokens += batch.num_tokens
        self.train_losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation_sum, self._num_validated = 0.0, 0

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._validation_sum += float(self._nats_sum(batch))
        self._num_validated += batch.num_expressions

    def on_validation_epoch_end(self) -> None:
        self.validation_losses.append((self.global_step, self._validation_sum / self._num_validated))

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        matrices = [p for p in self.parameters() if p.dim() >= 2]
        others = [p for p in self.parameters() if p.dim() < 2]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            fused=config.precision == "32-true",  # Lightning cannot clip a fused one under mixed precision
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


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
        self.nats = math.inf
        self._enough_nats = enough_nats
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LanguageModel)
        _, nats = module.validation_losses[-1]
        if nats < self.nats:  # never true of NaN: a diverged model is not chosen
            self.nats = nats
            self._weights = {name: weight.clone() for name, weight in module.state_dict().items()}
        trainer.should_stop = nats <= self._enough_nats

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self._weights:
            raise FloatingPointError("no validation loss was finite: the model diverged, lower train.learning_rate")
        module.load_state_dict(self._weights)


class _Progress(pl.Callback):
    def __init__(self, report: Callable[[int, float], None], every: int) -> None:
        self._report, self._every = report, every

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        if trainer.global_step % self._every == 0:
            assert isinstance(module, LanguageModel)
            self._report(trainer.global_step, float(module.train_losses[-1]))


@dataclass(frozen=True)
class Training:
    """What a training left behind, beside the weights."""

    validation_nats: float
    """Lowest validation loss, nats per expression; the weights are those of that moment."""
    train_losses: list[float]
    """Nats per token, one per optimizer step."""
    validation_losses: list[tuple[int, float]]
    """(optimizer step, nats per expression)."""
    num_tokens: int
    """Predicted tokens trained on, `<eos>` included and padding excluded."""


def train(
    model: PreTrainedModel,
    data: MixedDataModule,
    config: TrainConfig,
    seed: int,
    report: Callable[[int, float], None],
) -> Training:
    """Trains `model` in place and leaves it with its best weights, in evaluation mode.

    `report` gets (optimizer step, nats per token) about a hundred times; `seed` decides the dropout.

    Raises:
        ConfigError: the model cannot be trained packed.
        FloatingPointError: no validation loss was finite.
    """
    torch.manual_seed(seed)
    module = LanguageModel(model, config)
    best = BestWeights(data.validation_entropy_nats + config.stop_gap_nats if config.stop_gap_nats else -math.inf)
    trainer = pl.Trainer(
        accelerator=config.accelerator,
        devices=1,
        strategy=config.strategy,
        precision=config.precision,
        deterministic="warn" if torch.cuda.is_available() else None,
        max_steps=config.num_steps,
        gradient_clip_val=config.gradient_clip,
        val_check_interval=min(config.validate_every, config.num_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[best, _Progress(report, max(1, config.num_steps // 100))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model.train()
    with packed_attention(model) if config.batching == "packed" else nullcontext():
        trainer.fit(module, datamodule=data)
    model.to(trainer.strategy.root_device).eval()  # Lightning takes it back to the CPU
    losses = torch.stack(module.train_losses).tolist()
    return Training(best.nats, losses, module.validation_losses, module.num_tokens)
