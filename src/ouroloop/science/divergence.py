"""How far a model's distribution M is from P, the true one, from log-probabilities.

The central measure is coverage, the overlap Σ min(P(x), M(x)): the portion of P that M still gives its due, 1 minus
their total variation distance. It is the mean over P of min(1, M/P), so it can be computed for each part of
P, such as a depth or the rarest expressions: exactly where the part is enumerated, else from draws.

M is what S_t is sampled from, at the sampling temperature. Every generation and arm of a seed scores the same
held-out texts, so differences between them are sharper than each one's error.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ouroloop.testbed.base import Array, Distribution, Estimate, Forms, Mask, Sample, Stratum

_MANY = 10_000  # a stratum of more texts is scored by itself: with as many, a model shares their prefixes


class Scorer(Protocol):
    """log M(x) in nats of each text, [temperature, text]."""

    def __call__(self, texts: Sequence[str], temperatures: Sequence[float]) -> Array: ...


def from_scores(strata: Sequence[Stratum], log_prob: Scorer, temperature: float) -> dict[str, Estimate]:
    """Coverage of P and KL(P‖M) from the model's log-probabilities on held-out texts.

    `kl_forward_t1_nats` is that of the model itself, at temperature 1, without the sharpening by sampling.
    """
    at_temperature, at_1 = zip(*_scores(strata, log_prob, [temperature, 1.0]), strict=True)
    measures, own = forward(strata, at_temperature), kl_forward(strata, at_1)
    return measures if own is None else measures | {"kl_forward_t1_nats": own}


def cross_entropy(log_probs: Array, num_tokens: Array) -> Estimate | None:
    """Cross-entropy of M on real texts, -Σ log M(x) / Σ tokens of x in nats per token; None where an M(x) is 0.

    It is KL(P‖M) per token up to the entropy of P, which is not known. The standard error is that of a ratio of means
    over texts.
    """
    if not np.isfinite(log_probs).all():
        return None
    n, total = len(log_probs), float(num_tokens.sum())
    mean = float(-log_probs.sum()) / total
    residuals = -log_probs - mean * num_tokens
    return Estimate(mean, float(np.sqrt(n / (n - 1) * residuals @ residuals)) / total if n > 1 else None)


def _scores(strata: Sequence[Stratum], log_prob: Scorer, temperatures: Sequence[float]) -> list[Array]:
    """Log-probabilities [temperature, text] for each stratum; all small ones are scored together."""
    small = [stratum.texts for stratum in strata if len(stratum.texts) <= _MANY]
    together = log_prob([text for texts in small for text in texts], temperatures)
    of_small = iter(np.split(together, np.cumsum([len(texts) for texts in small])[:-1], axis=1))
    return [
        next(of_small) if len(stratum.texts) <= _MANY else log_prob(stratum.texts, temperatures) for stratum in strata
    ]


def forward(strata: Sequence[Stratum], log_m: Sequence[Array]) -> dict[str, Estimate]:
    """Coverage of P and of its parts, and KL(P‖M), from M's log-probabilities on each stratum.

    A standard error covers the draws of the strata that are not enumerated; where all are, there is none.
    """
    covered = [np.exp(np.minimum(0.0, m - s.log_p)) for s, m in zip(strata, log_m, strict=True)]
    measures = {}
    for key in strata[0].parts:
        part = [stratum.parts[key] for stratum in strata]
        if any(chosen.any() for chosen in part):
            measures[key] = _mean(strata, covered, part)
    kl = kl_forward(strata, log_m)
    return measures if kl is None else measures | {"kl_forward_nats": kl}


def kl_forward(strata: Sequence[Stratum], log_m: Sequence[Array]) -> Estimate | None:
    """KL(P‖M) in nats, None when it is infinite: the cross-entropy of M on P less P's entropy, draw by draw."""
    if not all(np.isfinite(m).all() for m in log_m):
        return None
    return _mean(strata, [s.log_p - m for s, m in zip(strata, log_m, strict=True)])


def _mean(strata: Sequence[Stratum], values: Sequence[Array], part: Sequence[Mask] | None = None) -> Estimate:
    """Mean over P, given a part of it, with the standard error of a ratio of stratified means."""
    chosen = part or [np.ones(len(s.texts), dtype=bool) for s in strata]
    share = sum(float(s.weights[c].sum()) for s, c in zip(strata, chosen, strict=True))
    mean = sum(float(s.weights[c] @ v[c]) for s, c, v in zip(strata, chosen, values, strict=True)) / share
    sampled = [(c, v) for s, c, v in zip(strata, chosen, values, strict=True) if not s.is_exact and c.any()]
    variance = sum(float(np.var(c * (v - mean), ddof=1)) / len(v) for c, v in sampled)
    return Estimate(mean, float(np.sqrt(variance)) / share if sampled else None)


def reverse(
    distribution: Distribution, sample: Sample, texts: Sequence[str], log_probs: Sequence[float]
) -> dict[str, Estimate]:
    """Entropy of M and KL(M‖P) in nats, and where M's mass lies, from a sample of M.

    `texts` are all or a fair part of the sample, repeats included, and `log_probs` is M's log-probability of each.
    The entropy is -mean log M, unbiased.

    P gives nothing to a text off its support. M's mass there is `off_support_rate`, and the divergence is
    that of M renormalised to P's support, M(x)/M(support); it is absent when fewer than two texts lie on it.
    """
    log_m = np.array(log_probs)
    on = [text for text, judgement in sample.judgements.items() if distribution.supports(judgement)]
    parts = distribution.forms_of(on, sample.judgements).parts
    measures = {
        "entropy_nats": _plain_mean(-log_m),
        "off_support_rate": sample.rate(sample.counts.keys() - set(on)),
    }
    for key, part in distribution.masses.items():
        measures[key] = sample.rate([text for text, chosen in zip(on, parts[part], strict=True) if chosen])
    is_on = np.array([distribution.supports(sample.judgements[text]) for text in texts])
    if np.count_nonzero(is_on) >= 2:
        log_p = distribution.log_probabilities([text for text, chosen in zip(texts, is_on, strict=True) if chosen])
        ratio, support = _plain_mean(log_m[is_on] - log_p), sample.rate(on)
        assert ratio.stderr is not None
        assert support.stderr is not None
        stderr = float(np.hypot(ratio.stderr, support.stderr / support.value))
        measures["kl_reverse_nats"] = Estimate(ratio.value - float(np.log(support.value)), stderr)
    return measures


def _plain_mean(values: Array) -> Estimate:
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def from_probabilities(
    distribution: Distribution, probabilities: Mapping[str, float], judged: Sample
) -> dict[str, Estimate]:
    """The same measures, exact, of an M that is a list of texts with probabilities; `judged` has their judgements."""
    probabilities = {text: p for text, p in probabilities.items() if p > 0}
    on = [text for text in probabilities if distribution.supports(judged.judgements[text])]
    log_m = np.log(np.array([probabilities[text] for text in on]))
    entropy = -sum(p * np.log(p) for p in probabilities.values())
    forms = distribution.forms_of(on, judged.judgements)
    return _exact(distribution, forms, log_m) | {"entropy_nats": Estimate(float(entropy))}


def of_original(distribution: Distribution, num_examples: int) -> dict[str, Estimate]:
    """The same measures, in closed form, of the distribution that a D_0 of `num_examples` comes from.

    They say how much of a model's distance from P is due to D_0. Beside them is what P itself gives:
    `grammar_entropy_nats`, and `grammar_num_unique`, the distinct texts to expect among that many independent draws.
    """
    forms, log_q = distribution.forms, distribution.original_log_probabilities(num_examples)
    return _exact(distribution, forms, log_q) | {
        "entropy_nats": Estimate(float(-np.sum(forms.num * np.exp(log_q) * log_q))),
        "grammar_entropy_nats": Estimate(distribution.entropy_nats),
        "grammar_num_unique": Estimate(distribution.expected_unique(num_examples)),
    }


def _exact(distribution: Distribution, forms: Forms, log_m: Array) -> dict[str, Estimate]:
    """The measures from M's log-probability of one text of each form; what M gives elsewhere lies off the support."""
    everything = distribution.forms
    p, m = forms.num * np.exp(forms.log_p), forms.num * np.exp(log_m)
    all_p = everything.num * np.exp(everything.log_p)
    measures = {
        key: float(np.minimum(p, m)[part].sum() / all_p[everything.parts[key]].sum())
        for key, part in forms.parts.items()
        if everything.parts[key].any()
    }
    support = float(m.sum())
    measures["off_support_rate"] = max(0.0, 1 - support) if support < 1 - 1e-12 else 0.0
    measures |= {key: float(m[forms.parts[part]].sum()) for key, part in distribution.masses.items()}
    if support > 0:
        measures["kl_reverse_nats"] = float(np.sum(m * (log_m - forms.log_p)) / support - np.log(support))
    if p.sum() > 1 - 1e-9:
        measures["kl_forward_nats"] = float(np.sum(p * (forms.log_p - log_m)))
    return {key: Estimate(value) for key, value in measures.items()}
