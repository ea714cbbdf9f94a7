"""The network as a learner: M_t trained on D_{t-1}, by default from scratch, sampled and scored.

It may be given earlier models: to be taught by them, or to start where the last one is.
"""

import copy
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ouroloop.config import ConfigError, ModelConfig, PretrainedModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.base import Fitted, Progress, Samples, Training
from ouroloop.learner.network import pretrained, sampling, targets, world
from ouroloop.learner.network.batches import MixedDataModule, Teach, packed_attention
from ouroloop.learner.network.ensemble import mean_of
from ouroloop.learner.network.fitted import Network, members_in
from ouroloop.learner.network.model import build_model, in_own_memory, num_parameters
from ouroloop.learner.network.prefixes import require_causal
from ouroloop.learner.network.subwords import Subwords, byte_pairs, of_size, saved
from ouroloop.learner.network.targets import Ids, Targets
from ouroloop.learner.network.train import build_trainer, train
from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Tokenizer


@dataclass(frozen=True)
class NetworkLearner:
    model: ModelConfig | PretrainedModelConfig
    train: TrainConfig
    sampling: SamplingConfig
    own_tokenizer: Tokenizer | None
    """The language's, or one learnt from D_0 where it has none. A pretrained model has its own instead."""

    @property
    def is_registrable(self) -> bool:
        """Not if it is an ensemble, which is not a single model of transformers."""
        return self.model.num_members == 1

    @property
    def num_previous(self) -> int | None:
        return self.train.num_previous

    @property
    def tokenizer(self) -> Tokenizer:
        """Its own or, while that is still to be learnt, a stand-in of the same size."""
        if isinstance(self.model, PretrainedModelConfig):
            return pretrained.load_tokenizer(self.model)
        own = self.own_tokenizer
        return of_size(self.model.vocabulary_size, self.model.context_length) if own is None else own

    def prepared(self, original: Sequence[str]) -> "NetworkLearner":
        """The same with tokens learnt from D_0, where neither the language nor the model has any."""
        if isinstance(self.model, PretrainedModelConfig):
            pretrained.load_tokenizer(self.model).require_room(original, "the model's positions or context_length,")
            return self
        if self.own_tokenizer is not None:
            return self
        learnt = byte_pairs(original, self.model.vocabulary_size, self.model.context_length)
        learnt.require_room(original, "model.context_length")
        return replace(self, own_tokenizer=learnt)

    def num_lost(self, texts: Sequence[str]) -> int | None:
        tokenizer = self.tokenizer
        return tokenizer.num_lost(texts) if isinstance(tokenizer, Subwords) else None

    @property
    def description(self) -> str:
        model = self._start(None, 0)
        parameters = num_parameters(model)
        each = "" if self.model.num_members == 1 else f"{self.model.num_members} networks, each "
        return f"{each}{model.config.model_type}, {parameters:,} parameters without position embeddings"

    @property
    def device(self) -> str:
        wanted = self.train.accelerator
        if wanted in ("auto", "gpu") and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        return "mps" if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"

    def check(self) -> None:
        build_trainer(self.train, [])
        self._require_top_k()
        model = self._start(None, 0)
        if isinstance(self.model, PretrainedModelConfig):
            pretrained.require_peft(self.model)
            pretrained.require_positions(self.model, self.sampling.max_new_tokens)
        require_causal(model, self.tokenizer)
        if self.train.batching == "packed":
            with packed_attention(model):
                pass  # entering it refuses a model that it would change

    def _require_top_k(self) -> None:
        if self.train.targets == "soft" and self.train.soft_top_k is None and self.tokenizer.size > targets.MOST_TOKENS:
            raise ConfigError(
                f"train.targets=soft needs train.soft_top_k, such as 256: a vocabulary of {self.tokenizer.size:,} "
                f"tokens is too large to keep the probability of each one (at most {targets.MOST_TOKENS:,})"
            )

    def fit(
        self,
        dataset: Dataset,
        streams: Streams,
        report: Progress = lambda *_: None,
        previous: Sequence[Fitted] = (),
    ) -> Network:
        earlier = [model for model in previous if isinstance(model, Network)]
        assert len(earlier) == len(previous), "a network learns from networks"
        torch.set_num_threads(self.train.num_threads)  # for what is scored here too
        if self.train.devices > 1:
            return self._fit_together(dataset, streams, report, earlier)
        return self.fit_here(dataset, streams, report, earlier)

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        device: torch.device = build_trainer(self.train, []).strategy.root_device
        return device

    def _fit_together(
        self, dataset: Dataset, streams: Streams, report: Progress, earlier: Sequence[Network]
    ) -> Network:
        ranks = world.of(self.train.devices, is_gpu=self.root_device.type == "cuda")
        spread = Spread(ranks, self)
        with TemporaryDirectory(prefix="ouroloop-earlier-") as aside:
            places = [Path(aside) / str(i) for i in range(len(earlier))]
            for place, network in zip(places, earlier, strict=True):
                place.mkdir()
                network.save(place)
            training, *_ = ranks.call(_fit_in_rank, report, self, dataset, streams, spread.folder, places)
        model = self.load(Path(spread.folder)).model.to(self.root_device)
        return Network(model, self.tokenizer, self.sampling, training, spread)

    def fit_here(
        self, dataset: Dataset, streams: Streams, report: Progress, earlier: Sequence[Network] = ()
    ) -> Network:
        """Fit in this process, which may be one of several that do so together."""
        teach = self._teach(earlier, streams.numpy("teachers"))
        starts = earlier[-1].members if earlier and self.train.start == "previous" else None
        config = self.train
        if starts is not None and config.num_tuning_steps is not None:
            config = config.changed(num_steps=config.num_tuning_steps)
        models, trainings = list[PreTrainedModel](), list[Training]()
        for i in range(self.model.num_members):
            data = MixedDataModule(dataset, self.tokenizer, config, streams.numpy(_name("split", i)), teach)
            start = None if starts is None else starts[i]
            model = self._start(start, seed := streams.torch(_name("init", i)))
            after = partial(lambda done, step, nats: report(done + step, nats), i * config.num_steps)
            adapted = self._adapted(model, seed)
            trainings.append(train(model, data, config, streams.torch(_own(_name("dropout", i))), after))
            if adapted is not None:
                model = in_own_memory(adapted.merge_and_unload())
            if start is not None and config.extrapolation:
                _extrapolate(model, start, config.extrapolation)
            models.append(model)
        return Network(mean_of(models), self.tokenizer, self.sampling, _joined(trainings))

    def _start(self, weights_of: PreTrainedModel | None, seed: int) -> PreTrainedModel:
        if weights_of is not None:
            return copy.deepcopy(weights_of)
        if isinstance(self.model, PretrainedModelConfig):
            return pretrained.load_base(self.model)
        return build_model(self.model, self.tokenizer, seed)

    def _adapted(self, model: PreTrainedModel, seed: int) -> Any | None:
        """The model with what is trained instead of its weights; None where they are trained themselves."""
        if not isinstance(self.model, PretrainedModelConfig) or self.model.lora_rank is None:
            return None
        return pretrained.adapters(model, self.model, seed)

    def _teach(self, earlier: Sequence[Network], rng: np.random.Generator) -> Teach | None:
        """None where every text teaches its tokens, as for M_1, which has no model before it."""
        config = self.train
        if config.targets != "soft" or not earlier:
            return None
        teachers = earlier if config.num_teachers is None else earlier[-config.num_teachers :]
        models = [teacher.model for teacher in teachers]
        if config.teaching == "mean":
            models = [mean_of([member for teacher in teachers for member in teacher.members])]
        taught = dict[int, Targets]()

        def teach(rows: list[Ids]) -> list[Targets]:
            if not taught:  # all members of an ensemble are taught the same
                teacher_of, device = rng.integers(len(models), size=len(rows)), self.root_device
                size, top_k = self.tokenizer.size, config.soft_top_k
                for number, model in enumerate(models):
                    model.to(device)  # where it computed before it was saved
                    own = np.flatnonzero(teacher_of == number).tolist()
                    texts = [rows[i] for i in own]
                    found = targets.of_model(model, texts, size, top_k, config.loss_temperature)
                    taught.update(zip(own, found, strict=True))
            return [taught[i] for i in range(len(rows))]

        return teach

    def load(self, folder: Path) -> Network:
        model = members_in(folder, self.model.num_members)
        if isinstance(self.model, PretrainedModelConfig):
            return Network(model, self.tokenizer, self.sampling)
        tokenizer = self.own_tokenizer or saved(folder)
        return Network(model, tokenizer, self.sampling)


def _name(stream: str, member: int) -> str:
    """The first member draws as a single network does."""
    return f"{stream}/{member}" if member else stream


def _joined(trainings: Sequence[Training]) -> Training:
    """All of them, one after another; the validation loss is the mean of the members', at least that of their mean."""
    losses, points = list[float](), list[tuple[int, float]]()
    for training in trainings:
        points += [(len(losses) + step, nats) for step, nats in training.validation_losses]
        losses += training.train_losses
    mean = sum(training.validation_nats for training in trainings) / len(trainings)
    return Training(mean, losses, points, sum(training.num_tokens for training in trainings))


@torch.no_grad()
def _extrapolate(model: PreTrainedModel, start: PreTrainedModel, ratio: float) -> None:
    """Move `model` to the other side of `start`, at `ratio` times its distance from there."""
    for trained, before in zip(model.parameters(), start.parameters(), strict=True):
        origin = before.to(trained.device)
        trained.copy_(origin + ratio * (origin - trained))


class Spread:
    """The devices of one model, and the folder that each samples it from, which is deleted with this object."""

    def __init__(self, ranks: world.World, learner: NetworkLearner) -> None:
        self._ranks, self._learner = ranks, learner
        self.folder = mkdtemp(prefix="ouroloop-model-")
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def sample(self, count: int, rng: np.random.Generator, prompt: str) -> Samples:
        """Each device draws its share with a stream of its own, a branch of `rng`: another number draws other texts."""
        num_ranks = self._learner.train.devices
        shares = [(len(range(rank, count, num_ranks)), own) for rank, own in enumerate(rng.spawn(num_ranks))]
        quiet = lambda *_: None  # noqa: E731
        parts = self._ranks.call(_sample_in_rank, quiet, self._learner, self.folder, shares, prompt)
        return Samples([text for part in parts for text in part.texts], [p for part in parts for p in part.log_probs])


def _own(name: str) -> str:
    """The name of a stream that no two processes may share."""
    return f"{name}_{world.rank()}" if world.rank() else name


def _fit_in_rank(
    report: Progress, learner: NetworkLearner, dataset: Dataset, streams: Streams, folder: str, earlier: Sequence[Path]
) -> Training | None:
    torch.set_num_threads(learner.train.num_threads)
    network = learner.fit_here(dataset, streams, report, [learner.load(place) for place in earlier])
    if world.rank() == 0:
        network.save(Path(folder))
    return network.training


def _sample_in_rank(
    _: Progress, learner: NetworkLearner, folder: str, shares: list[tuple[int, np.random.Generator]], prompt: str
) -> Samples:
    torch.set_num_threads(learner.train.num_threads)
    count, rng = shares[world.rank()]
    model = _loaded(folder, learner.model.num_members, learner.root_device)
    return sampling.sample(model, learner.tokenizer, count, learner.sampling, rng, prompt)


@lru_cache(maxsize=1)
def _loaded(folder: str, num_members: int, device: torch.device) -> PreTrainedModel:
    """From where all load it: the weights of what was trained here lie elsewhere in memory, and round differently."""
    model: PreTrainedModel = members_in(Path(folder), num_members).to(device)
    return model
