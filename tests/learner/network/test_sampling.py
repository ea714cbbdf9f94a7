"""The sampler against exact probabilities: a model's distribution over whole texts is a product of softmaxes."""

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from ouroloop.config import ModelConfig, SamplingConfig
from ouroloop.learner.network import prefixes, sampling
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.sampling import sample
from ouroloop.learner.network.scoring import log_probabilities
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import WORDS
from ouroloop.testbed.logic.testbed import TOKENIZER
from ouroloop.testbed.tokenizer import WordTokenizer


class Cut(WordTokenizer):
    """Learns only the beginning of a text, though the model has more positions."""

    max_tokens = 7  # type: ignore[assignment]

    def encode(self, text: str) -> list[int]:
        return super().encode(text)[: self.max_tokens + 1]


def model_of(model_type: str = "gpt2", sharpness: float = 8.0) -> PreTrainedModel:
    """Random weights, scaled up so that its next-token distributions are far from uniform."""
    shape = ModelConfig(model_type=model_type, num_layers=2, num_heads=2, hidden_size=16, context_length=64)
    model = build_model(shape, TOKENIZER, seed=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(sharpness)
    return model


def log_probability(model: PreTrainedModel, text: str, temperature: float, ends: bool = True) -> float:
    """Of one text by itself: no cache, no batch, no sharing."""
    ids = torch.tensor([TOKENIZER.encode(text) if ends else TOKENIZER.encode(text)[:-1]])
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1]).logits[0].double()
    log_probabilities = torch.log_softmax(logits / temperature, dim=-1)
    return float(log_probabilities.gather(1, ids[0, 1:, None]).sum())


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_frequencies_are_the_exact_probabilities(model_type: str, temperature: float) -> None:
    """Every text of up to two words, finished or cut off there, is an outcome. Chi-square over outcomes
    expected at least five times, the rest pooled; 0.1 % false alarms (Wilson-Hilferty), seed fixed."""
    n = 40_000
    model = model_of(model_type)
    config = SamplingConfig(temperature=temperature, max_new_tokens=2, batch_size=15_000)
    counts = Counter(sample(model, TOKENIZER, n, config, stream(3, "sampling")).texts)
    words = WORDS
    outcomes = {"": log_probability(model, "", temperature)}
    outcomes |= {a: log_probability(model, a, temperature) for a in words}
    outcomes |= {f"{a} {b}": log_probability(model, f"{a} {b}", temperature, ends=False) for a in words for b in words}
    expected = {text: n * np.exp(value) for text, value in outcomes.items()}
    assert sum(expected.values()) == pytest.approx(n)
    assert counts.keys() <= expected.keys()
    common = [text for text, count in expected.items() if count >= 5]
    assert len(common) > 15
    rest = n - sum(expected[text] for text in common)
    chi_square = sum((counts[text] - expected[text]) ** 2 / expected[text] for text in common)
    if rest > 1:
        chi_square += (n - sum(counts[text] for text in common) - rest) ** 2 / rest
    degrees = len(common)
    limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * np.sqrt(2 / (9 * degrees))) ** 3
    assert chi_square < limit


@pytest.mark.slow
def test_long_texts_have_the_right_probabilities_too() -> None:
    """The mean of log p(text) over sampled texts, less its expectation, through growing and reused slots.
    The expectation is the entropy, estimated from independent single-text sampling; 4 standard errors."""
    model, config = model_of(sharpness=5.0), SamplingConfig(temperature=0.9, max_new_tokens=50)

    def mean(texts: list[str]) -> tuple[float, float]:
        values = [log_probability(model, text, 0.9, ends=len(text.split()) < 50) for text in texts]
        return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))

    together = mean(sample(model, TOKENIZER, 400, config, stream(4, "sampling")).texts)
    rng = stream(5, "sampling")
    alone = mean([sample(model, TOKENIZER, 1, config, rng).texts[0] for _ in range(150)])
    assert abs(together[0] - alone[0]) < 4 * np.hypot(together[1], alone[1])


def test_a_cached_row_is_evaluated_as_if_it_stood_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every length there is one row per distinct prefix, and its distribution is the one that the
    prefix has without any cache, also after the cache has grown and its slots were reused."""
    model = model_of("llama", sharpness=3.0)
    seen: list[torch.Tensor] = []
    split = sampling._split
    monkeypatch.setattr(prefixes, "_FIRST_CAPACITY", 3)
    monkeypatch.setattr(
        sampling, "_split", lambda logits, *rest: (seen.append(logits.clone()), split(logits, *rest))[1]
    )
    texts = sample(model, TOKENIZER, 400, SamplingConfig(max_new_tokens=45), stream(6, "sampling")).texts
    by_length: dict[int, set[str]] = {}
    for text in texts:
        words = text.split()
        for length in range(min(len(words), 44) + 1):
            by_length.setdefault(length, set()).add(" ".join(words[:length]))
    assert len(by_length) > 24  # the cache had to grow from 3 to 6, 12, 24 and more
    assert [len(logits) for logits in seen] == [len(by_length[length]) for length in range(len(seen))]
    for length, beginnings in by_length.items():
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([TOKENIZER.encode(text)[:-1] for text in beginnings])).logits[:, -1]
        alone, cached = (rows[rows[:, 0].sort().indices] for rows in (alone, seen[length]))
        assert torch.allclose(alone, cached, atol=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("prompt", ["", "( not"])
def test_each_text_comes_with_the_probability_that_it_was_drawn_with(prompt: str) -> None:
    """Some end, some are cut off after 12 words, and some are drawn more than once."""
    model, config = model_of("llama", sharpness=3.0), SamplingConfig(temperature=0.8, max_new_tokens=12)
    texts, log_p = sample(model, TOKENIZER, 300, config, stream(7, "sampling"), prompt)
    given = log_probability(model, prompt, 0.8, ends=False) if prompt else 0.0
    longest = 12 + len(prompt.split())
    alone = [log_probability(model, text, 0.8, ends=len(text.split()) < longest) - given for text in texts]
    assert log_p == pytest.approx(alone, abs=1e-4)
    assert {len(text.split()) < longest for text in texts} == {True, False}
    assert texts == sample(model, TOKENIZER, 300, config, stream(7, "sampling"), prompt).texts


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_min_p_cuts_improbable_tokens_and_scores_what_is_drawn(temperature: float) -> None:
    """First tokens against the softmax of one forward pass, cut by hand; five standard errors of 4,000 draws."""
    model = model_of("llama", sharpness=8.0)
    config = SamplingConfig(temperature=temperature, max_new_tokens=12, min_p=0.3)
    ids = torch.tensor([[TOKENIZER.eos_id]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, -1, : TOKENIZER.size].double()
    p = torch.softmax(logits / temperature, dim=-1).numpy()
    p = np.where(p < 0.3 * p.max(), 0.0, p)
    p /= p.sum()
    assert 1 < np.count_nonzero(p) < TOKENIZER.size
    n = 4_000
    texts, log_probs = sample(model, TOKENIZER, n, config, stream(1, "sampling"))
    drawn = Counter((*text.split(), "<eos>")[0] for text in texts)
    for token, share in enumerate(p):
        word = TOKENIZER.decode([token]) if token != TOKENIZER.eos_id else "<eos>"
        assert abs(drawn[word] - n * share) <= 5 * np.sqrt(n * share * (1 - share))
    ended = {t: log_p for t, log_p in zip(texts, log_probs, strict=True) if len(t.split()) < 12}
    scores = log_probabilities(model, TOKENIZER, list(ended), [temperature], min_p=0.3)[0]
    assert scores == pytest.approx(list(ended.values()), abs=1e-4)
    never = next(TOKENIZER.decode([token]) for token in np.flatnonzero(p == 0) if token != TOKENIZER.eos_id)
    assert log_probabilities(model, TOKENIZER, [never], [temperature], min_p=0.3)[0, 0] == -np.inf


def test_number_of_texts_and_limits() -> None:
    model = model_of()
    for count, batch_size in [(1, 1), (7, 3), (100, 4_096)]:
        config = SamplingConfig(max_new_tokens=9, batch_size=batch_size)
        texts, log_p = sample(model, TOKENIZER, count, config, stream(1, "s"))
        assert len(texts) == len(log_p) == count
        assert all(len(text.split()) <= 9 for text in texts)
        assert all(word in WORDS for text in texts for word in text.split())


def test_the_same_stream_gives_the_same_texts() -> None:
    model, config = model_of(), SamplingConfig(max_new_tokens=20)
    first, again, other = (sample(model, TOKENIZER, 200, config, stream(seed, "s")) for seed in (1, 1, 2))
    assert first == again != other


def test_a_prompt_is_continued() -> None:
    texts = sample(model_of(), TOKENIZER, 50, SamplingConfig(max_new_tokens=5), stream(1, "s"), prompt="( not").texts
    assert all(text.startswith("( not") and len(text.split()) <= 7 for text in texts)
    assert len(set(texts)) > 1


def test_a_diverged_model_is_an_error() -> None:
    model = model_of()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        sample(model, TOKENIZER, 5, SamplingConfig(max_new_tokens=5), stream(1, "s"))
