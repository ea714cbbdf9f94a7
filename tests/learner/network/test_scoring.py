"""The score of a text against one forward pass per text, against all outcomes, and against what is drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.network import scoring
from ouroloop.learner.network.sampling import sample
from ouroloop.learner.network.scoring import log_probabilities
from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Array
from ouroloop.testbed.logic.grammar import WORDS, enumerate_expressions
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.learner.network.test_sampling import log_probability, model_of

TEXTS = ["", "True", "( not True )", "( ( not False ) and ( not True ) )", ") ) or", "( not True )", "( not False )"]


def scores(model: PreTrainedModel, texts: Sequence[str], temperature: float = 1.0) -> Array:
    (log_p,) = log_probabilities(model, TOKENIZER, texts, [temperature])
    return log_p


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_a_text_scores_as_it_would_alone(model_type: str, temperature: float) -> None:
    model = model_of(model_type)
    log_p = scores(model, TEXTS, temperature)
    assert log_p.dtype == np.float64
    assert log_p == pytest.approx([log_probability(model, text, temperature) for text in TEXTS], abs=1e-4)
    assert log_p[2] == log_p[5] != log_p[6]
    assert log_probabilities(model, TOKENIZER, [], [0.8, 1.0]).shape == (2, 0)


def test_the_probabilities_of_all_outcomes_sum_to_1() -> None:
    """Every text of up to three words, and what is left: the chance of writing three words and not ending."""
    model = model_of(sharpness=2.0)
    words = WORDS
    level, finished = [""], []
    for _ in range(4):
        finished.append(np.exp(scores(model, level)).sum())
        level = [f"{text} {word}".strip() for text in level for word in words]
    ids = torch.tensor([TOKENIZER.encode(text)[:-1] for text in level])  # four words each: nothing is padded
    with torch.no_grad():
        steps = torch.log_softmax(model(input_ids=ids[:, :-1]).logits.double(), dim=-1)
    going_on = float(steps.gather(-1, ids[:, 1:, None]).sum(dim=(1, 2)).exp().sum())
    assert sum(finished) + going_on == pytest.approx(1, abs=1e-5)
    assert going_on > 0.01


@pytest.mark.heavy
def test_what_is_drawn_often_scores_high() -> None:
    """The frequency of the commonest text is within 4 standard errors of its probability."""
    model, n = model_of(), 20_000
    config = SamplingConfig(temperature=0.8, max_new_tokens=10)
    drawn = sample(model, TOKENIZER, n, config, stream(1, "sampling")).texts
    texts = [text for text in drawn if len(text.split()) < 10]
    commonest = max(set(texts), key=texts.count)
    p = float(np.exp(scores(model, [commonest], 0.8)[0]))
    assert abs(texts.count(commonest) / n - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_batches_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(sharpness=2.0).train()
    texts = [text for text, _ in enumerate_expressions(2)]
    at_once = scores(model, texts)
    assert (scores(model, texts) == at_once).all()
    assert (scores(model, texts[::-1])[::-1] == at_once).all()
    assert model.training
    monkeypatch.setattr(scoring, "_TOKENS_AT_ONCE", 40)
    assert scores(model, texts) == pytest.approx(at_once, abs=1e-5)


def diverged(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    return model


def test_what_cannot_be_scored_is_an_error_and_not_a_number() -> None:
    with pytest.raises(KeyError, match="maybe"):
        scores(model_of(), ["True", "maybe"])
    with pytest.raises(ValueError, match="a text of 64 words does not fit a model with 64 positions"):
        scores(model_of(), ["True " * 64])
    scores(model_of(), ["True " * 63])
    with pytest.raises(FloatingPointError):
        scores(diverged(model_of()), ["True"])


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_tree_of_prefixes_scores_as_its_texts_do(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several pieces, whose caches grow and reuse their slots."""
    model = model_of(model_type, sharpness=3.0)
    texts = [*(text for text, _ in enumerate_expressions(2)), "", "True", ") ) or", "( not " * 20 + "True"]
    expected = log_probabilities(model, TOKENIZER, texts, [0.8, 1.0])
    assert expected.shape == (2, len(texts))
    monkeypatch.setattr(scoring, "_score", None)  # nobody asks for a text by itself
    monkeypatch.setattr(scoring, "_MANY", len(texts) - 1)
    for piece in (1_000, 50):
        monkeypatch.setattr(scoring, "_TEXTS_AT_ONCE", piece)
        found = log_probabilities(model, TOKENIZER, texts, [0.8, 1.0])
        assert found == pytest.approx(expected, abs=1e-3)
