"""One generation: M_t fitted to D_{t-1}, S_t sampled from it, judged and measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter

from ouroloop.config import LoopConfig
from ouroloop.learner.base import Continuing, Fitted, Learner, Samples, Training
from ouroloop.loop.harvest import Harvest, harvest
from ouroloop.loop.observer import Observer
from ouroloop.plain import as_text
from ouroloop.record.provenance import code, commit
from ouroloop.record.run import Series
from ouroloop.science import divergence
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.likeness import Likeness
from ouroloop.science.metrics import RETENTION, as_metrics, measure, measure_training_set
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.base import Estimate, Prompting, Sample, Testbed

_CROSS_CHECKED = 100  # distinct texts per generation that a second judge checks too
_CURVE_POINTS = 100  # a training curve is thinned to this many means

CURVES = ("train_loss_nats_per_token", "validation_loss_nats")
"""Metrics of a generation whose steps are optimizer steps."""


@dataclass(frozen=True)
class Generation:
    """The result of a generation, computed or copied."""

    samples: Dataset
    """S_t, as M_t wrote it."""
    curated: Dataset | None
    """What curation leaves of it to learn from; None without curation, where that is all of it."""
    metrics: dict[str, float]
    curves: Series
    tags: Mapping[str, str]
    save: Callable[[Path], object] | None
    """Puts M_t into a folder; None where M_t is not available."""
    model: Fitted | None = field(default=None, compare=False)
    """M_t, where it was computed here."""
    sample: Sample | None = field(default=None, compare=False)
    """S_t, judged, where it was computed here."""
    source: str = field(default="", compare=False)
    """Which run it was copied from, in words; empty when it was computed here."""


@contextmanager
def _timed(seconds: dict[str, float], phase: str, observer: Observer) -> Iterator[None]:
    observer.phase_started(phase)
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start


def compute(
    config: LoopConfig,
    learner: Learner,
    number: int,
    training_set: Dataset,
    original: Sample,
    observer: Observer,
    previous: Sequence[Fitted] = (),
    likeness: Likeness | None = None,
) -> Generation:
    """M_t, S_t and their measures; `original` is D_0, judged, and `previous` are the models that M_t may learn from."""
    streams, seconds = Streams(config.seed, number), dict[str, float]()
    with _timed(seconds, "train", observer):
        fitted = learner.fit(training_set, streams, observer.trained, previous)
    with _timed(seconds, "sample", observer):
        beginnings = prompts(config, original.testbed)
        drawn = _drawn(config, fitted, beginnings, streams)
    with _timed(seconds, "measure", observer):
        sample = Sample.of(drawn.texts, original.testbed)
        sample.testbed.cross_check(list(islice(sample.counts, _CROSS_CHECKED)))
        measures = measure(sample, original) | measure_training_set(sample, training_set)
        measures |= _divergences(config, number, fitted, drawn, sample) | _prompted(sample, beginnings)
        measures |= {} if likeness is None else likeness.of(sample)
    tags, curated = {"commit": commit(), "code": code()}, None
    if config.curation.steps:
        with _timed(seconds, "curate", observer):
            curated = harvest(config, streams, fitted, drawn, training_set, original)
            measures |= _of_curated(curated, original, likeness)
        tags["curated"] = config.curation.label
        if shortfall := curated.shortfall(config.data.num_examples):
            tags["ran_short"] = shortfall
            observer.ran_short(number, shortfall)
    measures |= _costs(seconds, fitted.training, sample)
    return Generation(
        Dataset.of(drawn.texts, Source.SAMPLED, number),
        None if curated is None else curated.kept,
        as_metrics(measures),
        {} if fitted.training is None else _curves(fitted.training),
        tags,
        fitted.save if learner.is_registrable else None,
        fitted,
        sample,
    )


def description(number: int, made: Generation, sample: Sample, training_set: Dataset) -> str:
    """What a generation wrote and what it learnt from, for whoever browses the runs: Markdown.

    Of one that was copied as well, from its numbers: anybody can edit what stands on the run that it was copied from.
    """
    shares = [f"{made.metrics[key]:.1%} {word}" for word, key in sample.testbed.composition.items()]
    kept = made.metrics.get(RETENTION)
    left = [] if kept is None else [f"{kept:.1%} of D_0's diversity is left"]
    paragraphs = [
        f"Copied from {as_text(made.source)}, with its times." if made.source else "",
        f"Of {sample.size:,} texts: {', '.join([*shares, *left])}.",
        f"M_{number} was trained on D_{number - 1}: {len(training_set):,} examples, "
        f"{training_set.synthetic_share:.1%} of them written by models. `samples.json` shows what it writes.",
    ]
    if short := made.tags.get("ran_short"):
        paragraphs.append(f"**Ran short: {as_text(short)}.** Nothing replaces the missing texts.")
    return "\n\n".join(filter(None, paragraphs))


def prompts(config: LoopConfig, testbed: Testbed) -> list[str]:
    """The beginnings that the texts of S_t continue, in their order; none where each text starts from nothing."""
    if not config.sampling.prompt_tokens:
        return []
    assert isinstance(testbed, Prompting)
    return testbed.beginnings(config.sampling.prompt_tokens)


def _drawn(config: LoopConfig, fitted: Fitted, beginnings: Sequence[str], streams: Streams) -> Samples:
    rng = streams.numpy("sampling")
    if not beginnings:
        return fitted.sample(config.data.num_examples, rng)
    assert isinstance(fitted, Continuing)
    return fitted.continued(beginnings, rng)


def _prompted(sample: Sample, beginnings: Sequence[str]) -> dict[str, Estimate]:
    """The share of S_t's tokens that the prompts gave."""
    if not beginnings:
        return {}
    count = sample.testbed.tokens
    given = sum(len(count(text)) for text in beginnings)
    return {"prompt_share": Estimate(given / sum(n * len(count(text)) for text, n in sample.counts.items()))}


def _of_curated(curated: Harvest, original: Sample, likeness: Likeness | None) -> dict[str, Estimate]:
    """The measures of the curation and, where more than one text was kept, those of the curated S_t."""
    measures = curated.measures()
    if len(curated.kept) > 1:
        kept = Sample.of(curated.kept.texts, original.testbed)
        of_kept = measure(kept, original) | ({} if likeness is None else likeness.of(kept))
        measures |= {f"curated_{key}": estimate for key, estimate in of_kept.items()}
    return measures


def _divergences(
    config: LoopConfig, number: int, fitted: Fitted, drawn: Samples, sample: Sample
) -> dict[str, Estimate]:
    """How far M_t, at the sampling temperature, is from the true distribution, where that is known."""
    true = sample.testbed.distribution
    if true is None:
        return _on_held_out(config, fitted, sample.testbed.held_out)
    probabilities = fitted.probabilities()
    if probabilities is not None:
        judged = Sample.of(list(probabilities), sample.testbed)
        return divergence.from_probabilities(true, probabilities, judged)
    strata = true.strata(lambda part: stream(config.seed, "held_out", part), exact=number % config.exact_every == 0)
    scores = divergence.from_scores(strata, fitted.log_prob, config.sampling.temperature)
    return divergence.reverse(true, sample, drawn.texts, drawn.log_probs) | scores


def _on_held_out(config: LoopConfig, fitted: Fitted, texts: Sequence[str]) -> dict[str, Estimate]:
    """Cross-entropy on real texts, at the sampling temperature and at 1; absent where a text has probability 0."""
    if not texts:
        return {}
    num_tokens, scores = fitted.num_tokens(texts), fitted.log_prob(texts, [config.sampling.temperature, 1.0])
    keys = ("heldout_nats_per_token", "heldout_t1_nats_per_token")
    found = {key: divergence.cross_entropy(row, num_tokens) for key, row in zip(keys, scores, strict=True)}
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def _costs(seconds: dict[str, float], training: Training | None, sample: Sample) -> dict[str, Estimate]:
    num_sampled = sum(count * (len(sample.testbed.tokens(text)) + 1) for text, count in sample.counts.items())
    costs = {f"{phase}_seconds": Estimate(value) for phase, value in seconds.items()}
    costs["sample_tokens_per_second"] = Estimate(num_sampled / seconds["sample"])
    if training is None:
        del costs["train_seconds"]
        return costs
    costs["validation_nats"] = Estimate(training.validation_nats)
    return costs | {"train_tokens_per_second": Estimate(training.num_tokens / seconds["train"])}


def _curves(training: Training) -> Series:
    return dict(zip(CURVES, (_thinned(training.train_losses), training.validation_losses), strict=True))


def _thinned(losses: list[float]) -> list[tuple[int, float]]:
    """(last optimizer step, mean) of at most `_CURVE_POINTS` stretches of equal length."""
    width = -(-len(losses) // _CURVE_POINTS)
    stretches = [(start, losses[start : start + width]) for start in range(0, len(losses), width)]
    return [(start + len(stretch), sum(stretch) / len(stretch)) for start, stretch in stretches]
