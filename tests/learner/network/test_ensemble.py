"""Several networks as one: their mean, token by token, also through the key-value cache."""

import pytest
import torch

from ouroloop.config import ModelConfig, SamplingConfig
from ouroloop.learner.network import sampling, scoring
from ouroloop.learner.network.ensemble import Mean, mean_of
from ouroloop.learner.network.model import build_model
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.testbed import TOKENIZER

SHAPE = ModelConfig(num_layers=2, num_heads=2, hidden_size=16, context_length=32)


def members(count: int) -> list[torch.nn.Module]:
    built = [build_model(SHAPE, TOKENIZER, seed=i).eval() for i in range(count)]
    with torch.no_grad():
        for model in built:
            for weight in model.parameters():
                weight.mul_(5)  # they disagree
    return built


def test_one_is_its_own_mean() -> None:
    (model,) = members(1)
    assert mean_of([model]) is model


def test_its_distribution_is_the_mean_of_theirs() -> None:
    three, ids = members(3), torch.tensor([TOKENIZER.encode("( True or False )")])
    with torch.no_grad():
        found = Mean(three)(input_ids=ids, use_cache=False).logits.exp()
        each = torch.stack([model(input_ids=ids).logits.softmax(-1) for model in three])
    assert torch.allclose(found, each.mean(0), atol=1e-6)
    assert (each.std(0).amax() > 0.05).item()


def test_it_is_sampled_with_a_cache_and_what_is_drawn_is_as_probable_as_it_scores() -> None:
    mean = mean_of(members(2))
    config = SamplingConfig(max_new_tokens=12, temperature=0.8)
    texts, log_probs = sampling.sample(mean, TOKENIZER, 50, config, stream(1, "sampling"))
    ended = {text: log_p for text, log_p in zip(texts, log_probs, strict=True) if len(text.split()) < 12}
    assert len(ended) > 3
    scores = scoring.log_probabilities(mean, TOKENIZER, list(ended), [0.8])[0]
    assert scores == pytest.approx(list(ended.values()), abs=1e-4)
    assert not mean.members[0].training
