"""Curation: M_t is asked for texts until enough of them are kept, or its budget is spent."""

from collections.abc import Mapping
from functools import cache, partial
from math import ceil
from typing import Any, NamedTuple, cast

import numpy as np

from ouroloop.config import ConfigError, CurationConfig, LoopConfig, Oracle
from ouroloop.learner.base import Fitted, Samples
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.metrics import as_metrics, measure
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array, Estimate, Featured, Sample, Testbed, Verifier


class NothingKeptError(ValueError):
    """Curation left too little to learn from."""


class Harvest(NamedTuple):
    """What was kept of what M_t was asked for."""

    kept: Dataset
    """At most m texts; fewer where the budget was spent first."""
    num_drawn: int
    num_accepted: int
    """How many of the drawn texts all steps kept, including those beyond m."""

    def measures(self) -> dict[str, Estimate]:
        found = {"num_drawn": Estimate(self.num_drawn), "num_kept": Estimate(len(self.kept))}
        if self.num_accepted or not len(self.kept):  # else no text was kept as it was drawn: no acceptance rate
            rate = self.num_accepted / self.num_drawn
            found["acceptance_rate"] = Estimate(rate, float(np.sqrt(rate * max(0.0, 1 - rate) / self.num_drawn)))
        return found | ({"drawn_per_kept": Estimate(self.num_drawn / len(self.kept))} if len(self.kept) else {})

    def shortfall(self, wanted: int) -> str:
        """What to say where fewer were kept than wanted; empty where enough were."""
        if len(self.kept) >= wanted:
            return ""
        return f"curation kept {len(self.kept):,} of the {wanted:,} texts wanted, out of {self.num_drawn:,} drawn"


def harvest(
    config: LoopConfig, streams: Streams, fitted: Fitted, first: Samples, training_set: Dataset, original: Sample
) -> Harvest:
    """What the steps keep of `first`, which are m texts, and of as many more as are needed and the budget allows.

    The steps look at all texts again whenever there are more, so what is kept does not depend on the number of rounds.
    """
    curation, wanted = config.curation, config.data.num_examples
    budget = round(curation.max_drawn * wanted)
    more = streams.numpy("sampling_more")
    given = _given(config, streams, fitted, training_set, original)
    texts, log_probs = list(first.texts), list(first.log_probs)
    enough = min(budget, round(max(step.num_candidates for step in curation.steps) * wanted))
    while True:
        if (missing := enough - len(texts)) > 0:
            drawn = fitted.sample(missing, more)
            texts += drawn.texts
            log_probs += drawn.log_probs
        pool = Pool(Dataset.of(texts, Source.SAMPLED, streams.generation), np.array(log_probs, dtype=np.float64))
        kept = _curated(curation, pool, given, streams)
        if len(kept) >= wanted or len(texts) >= budget:
            break
        rate = len(kept) / len(texts)
        further = ceil((wanted - len(kept)) / rate) if rate else len(texts)
        enough = min(budget, len(texts) + max(further, len(texts) // 4, 1))  # few rounds, even if little is new
    accepted = int(np.count_nonzero(~np.isnan(kept.log_probs)))
    return Harvest(kept.data.take(np.arange(min(wanted, len(kept)))), len(texts), min(accepted, len(texts)))


def _curated(curation: CurationConfig, pool: Pool, given: Given, streams: Streams) -> Pool:
    for place, step in enumerate(curation.steps):
        rng = streams.numpy(f"curation/{place}/{step.name}")
        kept = cast(CurationStep, step).keep(pool, given.to(step, rng, pool))
        if not isinstance(kept, Pool):
            allowed = "a Pool, such as pool.where(…) or pool.take(…)"
            raise ConfigError(f"step {step.name}: keep gave a {type(kept).__name__}, allowed is {allowed}")
        pool = kept
    return pool


def _given(config: LoopConfig, streams: Streams, fitted: Fitted, training_set: Dataset, original: Sample) -> Given:
    """All that any step may ask for; each one gets what it declared."""
    testbed = original.testbed
    return Given(
        config.data.num_examples,
        streams.generation,
        lambda texts: cast(Array, fitted.log_prob(texts, [1.0])[0]),
        testbed.tokens,
        testbed.features if isinstance(testbed, Featured) else lambda text: (0, len(testbed.tokens(text))),
        streams.numpy("curation"),  # nothing draws from it: each step gets its own
        _oracles(config, streams, fitted, training_set, original),
    )


def _oracles(
    config: LoopConfig, streams: Streams, fitted: Fitted, training_set: Dataset, original: Sample
) -> Mapping[Oracle, Any]:
    """The oracles that the steps declare, and no others."""
    testbed, needs = original.testbed, config.curation.needs
    oracles: dict[Oracle, Any] = {}
    if Oracle.VERIFIER in needs and isinstance(testbed, Verifier):
        oracles[Oracle.VERIFIER] = cache(testbed.verify)
    if Oracle.GRAMMAR in needs and (true := testbed.distribution) is not None:
        oracles[Oracle.GRAMMAR] = cache(lambda text: true.supports(testbed.judge(text)))
    if Oracle.ORIGINAL_DATA in needs:
        oracles[Oracle.ORIGINAL_DATA] = Dataset.of(list(original.counts), Source.ORIGINAL, 0)
    if Oracle.FRESH_DATA in needs:
        oracles[Oracle.FRESH_DATA] = partial(_fresh, testbed, streams.generation)
    if Oracle.PREVIOUS_MODEL in needs:
        oracles[Oracle.PREVIOUS_MODEL] = fitted
    if Oracle.ORIGINAL_STATISTICS in needs:
        oracles[Oracle.ORIGINAL_STATISTICS] = as_metrics(measure(original, original))
    if Oracle.TRAINING_SET in needs:
        oracles[Oracle.TRAINING_SET] = training_set
    return oracles


def _fresh(testbed: Testbed, generation: int, count: int, rng: np.random.Generator) -> Dataset:
    return Dataset.of(testbed.fresh(count, generation, rng), Source.FRESH, generation)
