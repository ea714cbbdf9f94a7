"""The network as a learner: M_t trained from scratch on D_{t-1}, sampled and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ouroloop.config import ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.base import Report, Samples, Training
from ouroloop.learner.network import sampling
from ouroloop.learner.network.batches import MixedDataModule, packed_attention
from ouroloop.learner.network.model import build_model, load_model, num_parameters, save_model
from ouroloop.learner.network.train import build_trainer, train
from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array, Tokenizer


@dataclass(frozen=True)
class Network:
    model: PreTrainedModel
    tokenizer: Tokenizer
    config: SamplingConfig
    training: Training | None = None
    """None when it was loaded."""

    def sample(self, count: int, rng: np.random.Generator, prompt: str = "") -> Samples:
        return sampling.sample(self.model, self.tokenizer, count, self.config, rng, prompt)

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        return sampling.log_probabilities(self.model, self.tokenizer, texts, temperatures)

    def probabilities(self) -> None:
        return None

    @property
    def num_positions(self) -> int:
        """Tokens that it has positions for, the start symbol's counted."""
        return int(self.model.config.max_position_embeddings)

    def save(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, self.config, folder)


@dataclass(frozen=True)
class NetworkLearner:
    model: ModelConfig
    train: TrainConfig
    sampling: SamplingConfig
    tokenizer: Tokenizer

    is_registrable = True

    @property
    def description(self) -> str:
        parameters = num_parameters(build_model(self.model, self.tokenizer, 0))
        return f"{self.model.model_type}, {parameters:,} parameters without position embeddings"

    @property
    def device(self) -> str:
        wanted = self.train.accelerator
        if wanted in ("auto", "gpu") and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        return "mps" if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"

    def check(self) -> None:
        build_trainer(self.train, [])
        model = build_model(self.model, self.tokenizer, 0)
        sampling.require_causal(model, self.tokenizer)
        if self.train.batching == "packed":
            with packed_attention(model):
                pass  # entering it refuses a model that it would change

    def fit(self, dataset: Dataset, streams: Streams, report: Report = lambda *_: None) -> Network:
        torch.set_num_threads(self.train.num_threads)
        data = MixedDataModule(dataset, self.tokenizer, self.train, streams.numpy("split"))
        model = build_model(self.model, self.tokenizer, streams.torch("init"))
        training = train(model, data, self.train, streams.torch("dropout"), report)
        return Network(model, self.tokenizer, self.sampling, training)

    def load(self, folder: Path) -> Network:
        return Network(load_model(folder), self.tokenizer, self.sampling)
