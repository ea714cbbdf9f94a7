"""How varied texts are by their surface: no model judges, and every measure has the value of real text to stand beside.

What depends on how much is looked at is looked at in the same amount of every sample, a *probe*: the first so many
tokens, or texts, of an order in which every beginning is an even cross-section (`Sample.spread`). A sample that is
shorter than the probe has no such measure.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from ouroloop.testbed.base import Estimate, Sample
from ouroloop.testbed.text.spans import longest_shared
from ouroloop.testbed.text.tokens import tokens

Tokens = Sequence[str]
Lengths = npt.NDArray[np.int64]

ORDERS = (1, 2, 3, 4)
RAREST = 0.1
"""Of the tokens of real text: the types that these are."""
_REPEATED = 4  # tokens of what counts as repeated within a text


def lexical(sample: Sample, original: Sample, num_tokens: int, num_texts: int) -> dict[str, Estimate]:
    """The measures of a sample over probes of `num_tokens` and `num_texts`, beside D_0."""
    measures = {}
    if repeats := {text: rate for text in sample.counts if (rate := repetition(tokens(text))) is not None}:
        measures["repetition"] = sample.mean(repeats)
    if sample.size >= num_texts:
        measures["self_bleu"] = self_bleu([tokens(text) for text in sample.spread[:num_texts]])
    looked_at, real = probe(sample, num_tokens), probe(original, num_tokens)
    if looked_at is None:
        return measures
    for n in ORDERS:
        if (share := distinct(looked_at, n)) is not None:
            measures[f"distinct_{n}"] = Estimate(share)
    if (entropy := ngram_entropy(looked_at, 2)) is not None:
        measures["ngram_entropy_nats"] = Estimate(entropy)
    measures["compression_ratio"] = Estimate(compression_ratio(looked_at))
    if real is not None:
        written, known = {token for text in looked_at for token in text}, Counter(t for text in real for t in text)
        measures["vocabulary_coverage"] = Estimate(len(known.keys() & written) / len(known))
        rare = rarest(known)
        measures["rare_token_coverage"] = Estimate(len(rare & written) / len(rare))
    return measures


def copied(sample: Sample, training_set: Sequence[str]) -> dict[str, Estimate]:
    """`verbatim_share`: the longest span of a text that stands in the training set, over the text; mean over texts."""
    texts = [text for text in sample.counts if text]
    if not texts:
        return {}
    ours = [tokens(text) for text in texts]
    spans = longest_shared(ours, [tokens(text) for text in dict.fromkeys(training_set)])
    shares = {text: span / len(own) for text, span, own in zip(texts, spans, ours, strict=True)}
    return {"verbatim_share": sample.mean(shares)}


def probe(sample: Sample, num_tokens: int) -> list[Tokens] | None:
    """The first texts of the spread that have so many tokens together, the last one cut; None where all have fewer."""
    taken, left = list[Tokens](), num_tokens
    for text in sample.spread:
        found = tokens(text)[:left]
        taken.append(found)
        left -= len(found)
        if not left:
            return taken
    return None


def _ngrams(text: Tokens, n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(islice(text, i, None) for i in range(n)), strict=False)


def _count(texts: Sequence[Tokens], n: int) -> Counter[tuple[str, ...]]:
    return Counter(gram for text in texts for gram in _ngrams(text, n))


def distinct(texts: Sequence[Tokens], n: int) -> float | None:
    """Distinct n-grams / all n-grams, none of which spans two texts (Li and others, 2016); None without any."""
    counts = _count(texts, n)
    return len(counts) / counts.total() if counts else None


def ngram_entropy(texts: Sequence[Tokens], n: int) -> float | None:
    """Of the n-grams as they are distributed in the texts, in nats: at most the logarithm of how many there are."""
    counts = np.array(list(_count(texts, n).values()), dtype=np.float64)
    if not len(counts):
        return None
    shares = counts / counts.sum()
    return float(-(shares @ np.log(shares))) + 0.0


def compression_ratio(texts: Sequence[Tokens]) -> float:
    """Bytes of the texts, a line each / their bytes after zlib at level 9 (Shaib and others, 2024): more is emptier."""
    plain = "\n".join("".join(text) for text in texts).encode(errors="surrogatepass")
    return len(plain) / len(zlib.compress(plain, 9))


def rarest(counts: Counter[str]) -> set[str]:
    """The types that are the rarest tenth of the tokens: from the rarest on, whole counts, until they make it up."""
    of_count = Counter(counts.values())  # count -> types
    made_up, limit = 0, 0
    for count in sorted(of_count):
        made_up, limit = made_up + count * of_count[count], count
        if made_up >= RAREST * counts.total():
            break
    return {token for token, count in counts.items() if count <= limit}


def repetition(text: Tokens) -> float | None:
    """1 - distinct 4-grams / 4-grams of one text (Welleck and others, 2020), in [0, 1]; None of one without any."""
    counts = _count([text], _REPEATED)
    return 1 - len(counts) / counts.total() if counts else None


def self_bleu(texts: Sequence[Tokens]) -> Estimate:
    """Mean BLEU of each text against all others (Zhu and others, 2018), in [0, 1]: more is more alike.

    BLEU-4 as sacrebleu's `sentence_bleu` with exponential smoothing and tokens as they are, over 100 (a test has it
    agree). Each n-gram's two highest counts in one text are enough to clip by all others. The standard error takes
    the texts as independent, which their common references make them not quite.
    """
    best = [_two_highest([_count([text], n) for text in texts]) for n in ORDERS]
    lengths = np.sort([len(text) for text in texts])
    scores = np.array([_bleu(text, best, lengths) for text in texts])
    return Estimate(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores))))


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    best: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for gram, count in one.items():
            high, second = best.get(gram, (0, 0))
            best[gram] = (count, high) if count > high else (high, max(second, count))
    return best


def _bleu(text: Tokens, best: Sequence[dict[tuple[str, ...], tuple[int, int]]], lengths: Lengths) -> float:
    logs, smoothing, order, has_match = 0.0, 1.0, 0, False
    for n, highest in zip(ORDERS, best, strict=True):
        counts = _count([text], n)
        if not counts:
            break
        order = n
        matched = sum(min(c, highest[g][1] if highest[g][0] == c else highest[g][0]) for g, c in counts.items())
        has_match |= matched > 0
        if not matched:
            smoothing *= 2
        logs += np.log(matched / counts.total() if matched else 1 / (smoothing * counts.total()))
    if not has_match:
        return 0.0
    return float(np.exp(logs / order) * _brevity(len(text), lengths))


def _brevity(length: int, lengths: Lengths) -> float:
    """BLEU's penalty against the other text that is closest in length, of two the shorter one."""
    at = int(np.searchsorted(lengths, length))  # its own length is there once too often
    others = [lengths[i] for i in (at - 1, at + 1) if 0 <= i < len(lengths)]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= closest else float(np.exp(1 - closest / length))
