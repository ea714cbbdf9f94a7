"""The measures of a real model against sums over all its expressions, scored one at a time."""

import numpy as np
import pytest
from ouroloop.learner.network.likelihood import held_out, measure_model

from ouroloop.config import LoopConfig
from ouroloop.learner.network.sampling import sample, sample_with_nats
from ouroloop.science.metrics import Sample
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.distribution import Law
from tests.learner.network.test_sampling import log_probability, model_of


def test_every_measure_is_the_sum_that_it_stands_for(tiny: LoopConfig) -> None:
    """Depths 1 and 2 are enumerated, so that nothing but entropy is estimated; 4 standard errors."""
    config = tiny.model_copy(update={"sampling": tiny.sampling.model_copy(update={"temperature": 0.7})})
    model, law = model_of(sharpness=2.0), Law.of(config.data)
    texts, nats = sample_with_nats(model, 500, config.sampling, stream(1, "sampling"))
    found = measure_model(config, 2, model, Sample.of(texts), texts, nats)
    every = [text for depth in (1, 2) for text in law.all_of_depth(depth).texts]
    p = np.exp(law.log_probabilities(every))
    cool, own = (np.array([log_probability(model, text, t) for text in every]) for t in (0.7, 1.0))
    assert found["kl_forward_nats"].value == pytest.approx(np.sum(p * (np.log(p) - cool)), abs=1e-4)
    assert found["kl_forward_t1_nats"].value == pytest.approx(np.sum(p * (np.log(p) - own)), abs=1e-4)
    for key in ("coverage", "coverage_depth_1_3"):
        assert found[key].value == pytest.approx(np.minimum(p, np.exp(cool)).sum(), rel=1e-4)
        assert found[key].stderr is None
    assert found["off_support_rate"].value > 0.9  # an untrained model
    others = sample(model, 200, config.sampling, stream(2, "sampling"))
    alone = [log_probability(model, t, 0.7, ends=len(t.split()) < 20) for t in others]
    entropy, stderr = found["entropy_nats"].value, found["entropy_nats"].stderr
    assert stderr is not None
    assert abs(entropy + np.mean(alone)) < 4 * np.hypot(stderr, np.std(alone) / np.sqrt(len(alone)))


def test_the_same_expressions_are_held_out_in_every_generation() -> None:
    law = Law()
    first, again, other = (held_out(law, seed, 2) for seed in (1, 1, 2))
    assert [s.texts for s in first] == [s.texts for s in again] != [s.texts for s in other]
    assert [s.is_exact for s in first] == [True, True, False, False, False]
    exact = held_out(law, 1, 3)
    assert sum(len(s.texts) for s in exact if s.is_exact) == 44_315
    assert [s.texts for s in exact[3:]] == [s.texts for s in first[3:]]


def test_what_a_collapsed_model_leaves_is_measured(tiny: LoopConfig) -> None:
    texts = ["( ("] * 500
    found = measure_model(tiny, 2, model_of(), Sample.of(texts), texts, [-0.1] * 500)
    assert "kl_reverse_nats" not in found
    assert found["off_support_rate"].value == 1
    assert all(np.isfinite(estimate.value) for estimate in found.values())
