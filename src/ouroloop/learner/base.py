"""What a learner is: the loop, the registry and the report know one only by these protocols."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array

Progress = Callable[[int, float], None]
"""Told about (optimizer step, nats per token) now and then."""


class Samples(NamedTuple):
    """Texts that a model wrote, and how probable each was."""

    texts: list[str]
    log_probs: list[float]
    """Log-probability of each text, in nats, under the distribution that it was drawn from."""


@dataclass(frozen=True)
class Training:
    """What a training left behind, beside the weights."""

    validation_nats: float
    """Lowest validation loss, nats per text, that of the weights unless they were extrapolated; of several members, the
    mean of theirs."""
    train_losses: list[float]
    """Nats per token, one per optimizer step."""
    validation_losses: list[tuple[int, float]]
    """(optimizer step, nats per text)."""
    num_tokens: int
    """Predicted tokens trained on, `<eos>` included and padding excluded."""


class Fitted(Protocol):
    """M_t. What it samples and what it scores is one distribution: the softmax at its sampling temperature."""

    @property
    def training(self) -> Training | None:
        """None where there was nothing to train."""

    def sample(self, count: int, rng: np.random.Generator) -> Samples:
        """`count` independent texts; `rng` makes every draw."""

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        """Log-probabilities in nats, [temperature, text]; -inf for what it never writes."""

    def probabilities(self) -> Mapping[str, float] | None:
        """The whole distribution that it samples from, where that is a list of texts; else None."""

    def num_tokens(self, texts: Sequence[str]) -> Array:
        """How many tokens it predicts of each text, `<eos>` counted: what `log_prob` sums over."""

    def save(self, folder: Path) -> None:
        """Write files from which `Learner.load` makes the same model."""


@runtime_checkable
class Continuing(Protocol):
    """A fitted model that can go on with a text that somebody began."""

    def continued(self, beginnings: Sequence[str], rng: np.random.Generator) -> Samples:
        """A text for each beginning, in order, including it; the log-probability is that of the rest, given it."""


class Learner(Protocol):
    @property
    def device(self) -> str:
        """The kind of device that it computes on, as another kind may round differently: cpu, or a GPU's name."""

    @property
    def description(self) -> str:
        """What it is and how large, in a few words."""

    @property
    def is_registrable(self) -> bool:
        """Whether its models are worth keeping: one that *is* its training set is on record already."""

    @property
    def num_previous(self) -> int | None:
        """How many of the latest models `fit` makes use of; None for all of them, 0 for most learners."""

    def prepared(self, original: Sequence[str]) -> "Learner":
        """The same learner for a loop that starts from these texts, D_0, with whatever it takes from them.

        Raises:
            ConfigError: it cannot learn them.
        """

    def num_lost(self, texts: Sequence[str]) -> int | None:
        """How many of these texts its own tokens do not reproduce exactly; None where it has no tokens of its own."""

    def check(self) -> None:
        """Check everything that can be known before anything is recorded, and without D_0.

        Raises:
            ConfigError: it cannot learn or be sampled as configured.
        """

    def fit(
        self,
        dataset: Dataset,
        streams: Streams,
        report: Progress = lambda *_: None,
        previous: Sequence[Fitted] = (),
    ) -> Fitted:
        """M_t from D_{t-1} and the latest `num_previous` of M_1 .. M_{t-1}, or fewer where there are fewer.

        The same dataset, streams and models give the same model, bit for bit on one machine.

        Raises:
            FloatingPointError: it diverged.
        """

    def load(self, folder: Path) -> Fitted:
        """The model that `save` wrote, which teaches as the one that was saved does, bit for bit."""
