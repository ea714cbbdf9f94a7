"""How varied texts are on the surface: no model judges, and each measure can be compared with its value on real text.

A measure that depends on how much text it covers is computed over the same amount of every sample, a *probe*: a fixed
number of tokens, or of texts, from the start of an order in which every beginning is an even cross-section
(`Sample.spread`). A sample that is shorter than the probe has no such measure.
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
"""Share of the tokens of real text that the rarest types make up."""
_REPEATED = 4  # tokens of an n-gram whose repetition within a text counts


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
    """`verbatim_share`: longest span of a text found in the training set / the text's length, mean over texts."""
    texts = [text for text in sample.counts if text]
    if not texts:
        return {}
    ours = [tokens(text) for text in texts]
    spans = longest_shared(ours, [tokens(text) for text in dict.fromkeys(training_set)])
    shares = {text: span / len(own) for text, span, own in zip(texts, spans, ours, strict=True)}
    return {"verbatim_share": sample.mean(shares)}


def probe(sample: Sample, num_tokens: int) -> list[Tokens] | None:
    """The first texts of the spread, `num_tokens` tokens together, the last one cut; None where all have fewer."""
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
    """Entropy of the distribution of n-grams in the texts, in nats: at most the logarithm of how many there are."""
    counts = np.array(list(_count(texts, n).values()), dtype=np.float64)
    if not len(counts):
        return None
    shares = counts / counts.sum()
    return float(-(shares @ np.log(shares))) + 0.0


def compression_ratio(texts: Sequence[Tokens]) -> float:
    """Bytes of the texts, a line each / bytes after zlib at level 9 (Shaib and others, 2024): higher is emptier."""
    plain = "\n".join("".join(text) for text in texts).encode(errors="surrogatepass")
    return len(plain) / len(zlib.compress(plain, 9))


def rarest(counts: Counter[str]) -> set[str]:
    """The types that make up the rarest tenth of the tokens: the rarest first, all of one count together."""
    of_count = Counter(counts.values())  # count -> types
    made_up, limit = 0, 0
    for count in sorted(of_count):
        made_up, limit = made_up + count * of_count[count], count
        if made_up >= RAREST * counts.total():
            break
    return {token for token, count in counts.items() if count <= limit}


def repetition(text: Tokens) -> float | None:
    """1 - distinct 4-grams / 4-grams of one text (Welleck and others, 2020), in [0, 1]; None for a text without any."""
    counts = _count([text], _REPEATED)
    return 1 - len(counts) / counts.total() if counts else None


def self_bleu(texts: Sequence[Tokens]) -> Estimate:
    """Mean BLEU of each text against all others (Zhu and others, 2018), in [0, 1]: higher is more alike.

    BLEU-4 as in sacrebleu's `sentence_bleu` with exponential smoothing and tokens as they are, over 100 (a test checks
    that they agree). To clip by all other texts, the two highest counts of each n-gram in any one text are enough. The
    standard error treats the texts as independent, which they are not quite, since they share references.
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
    """BLEU's brevity penalty against the other text that is closest in length, the shorter of two equally close."""
    at = int(np.searchsorted(lengths, length))  # here `lengths` has its own length
    others = [lengths[i] for i in (at - 1, at + 1) if 0 <= i < len(lengths)]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= closest else float(np.exp(1 - closest / length))
