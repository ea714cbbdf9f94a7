"""What became of correctness and diversity: functions of texts, and of nothing else.

A measure of nothing raises; a quantity that cannot be computed is absent from the result. Standard
errors cover the finite number of samples from one model, not retraining: for that, compare seeds.
Work is done by distinct text, weighted by how often it was sampled.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from ouroloop.config import DataConfig, StageConfig
from ouroloop.science.cycle import Dataset
from ouroloop.testbed.logic.grammar import TOKENS
from ouroloop.testbed.logic.verify import Judgement, Verdict, judge

_PAIRS_PER_BLOCK = 4_000_000  # distances held at once: 16 MB
_CHARACTER = {token: chr(ord("a") + i) for i, token in enumerate(TOKENS)}


def _num_threads() -> int:
    """As many as torch may take: one process of several must leave the others their cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Estimate(NamedTuple):
    value: float
    stderr: float | None = None
    """One standard error over the samples; None where there is none."""


class CollapseStage(StrEnum):
    HEALTHY = "healthy"
    ONSET = "onset"
    DECLINE = "decline"
    COLLAPSED = "collapsed"


def stage(retention: float, thresholds: StageConfig) -> CollapseStage:
    """The stage of a diversity retention r, by thresholds that are stored with every label."""
    if retention >= thresholds.healthy:
        return CollapseStage.HEALTHY
    if retention >= thresholds.onset:
        return CollapseStage.ONSET
    return CollapseStage.DECLINE if retention >= thresholds.decline else CollapseStage.COLLAPSED


@dataclass(frozen=True)
class Sample:
    """Texts sampled from one model, reduced to distinct ones with counts and judgements.

    The most frequent come first, and among equals the first sampled: the head is a fair sample.

    Raises:
        ValueError: on no texts. Nothing sampled is not "0 % correct".
    """

    counts: Mapping[str, int]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Sample":
        if not texts:
            raise ValueError("no texts: there is nothing to measure")
        return cls(dict(Counter(texts).most_common()))

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        return {text: judge(text) for text in self.counts}

    @cached_property
    def size(self) -> int:
        return sum(self.counts.values())

    @cached_property
    def diversity(self) -> Estimate:
        return diversity_levenshtein(self.counts)

    def rate(self, texts: Sequence[str] | set[str]) -> Estimate:
        """Share of all sampled texts that are among `texts`, with the binomial standard error."""
        share = sum(self.counts[text] for text in texts) / self.size
        return Estimate(share, float(np.sqrt(share * (1 - share) / self.size)))

    def most_frequent(self, limit: int) -> list[tuple[int, float, str, int | str, str]]:
        """Rows of (count, share, verdict, depth or "", text), the head of the sample."""
        rows: list[tuple[int, float, str, int | str, str]] = []
        for text, count in islice(self.counts.items(), limit):
            judgement = self.judgements[text]
            depth = "" if judgement.depth is None else judgement.depth
            rows.append((count, count / self.size, str(judgement.verdict), depth, text))
        return rows

    def with_verdict(self, *verdicts: Verdict) -> list[str]:
        return [text for text, judgement in self.judgements.items() if judgement.verdict in verdicts]

    def depth_shares(self) -> dict[int | None, float]:
        """Share of all sampled texts by depth; None stands for malformed ones, which have no depth."""
        shares: Counter[int | None] = Counter()
        for text, judgement in self.judgements.items():
            shares[judgement.depth] += self.counts[text]
        return {depth: count / self.size for depth, count in shares.items()}

    def depth_counts(self) -> list[tuple[str, int]]:
        """(depth, texts of this depth), the shallowest first and `malformed`, which has no depth, last."""
        shares = sorted(self.depth_shares().items(), key=lambda item: (item[0] is None, item[0]))
        return [("malformed" if depth is None else str(depth), round(share * self.size)) for depth, share in shares]


def diversity_levenshtein(counts: Mapping[str, int]) -> Estimate:
    """Mean over all pairs of sampled texts of edit distance / longer length, in [0, 1]; 0 is collapse.

    Distance is counted in tokens, `<eos>` excluded; two empty texts are at distance 0. Exact: each pair
    of distinct texts is measured once and weighted by its counts, in O(u²) for u distinct texts. The
    standard error is that of a U-statistic, 2·sd(mean distance of one text to the others)/√n.

    Source: arXiv 2311.16822v2, section 3.2; exact pairs and the error are ours.

    Raises:
        ValueError: fewer than two texts have no pair.
    """
    n = sum(counts.values())
    if n < 2:
        raise ValueError(f"{n} text has no pair to measure a distance on")
    # Shorter texts are the rows: up to 64 tokens a row fits one machine word and is compared many at a time
    words, weights = _words_by_length(counts)
    to_others = np.zeros(len(words))  # of each distinct text, summed over all sampled ones
    block = max(1, min(_PAIRS_PER_BLOCK // len(words), len(words) // 8))  # an eighth: little below the diagonal
    for start in range(0, len(words), block):
        stop = min(start + block, len(words))
        scorer, threads = Levenshtein.normalized_distance, _num_threads()
        distances = cdist(words[start:stop], words[start:], scorer=scorer, dtype=np.float32, workers=threads)
        # einsum, not BLAS: the order of the sum must not depend on the number of threads
        to_others[start:stop] += np.einsum("ij,j->i", distances, weights[start:])
        to_others[stop:] += np.einsum("i,ij->j", weights[start:stop], distances[:, stop - start :])
    to_others /= n - 1
    mean = float(weights @ to_others / n)
    variance = float(weights @ (to_others - mean) ** 2 / (n - 1))
    return Estimate(mean, 2 * float(np.sqrt(variance / n)))


def _words_by_length(counts: Mapping[str, int]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Each distinct text with a character for every token, the shortest first, and how often it was sampled."""
    words = {text: "".join(_CHARACTER.get(token, token) for token in text.split()) for text in counts}
    order = sorted(counts, key=lambda text: (len(words[text]), text))
    return [words[text] for text in order], np.array([counts[text] for text in order], dtype=np.float64)


def _weighted_mean(pairs: Sequence[tuple[float, int]]) -> Estimate:
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    weights = np.array([weight for _, weight in pairs], dtype=np.float64)
    n = weights.sum()
    mean = float(values @ weights / n)
    if n < 2:
        return Estimate(mean)
    return Estimate(mean, float(np.sqrt(weights @ (values - mean) ** 2 / (n - 1) / n)))


def depth_total_variation(sample: Sample, reference: Sample) -> float:
    """Half the summed difference of the two depth distributions, in [0, 1]; malformed is a class of its own."""
    ours, theirs = sample.depth_shares(), reference.depth_shares()
    return sum(abs(ours.get(depth, 0) - theirs.get(depth, 0)) for depth in ours.keys() | theirs.keys()) / 2


def measure(sample: Sample, original: Sample, data: DataConfig) -> dict[str, Estimate]:
    """The measures of S_t that need D_0 as a reference; keys as in the metric table of the README.

    Rates count all sampled texts, so a malformed one counts against the model. `grammar_membership` is
    True and derivable by the grammar at the configured depths. `mean_depth` is over well-formed texts.
    `diversity_retention` takes D_0's diversity as exact.
    """
    diversity, at_start = sample.diversity, original.diversity.value
    depths = [(float(j.depth), sample.counts[t]) for t, j in sample.judgements.items() if j.depth is not None]
    true = sample.with_verdict(Verdict.TRUE)
    members = [t for t in true if sample.judgements[t].is_in_grammar(data.min_depth, data.max_depth)]
    measures = {
        "correctness": sample.rate(true),
        "syntactic_correctness": sample.rate(sample.with_verdict(Verdict.TRUE, Verdict.FALSE)),
        "false_rate": sample.rate(sample.with_verdict(Verdict.FALSE)),
        "error_rate": sample.rate(sample.with_verdict(Verdict.MALFORMED)),
        "diversity_levenshtein": diversity,
        "num_unique": Estimate(len(sample.counts)),
        "unique_fraction": Estimate(len(sample.counts) / sample.size),
        "grammar_membership": sample.rate(members),
        "mean_length_tokens": _weighted_mean([(len(t.split()), c) for t, c in sample.counts.items()]),
        "depth_tv": Estimate(depth_total_variation(sample, original)),
        "share_in_original": sample.rate(sample.counts.keys() & original.counts.keys()),
    }
    if at_start > 0:
        assert diversity.stderr is not None
        measures["diversity_retention"] = Estimate(diversity.value / at_start, diversity.stderr / at_start)
    if depths:
        measures["mean_depth"] = _weighted_mean(depths)
    return measures


def measure_training_set(sample: Sample, training_set: Dataset) -> dict[str, Estimate]:
    """The measures of S_t that concern D_{t-1}, on which M_t was trained."""
    return {
        "synthetic_share": Estimate(training_set.synthetic_share),
        "share_in_training_set": sample.rate(sample.counts.keys() & set(training_set.texts)),
    }


def as_metrics(measures: Mapping[str, Estimate]) -> dict[str, float]:
    """Flat metric keys: `<key>`, and `<key>_stderr` where there is one."""
    metrics: dict[str, float] = {}
    for key, estimate in measures.items():
        metrics[key] = float(estimate.value)
        if estimate.stderr is not None:
            metrics[f"{key}_stderr"] = estimate.stderr
    return metrics
