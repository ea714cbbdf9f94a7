"""What became of correctness and diversity: functions of texts, and of nothing else.

A measure of nothing raises; a quantity that cannot be computed is absent from the result. Standard
errors cover the finite number of samples from one model, not retraining: for that, compare seeds.
Work is done once per distinct text, weighted by how often it was sampled.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from ouroloop.config import StageConfig
from ouroloop.science.dataset import Dataset
from ouroloop.spawning import num_cores
from ouroloop.testbed.base import Estimate, Sample

ALWAYS = "num_unique"
"""A measure of every generation: by it one tells how far a loop has come."""
RETENTION = "diversity_retention"

_PAIRS_PER_BLOCK = 4_000_000  # distances held at once: 16 MB


def _num_threads() -> int:
    """As many as torch may take: one process of several must leave the others their cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else num_cores()


class CollapseStage(StrEnum):
    HEALTHY = "healthy"
    ONSET = "onset"
    DECLINE = "decline"
    COLLAPSED = "collapsed"


def stage_basis(measure: str, metrics: Mapping[str, float], first: Mapping[str, float]) -> float | None:
    """What a generation's stage rests on: retention as it is, any other measure over its value for M_1, in `first`."""
    value = metrics.get(measure)
    if measure == RETENTION or value is None:
        return value
    return value / first[measure] if first.get(measure) else None


def stage_of(kept: float, thresholds: StageConfig) -> CollapseStage:
    """The stage of r, what is kept, by thresholds that are stored with every label."""
    if kept >= thresholds.healthy:
        return CollapseStage.HEALTHY
    if kept >= thresholds.onset:
        return CollapseStage.ONSET
    return CollapseStage.DECLINE if kept >= thresholds.decline else CollapseStage.COLLAPSED


def stages_of(values: Mapping[int, float], thresholds: StageConfig) -> list[CollapseStage | None]:
    """Stages of generations 1, 2, ... to the last that has the measure they rest on; None where it is absent."""
    key = thresholds.measure
    kept = {t: stage_basis(key, {key: value}, {key: values.get(1, 0.0)}) for t, value in values.items()}
    last = max((t for t, r in kept.items() if r is not None), default=0)
    return [None if (r := kept.get(t)) is None else stage_of(r, thresholds) for t in range(1, last + 1)]


def entered(stages: Sequence[str | None]) -> dict[str, int]:
    """The generation at which each stage was entered, from the stages of generations 1, 2, ...

    A stage below healthy rests on two generations: the first that is in it, and the next, which is no better. One
    generation alone may be noise, so the last one enters no stage. A stage that was jumped over is not entered.
    """
    order = [str(stage) for stage in CollapseStage]
    found: dict[str, int] = {}
    for t, (stage, after) in enumerate(zip(stages, [*stages[1:], None], strict=False), 1):
        if stage is None or stage in found:
            continue
        if stage == CollapseStage.HEALTHY or (after is not None and order.index(after) >= order.index(stage)):
            found[stage] = t
    return found


def may_enter(stages: Sequence[str | None]) -> bool:
    """Whether the last of these generations would be the one that entered its stage, if the next confirms it."""
    *_, stage = stages
    return stage is not None and entered([*stages, stage])[stage] == len(stages)


def half_life(retention: Mapping[int, float]) -> int | None:
    """The first generation that keeps less than half of D_0's diversity; None if it was not reached."""
    return next((t for t, kept in sorted(retention.items()) if kept < 0.5), None)


@lru_cache(maxsize=2)  # that of D_0 is asked for in every generation
def diversity(sample: Sample) -> Estimate:
    """Diversity of all texts, or of as many as the testbed compares."""
    most, counts = sample.testbed.max_compared, sample.counts
    if most is not None and sample.size > most:
        counts = Counter(sample.spread[:most])
    return diversity_levenshtein({text: sample.testbed.tokens(text) for text in counts}, counts)


def diversity_levenshtein(tokens: Mapping[str, Sequence[str]], counts: Mapping[str, int]) -> Estimate:
    """Mean over all pairs of sampled texts of edit distance / longer length, in [0, 1]; 0 is collapse.

    Distance is counted in tokens, `<eos>` excluded; two empty texts are at distance 0. Exact: each pair
    of distinct texts is measured once and weighted by its counts, in O(u²) for u distinct texts. The
    standard error is a U-statistic's with both terms of its variance,

        4·var(mean distance of one text to the others)/n + 2·var(distance of a pair)/(n(n - 1))

    the second of which is all that is left where every text is equally far from the others, as two texts at 50:50 are.
    The error is 0 for one distinct text alone, which shows no variation to estimate it from.

    Source: arXiv 2311.16822v2, section 3.2; exact pairs and the error are ours.

    Raises:
        ValueError: there are fewer than two texts, hence no pair.
    """
    n = sum(counts.values())
    if n < 2:
        raise ValueError(f"{n} text has no pair to measure a distance on")
    # Shorter texts are the rows: a row of up to 64 tokens fits one machine word, and many are compared at a time
    words, weights = _by_length(tokens, counts)
    to_others, squares = np.zeros(len(words)), 0.0  # by distinct text, summed over all sampled ones; over all pairs
    block = max(1, min(_PAIRS_PER_BLOCK // len(words), len(words) // 8))  # an eighth: little is computed twice
    for start in range(0, len(words), block):
        stop = min(start + block, len(words))
        distances = cdist(
            words[start:stop],
            words[start:],
            scorer=Levenshtein.normalized_distance,
            dtype=np.float32,
            workers=_num_threads(),
        )
        # einsum, not BLAS: the order of the sum must not depend on the number of threads
        to_others[start:stop] += np.einsum("ij,j->i", distances, weights[start:])
        to_others[stop:] += np.einsum("i,ij->j", weights[start:stop], distances[:, stop - start :])
        np.square(distances, out=distances)
        squares += float(np.einsum("i,ij,j->", weights[start:stop], distances[:, : stop - start], weights[start:stop]))
        squares += 2 * float(np.einsum("i,ij,j->", weights[start:stop], distances[:, stop - start :], weights[stop:]))
    to_others /= n - 1
    mean = float(weights @ to_others / n)
    variance = float(weights @ (to_others - mean) ** 2 / (n - 1))
    of_pairs = max(squares / (n * (n - 1)) - mean**2, 0.0)
    return Estimate(mean, float(np.sqrt(4 * variance / n + 2 * of_pairs / (n * (n - 1)))))


def _by_length(
    tokens: Mapping[str, Sequence[str]], counts: Mapping[str, int]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Each distinct text with a character for every token, the shortest first, and how often it was sampled."""
    characters: dict[str, str] = {}
    for text in counts:
        for token in tokens[text]:
            characters.setdefault(token, chr(ord("a") + len(characters)))
    words = {text: "".join(characters[token] for token in tokens[text]) for text in counts}
    order = sorted(counts, key=lambda text: (len(words[text]), text))
    return [words[text] for text in order], np.array([counts[text] for text in order], dtype=np.float64)


def measure(sample: Sample, original: Sample) -> dict[str, Estimate]:
    """The measures of S_t that need D_0 as a reference; keys as in docs/measures.md.

    `diversity_retention` takes D_0's diversity as exact.
    """
    at_start, kept = diversity(original).value, diversity(sample)
    lengths = {text: len(sample.testbed.tokens(text)) for text in sample.counts}
    measures = sample.testbed.measures(sample, original) | {
        "diversity_levenshtein": kept,
        "num_unique": Estimate(len(sample.counts)),
        "unique_fraction": Estimate(len(sample.counts) / sample.size),
        "mean_length_tokens": sample.mean(lengths),
        "share_in_original": sample.rate(sample.counts.keys() & original.counts.keys()),
    }
    if at_start > 0:
        assert kept.stderr is not None
        measures[RETENTION] = Estimate(kept.value / at_start, kept.stderr / at_start)
    return measures


def measure_training_set(sample: Sample, training_set: Dataset) -> dict[str, Estimate]:
    """The measures of S_t that concern D_{t-1}, on which M_t was trained."""
    return {
        "synthetic_share": Estimate(training_set.synthetic_share),
        "share_in_training_set": sample.rate(sample.counts.keys() & set(training_set.texts)),
        **sample.testbed.copied(sample, training_set.texts),
    }


def control(original: Sample) -> dict[str, Estimate]:
    """Every measure of one half of D_0 beside the other, under `control_<key>`: how far two real samples are apart.

    Where P is not known this is what a model's distance from D_0 is compared with. There is none for fewer than four
    texts, nor of `num_unique` and `share_in_original`, which say how much is repeated, not how far apart they are.
    """
    if original.size < 4:
        return {}
    one, other = (Sample.of(original.spread[start::2], original.testbed) for start in (0, 1))
    measures = measure(other, one) | original.testbed.copied(other, list(one.counts))
    return {
        f"control_{key}": value for key, value in measures.items() if key not in ("num_unique", "share_in_original")
    }


def as_metrics(measures: Mapping[str, Estimate]) -> dict[str, float]:
    """Flat metric keys: `<key>`, and `<key>_stderr` where there is one."""
    metrics: dict[str, float] = {}
    for key, estimate in measures.items():
        metrics[key] = float(estimate.value)
        if estimate.stderr is not None:
            metrics[f"{key}_stderr"] = estimate.stderr
    return metrics
