"""How far another law M is from the grammar's law P, from log-probabilities: any law can be plugged in.

The central measure is coverage, Σ min(M(x), P(x)): the portion of P that M still gives its due, 1 minus
their total variation distance. It is the mean over P of min(1, M/P), so it can be asked of each part of
P, of a depth or of the rarest expressions: exactly where the part is enumerated, else from draws.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ouroloop.science.metrics import Estimate, Sample
from ouroloop.testbed.logic.distribution import Array, Forms, Law, Stratum

_TAILS = (50, 10)  # percent of P, the rarest expressions first


def _parts(law: Law, depth: npt.NDArray[np.int64], log_p: Array) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of these expressions each coverage is about."""
    parts = {"coverage": np.ones(len(log_p), dtype=bool), "coverage_depth_1_3": depth <= 3}
    parts |= {f"coverage_depth_{d}": depth == d for d in law.depths}
    return parts | {f"coverage_tail_{percent}": log_p <= law.rarest(percent / 100) + 1e-9 for percent in _TAILS}


def forward(law: Law, strata: Sequence[Stratum], log_m: Sequence[Array]) -> dict[str, Estimate]:
    """Coverage of P and of its parts, and KL(P‖M), from M's log-probabilities on each stratum.

    There is one stratum for each depth. A standard error covers the draws of the strata that are not
    enumerated; where all are, there is none.
    """
    covered = [np.exp(np.minimum(0.0, m - s.log_p)) for s, m in zip(strata, log_m, strict=True)]
    parts = [_parts(law, np.full(len(s.texts), s.depth), s.log_p) for s in strata]
    measures = {}
    for key in parts[0]:
        part = [of_stratum[key] for of_stratum in parts]
        if any(chosen.any() for chosen in part):
            measures[key] = _mean(strata, covered, part)
    kl = kl_forward(strata, log_m)
    return measures if kl is None else measures | {"kl_forward_nats": kl}


def kl_forward(strata: Sequence[Stratum], log_m: Sequence[Array]) -> Estimate | None:
    """KL(P‖M) in nats, None when it is infinite: the cross-entropy of M on P less P's entropy, draw by draw."""
    if not all(np.isfinite(m).all() for m in log_m):
        return None
    return _mean(strata, [s.log_p - m for s, m in zip(strata, log_m, strict=True)])


def _mean(
    strata: Sequence[Stratum], values: Sequence[Array], part: Sequence[npt.NDArray[np.bool_]] | None = None
) -> Estimate:
    """Mean over P, given a part of it, with the standard error of a ratio of stratified means."""
    chosen = part or [np.ones(len(s.texts), dtype=bool) for s in strata]
    share = sum(float(s.weights[c].sum()) for s, c in zip(strata, chosen, strict=True))
    mean = sum(float(s.weights[c] @ v[c]) for s, c, v in zip(strata, chosen, values, strict=True)) / share
    sampled = [(c, v) for s, c, v in zip(strata, chosen, values, strict=True) if not s.is_exact and c.any()]
    variance = sum(float(np.var(c * (v - mean), ddof=1)) / len(v) for c, v in sampled)
    return Estimate(mean, float(np.sqrt(variance)) / share if sampled else None)


def reverse(law: Law, sample: Sample, texts: Sequence[str], log_m: Array) -> dict[str, Estimate]:
    """Entropy of M and KL(M‖P) in nats, and where M's mass lies, from a sample of M.

    `texts` are a fair part of the sample, repeats included, and `log_m` is M's log-probability of each, under
    the law that it was sampled from: at the sampling temperature. The entropy is -mean log M, unbiased.

    P gives nothing to a text off its support. M's mass there is `off_support_rate`, and the divergence is
    that of M given the support, M(x)/M(support); it is absent when fewer than two texts lie on it.
    """
    on = [text for text, judgement in sample.judgements.items() if law.supports(judgement)]
    shallow = [text for text in on if (sample.judgements[text].depth or 0) <= 3]
    measures = {
        "entropy_nats": _plain_mean(-log_m),
        "off_support_rate": sample.rate(sample.counts.keys() - set(on)),
    }
    if law.min_depth <= 3:
        measures["mass_depth_1_3"] = sample.rate(shallow)
    is_on = np.array([law.supports(sample.judgements[text]) for text in texts])
    if np.count_nonzero(is_on) >= 2:
        log_p = law.log_probabilities([text for text, chosen in zip(texts, is_on, strict=True) if chosen])
        ratio, support = _plain_mean(log_m[is_on] - log_p), sample.rate(on)
        assert ratio.stderr is not None
        assert support.stderr is not None
        stderr = float(np.hypot(ratio.stderr, support.stderr / support.value))
        measures["kl_reverse_nats"] = Estimate(ratio.value - float(np.log(support.value)), stderr)
    return measures


def _plain_mean(values: Array) -> Estimate:
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def of_finite_law(law: Law, probabilities: Mapping[str, float], sample: Sample) -> dict[str, Estimate]:
    """The same measures, exact, of an M that is a list of texts with probabilities; `sample` has judged them."""
    probabilities = {text: p for text, p in probabilities.items() if p > 0}
    on = [text for text in probabilities if law.supports(sample.judgements[text])]
    depth = np.array([sample.judgements[text].depth for text in on], dtype=np.int64)
    forms = Forms(depth, np.ones(len(on)), law.log_probabilities(on))
    log_m = np.log(np.array([probabilities[text] for text in on]))
    entropy = -sum(p * np.log(p) for p in probabilities.values())
    return _exact(law, forms, log_m) | {"entropy_nats": Estimate(float(entropy))}


def of_unique_set(law: Law, num_examples: int) -> dict[str, Estimate]:
    """The same measures, in closed form, of the law of a unique set of so many, from which D_0 comes.

    What of a model's distance from P is D_0's; and what P itself gives: `grammar_entropy_nats`, and
    `grammar_num_unique`, the distinct texts to expect among so many independent draws.
    """
    forms, log_q = law.forms, law.unique_set_log_probabilities(num_examples)
    return _exact(law, forms, log_q) | {
        "entropy_nats": Estimate(float(-np.sum(forms.num * np.exp(log_q) * log_q))),
        "grammar_entropy_nats": Estimate(law.entropy_nats),
        "grammar_num_unique": Estimate(law.expected_unique(num_examples)),
    }


def _exact(law: Law, forms: Forms, log_m: Array) -> dict[str, Estimate]:
    """From M's log-probability of one expression of each form; what M gives elsewhere lies off the support."""
    p, m = forms.num * np.exp(forms.log_p), forms.num * np.exp(log_m)
    all_p = law.forms.num * np.exp(law.forms.log_p)
    everything = _parts(law, law.forms.depth, law.forms.log_p)
    measures = {
        key: float(np.minimum(p, m)[part].sum() / all_p[everything[key]].sum())
        for key, part in _parts(law, forms.depth, forms.log_p).items()
        if everything[key].any()
    }
    support = float(m.sum())
    measures["off_support_rate"] = max(0.0, 1 - support) if support < 1 - 1e-12 else 0.0
    if law.min_depth <= 3:
        measures["mass_depth_1_3"] = float(m[forms.depth <= 3].sum())
    if support > 0:
        measures["kl_reverse_nats"] = float(np.sum(m * (log_m - forms.log_p)) / support - np.log(support))
    if p.sum() > 1 - 1e-9:
        measures["kl_forward_nats"] = float(np.sum(p * (forms.log_p - log_m)))
    return {key: Estimate(value) for key, value in measures.items()}
