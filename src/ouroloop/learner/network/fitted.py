"""A network that has been fitted: it samples, scores, edits, goes on with texts, and is saved.

It knows nothing of training, hence nothing of Lightning, which takes longer to load than a model takes to write a
hundred texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.base import Samples, Training
from ouroloop.learner.network import sampling, scoring
from ouroloop.learner.network.continuing import continued
from ouroloop.learner.network.editing import edit
from ouroloop.learner.network.ensemble import Mean, mean_of
from ouroloop.learner.network.model import load_model, save_model
from ouroloop.learner.network.rows import most_tokens
from ouroloop.testbed.base import Array, Tokenizer


class Together(Protocol):
    """Devices that each have the model."""

    def sample(self, count: int, rng: np.random.Generator, prompt: str) -> Samples: ...


@dataclass(frozen=True)
class Network:
    model: PreTrainedModel
    """One, or the mean of several."""
    tokenizer: Tokenizer
    config: SamplingConfig
    training: Training | None = None
    """None when it was loaded."""
    spread: "Together | None" = None
    """The devices that sample together; None where there is one."""

    def sample(self, count: int, rng: np.random.Generator, prompt: str = "") -> Samples:
        if self.spread is not None:
            return self.spread.sample(count, rng, prompt)
        return sampling.sample(self.model, self.tokenizer, count, self.config, rng, prompt)

    def continued(self, beginnings: Sequence[str], rng: np.random.Generator) -> Samples:
        return continued(self.model, self.tokenizer, beginnings, self.config, rng)

    def log_prob(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array:
        return scoring.log_probabilities(self.model, self.tokenizer, texts, temperatures, self.config.min_p)

    def edit(self, texts: Sequence[str], threshold: float, rng: np.random.Generator) -> list[str]:
        return edit(self.model, self.tokenizer, texts, threshold, rng)

    def probabilities(self) -> None:
        return None

    def num_tokens(self, texts: Sequence[str]) -> Array:
        return np.array([len(self.tokenizer.encode(text)) - 1 for text in texts], dtype=np.float64)

    @property
    def num_positions(self) -> int:
        """How many tokens of a text it takes, the start symbol counted."""
        return most_tokens(self.model, self.tokenizer)

    @property
    def members(self) -> list[PreTrainedModel]:
        return list(self.model.members) if isinstance(self.model, Mean) else [self.model]

    def save(self, folder: Path) -> None:
        """Write a folder of transformers, which contains the folders of all members but the first."""
        for i, member in enumerate(self.members):
            save_model(member, self.tokenizer, self.config, self.num_positions, _of_member(folder, i))


def _of_member(folder: Path, number: int) -> Path:
    return folder / f"member-{number}" if number else folder


def members_in(folder: Path, count: int) -> Any:
    """The network that was saved there: the mean of `count` members."""
    return mean_of([load_model(_of_member(folder, i)) for i in range(count)])
