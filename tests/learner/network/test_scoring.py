"""The score of a text against one forward pass per text, against the whole law, and against what is drawn."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.network import sampling as score
from ouroloop.learner.network.sampling import log_probabilities, log_probabilities_at, log_probabilities_of_tree, sample
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import TOKENS, enumerate_expressions
from ouroloop.testbed.tokenizer import EOS_ID
from tests.learner.network.test_sampling import log_probability, model_of

TEXTS = ["", "True", "( not True )", "( ( not False ) and ( not True ) )", ") ) or", "( not True )", "( not False )"]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_a_text_scores_as_it_would_alone(model_type: str, temperature: float) -> None:
    model = model_of(model_type)
    nats = log_probabilities(model, TEXTS, temperature)
    assert nats.dtype == np.float64
    assert nats == pytest.approx([log_probability(model, text, temperature) for text in TEXTS], abs=1e-4)
    assert nats[2] == nats[5] != nats[6]
    assert log_probabilities(model, []).shape == (0,)


def test_the_probabilities_of_all_outcomes_sum_to_1() -> None:
    """Every text of up to three words, and what is left: the chance of writing three words and not ending."""
    model = model_of(sharpness=2.0)
    words = TOKENS[:EOS_ID]
    level, finished = [""], []
    for _ in range(4):
        finished.append(np.exp(log_probabilities(model, level)).sum())
        level = [f"{text} {word}".strip() for text in level for word in words]
    going_on = sum(np.exp(log_probability(model, text, 1.0, ends=False)) for text in level)
    assert sum(finished) + going_on == pytest.approx(1, abs=1e-5)
    assert going_on > 0.01


def test_what_is_drawn_often_scores_high() -> None:
    """The frequency of the commonest text is within 4 standard errors of its probability."""
    model, n = model_of(), 20_000
    config = SamplingConfig(temperature=0.8, max_new_tokens=10)
    texts = [text for text in sample(model, n, config, stream(1, "sampling")) if len(text.split()) < 10]
    commonest = max(set(texts), key=texts.count)
    p = float(np.exp(log_probabilities(model, [commonest], 0.8)[0]))
    assert abs(texts.count(commonest) / n - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_batches_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(sharpness=2.0).train()
    texts = [text for text, _ in enumerate_expressions(2)]
    at_once = log_probabilities(model, texts)
    assert (log_probabilities(model, texts) == at_once).all()
    assert (log_probabilities(model, texts[::-1])[::-1] == at_once).all()
    assert model.training
    monkeypatch.setattr(score, "_TOKENS_AT_ONCE", 40)
    assert log_probabilities(model, texts) == pytest.approx(at_once, abs=1e-5)


def diverged(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    return model


def test_what_cannot_be_scored_is_an_error_and_not_a_number() -> None:
    with pytest.raises(KeyError, match="maybe"):
        log_probabilities(model_of(), ["True", "maybe"])
    with pytest.raises(ValueError, match="a text of 64 words does not fit a model with 64 positions"):
        log_probabilities(model_of(), ["True " * 64])
    log_probabilities(model_of(), ["True " * 63])
    with pytest.raises(FloatingPointError):
        log_probabilities(diverged(model_of()), ["True"])


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_tree_of_prefixes_scores_as_its_texts_do(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several pieces, whose caches grow and reuse their slots."""
    model = model_of(model_type, sharpness=3.0)
    texts = [*(text for text, _ in enumerate_expressions(2)), "", "True", ") ) or", "( not " * 20 + "True"]
    expected = log_probabilities_at(model, texts, [0.8, 1.0])
    for piece in (1_000, 50):
        monkeypatch.setattr(score, "_TEXTS_AT_ONCE", piece)
        assert log_probabilities_of_tree(model, texts, [0.8, 1.0]) == pytest.approx(expected, abs=1e-3)
