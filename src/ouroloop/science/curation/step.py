"""What a step is given, and what it gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ouroloop.config.curation import Oracle, Step
from ouroloop.errors import ConfigError
from ouroloop.science.dataset import Dataset
from ouroloop.testbed.base import Array


class UndeclaredError(ConfigError):
    """A step asked for something that it has not declared it needs."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Texts that may be learnt from, in random order: at first all that M_t was asked for."""

    data: Dataset
    log_probs: Array
    """Of each text that M_t wrote, in nats, under the distribution that it was drawn from; NaN for any other text."""

    def __len__(self) -> int:
        return len(self.data)

    @property
    def texts(self) -> Sequence[str]:
        return self.data.texts

    @property
    def written(self) -> frozenset[str]:
        """What M_t wrote of it."""
        return frozenset(compress(self.texts, ~np.isnan(self.log_probs)))

    def take(self, chosen: npt.NDArray[np.int64]) -> "Pool":
        """The texts at these places, in the order of the places, each of which may occur twice."""
        return Pool(self.data.take(chosen), self.log_probs[chosen])

    def where(self, is_kept: Sequence[bool] | npt.NDArray[np.bool_]) -> "Pool":
        return self.take(np.flatnonzero(is_kept))

    def with_others(self, others: Dataset) -> "Pool":
        """The same texts and, after them, others, which M_t did not write."""
        return Pool(self.data + others, np.concatenate([self.log_probs, np.full(len(others), np.nan)]))


class PreviousModel(Protocol):
    """M_t, for a step that needs more of it than its samples."""

    def edit(self, texts: Sequence[str], threshold: float, rng: np.random.Generator) -> list[str]:
        """Each text with every token drawn anew that it finds at least `threshold` probable after its beginning."""


@dataclass(frozen=True)
class Given:
    """All that a step may know beside its pool. An oracle is there only for a step that declared it."""

    wanted: int
    """m: what is kept beyond it is not learnt from."""
    generation: int
    """t."""
    log_probs_at_1: Callable[[Sequence[str]], Array]
    """Log-probabilities of texts under M_t itself, at temperature 1, in nats; what `sampling.min_p` cuts from its
    samples is cut here too. Of any texts for a step that needs the previous model, and of what M_t wrote for one that
    `uses_sampler`."""
    tokens: Callable[[str], Sequence[str]]
    """The tokens that the length of a text is counted in."""
    features: Callable[[str], tuple[int, ...]]
    """What texts are told apart by in an archive: numbers read off any string, which say nothing about truth."""
    rng: np.random.Generator
    """The step's own: it begins anew whenever the pool has grown, so that draws made in the pool's order repeat."""
    oracles: Mapping[Oracle, Any]
    step: Step | None = None
    """The step that is given it; None before it is cut to what one declares."""

    def to(self, step: Step, rng: np.random.Generator, pool: Pool) -> "Given":
        """What this step is given beside this pool."""
        oracles = {oracle: self.oracles[oracle] for oracle in step.needs & self.oracles.keys()}
        given = replace(self, rng=rng, oracles=oracles, step=step)
        if Oracle.PREVIOUS_MODEL in step.needs:
            return given
        return replace(given, log_probs_at_1=partial(_of_written, step, given.log_probs_at_1, pool))

    def _ask(self, oracle: Oracle) -> Any:
        if self.step is None or oracle not in self.step.needs:
            needs = f"needs = frozenset({{Oracle.{oracle.name}}}), Oracle being of ouroloop.config.curation"
            raise UndeclaredError(f"{_called(self.step)} asks for the {oracle.value}: let it declare {needs}")
        return self.oracles[oracle]

    @property
    def training_set(self) -> Dataset:
        """D_{t-1}, on which M_t was trained; at t = 1 that is D_0, which a step that puts it back keeps for good."""
        found: Dataset = self._ask(Oracle.TRAINING_SET)
        return found

    def verify(self, text: str, max_depth: int | None = None) -> bool | None:
        """Whether a text is right; None where a verifier that sees no deeper than `max_depth` cannot tell."""
        found: bool | None = self._ask(Oracle.VERIFIER)(text, max_depth)
        return found

    def is_in_grammar(self, text: str) -> bool:
        """Whether P gives the text a probability above 0."""
        return bool(self._ask(Oracle.GRAMMAR)(text))

    @property
    def original_data(self) -> Dataset:
        """D_0."""
        found: Dataset = self._ask(Oracle.ORIGINAL_DATA)
        return found

    def fresh_data(self, count: int) -> Dataset:
        """`count` more texts from the source of D_0, drawn by the step's own `rng`."""
        found: Dataset = self._ask(Oracle.FRESH_DATA)(count, self.rng)
        return found

    @property
    def previous_model(self) -> PreviousModel:
        """M_t, which is the previous model to the M_{t+1} that learns from the pool."""
        found: PreviousModel = self._ask(Oracle.PREVIOUS_MODEL)
        return found

    @property
    def original_statistics(self) -> Mapping[str, float]:
        """The measures of D_0, by their keys."""
        found: Mapping[str, float] = self._ask(Oracle.ORIGINAL_STATISTICS)
        return found


def _called(step: Step | None) -> str:
    return f"step {step.name}" if step else "a step"


def _of_written(step: Step, log_probs: Callable[[Sequence[str]], Array], pool: Pool, texts: Sequence[str]) -> Array:
    if not step.uses_sampler:
        raise UndeclaredError(f"{_called(step)} asks for log_probs_at_1: let it declare uses_sampler = True")
    if not pool.written.issuperset(texts):
        asked = "log_probs_at_1 of texts that M_t did not write"
        raise UndeclaredError(f"{_called(step)} asks for {asked}: let it declare that it needs Oracle.PREVIOUS_MODEL")
    return log_probs(texts)


class CurationStep(Step):
    """The base of all steps: a subclass gives its `name` a default, says what it `needs`, and keeps what is good."""

    def keep(self, pool: Pool, given: Given) -> Pool:
        """The texts that are kept, from the pool or others with their provenance.

        It is called anew with all texts whenever M_t was asked for more.
        """
        raise NotImplementedError
