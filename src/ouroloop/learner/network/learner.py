"""The network as a learner: M_t trained from scratch on D_{t-1}, sampled and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import PreTrainedModel

from ouroloop.config import ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.base import Report, Samples, Training
from ouroloop.learner.network import sampling, world
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
    spread: "Spread | None" = None
    """The devices that sample together; None where there is one."""

    def sample(self, count: int, rng: np.random.Generator, prompt: str = "") -> Samples:
        if self.spread is not None:
            return self.spread.sample(count, rng, prompt)
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
        if self.train.devices > 1:
            return self._fit_together(dataset, streams, report)
        return self.fit_here(dataset, streams, report)

    @property
    def root_device(self) -> torch.device:
        """Of this process."""
        device: torch.device = build_trainer(self.train, []).strategy.root_device
        return device

    def _fit_together(self, dataset: Dataset, streams: Streams, report: Report) -> Network:
        folder = TemporaryDirectory(prefix="ouroloop-model-")
        ranks = world.of(self.train.devices, is_gpu=self.root_device.type == "cuda")
        training, *_ = ranks.call(_fit_in_rank, report, self, dataset, streams, folder.name)
        model = load_model(Path(folder.name)).to(self.root_device)
        return Network(model, self.tokenizer, self.sampling, training, Spread(ranks, self, folder))

    def fit_here(self, dataset: Dataset, streams: Streams, report: Report) -> Network:
        """In this process, which may be one of several that do so together."""
        torch.set_num_threads(self.train.num_threads)
        data = MixedDataModule(dataset, self.tokenizer, self.train, streams.numpy("split"))
        model = build_model(self.model, self.tokenizer, streams.torch("init"))
        training = train(model, data, self.train, streams.torch(_own("dropout")), report)
        return Network(model, self.tokenizer, self.sampling, training)

    def load(self, folder: Path) -> Network:
        return Network(load_model(folder), self.tokenizer, self.sampling)


class Spread:
    """The devices that one model was trained on, and its folder, which each of them samples it from."""

    def __init__(self, ranks: world.World, learner: NetworkLearner, folder: TemporaryDirectory[str]) -> None:
        self._ranks, self._learner, self._folder = ranks, learner, folder

    def sample(self, count: int, rng: np.random.Generator, prompt: str) -> Samples:
        """Each device draws its share with a stream of its own, a branch of `rng`: another number, other texts."""
        num_ranks = self._learner.train.devices
        shares = [(len(range(rank, count, num_ranks)), own) for rank, own in enumerate(rng.spawn(num_ranks))]
        quiet = lambda *_: None  # noqa: E731
        parts = self._ranks.call(_sample_in_rank, quiet, self._learner, self._folder.name, shares, prompt)
        return Samples([text for part in parts for text in part.texts], [p for part in parts for p in part.log_probs])


def _own(name: str) -> str:
    """Of a stream that no two processes may share."""
    return f"{name}_{world.rank()}" if world.rank() else name


def _fit_in_rank(
    report: Report, learner: NetworkLearner, dataset: Dataset, streams: Streams, folder: str
) -> Training | None:
    network = learner.fit_here(dataset, streams, report)
    if world.rank() == 0:
        network.save(Path(folder))
    return network.training


def _sample_in_rank(
    _: Report, learner: NetworkLearner, folder: str, shares: list[tuple[int, np.random.Generator]], prompt: str
) -> Samples:
    torch.set_num_threads(learner.train.num_threads)
    count, rng = shares[world.rank()]
    model = _loaded(folder, learner.root_device)
    return sampling.sample(model, learner.tokenizer, count, learner.sampling, rng, prompt)


@lru_cache(maxsize=1)
def _loaded(folder: str, device: torch.device) -> PreTrainedModel:
    """From where all have it: the weights of what was trained here lie elsewhere in memory, and round otherwise."""
    return load_model(Path(folder)).to(device)
