"""Texts that go on with given beginnings, against exact probabilities and the sampler of one prompt."""

from collections import Counter

import numpy as np
import pytest
import torch

from ouroloop.config import SamplingConfig
from ouroloop.learner.base import Continuing, Samples
from ouroloop.learner.network import continuing
from ouroloop.learner.network.continuing import continued
from ouroloop.learner.network.fitted import Network
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import WORDS
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.learner.network.test_sampling import Cut, log_probability, model_of

CONFIG = SamplingConfig(temperature=0.9, max_new_tokens=6)
BEGINNINGS = ["( not", "True", "( True and", "( not", "", "( ( True", "False", "( not"]


def written(config: SamplingConfig = CONFIG, seed: int = 1, beginnings: list[str] = BEGINNINGS) -> Samples:
    return continued(model_of(), TOKENIZER, beginnings, config, stream(seed, "sampling"))


def test_no_text_is_longer_than_what_is_learnt_of_one() -> None:
    """A tokenizer may cut texts before the model has no position left: what is beyond has no end to be learnt."""
    fitted = Network(model_of(), Cut(TOKENIZER.words[:-1]), CONFIG.changed(max_new_tokens=20))
    assert fitted.num_positions == Cut.max_tokens
    lengths = [len(text.split()) for text in fitted.continued(["( not"] * 50, stream(1, "sampling")).texts]
    assert max(lengths) == Cut.max_tokens


def added(text: str, beginning: str) -> list[str]:
    assert text == beginning or text.startswith(beginning + (" " if beginning else ""))
    return text.removeprefix(beginning).split()


@pytest.mark.parametrize(("batch_size", "scores"), [(4_096, 2**28), (2, 2**28), (4_096, 1)])
def test_each_text_goes_on_with_its_own_beginning_and_is_as_probable_as_it_says(
    batch_size: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one forward pass for each text alone, less what its beginning takes of it."""
    monkeypatch.setattr(continuing, "_PROMPTED_AT_ONCE", scores)
    model, found = model_of(), written(CONFIG.changed(batch_size=batch_size))
    assert len(found.texts) == len(found.log_probs) == len(BEGINNINGS)
    for text, log_p, beginning in zip(*found, BEGINNINGS, strict=True):
        words = added(text, beginning)
        assert len(words) <= 6
        given = log_probability(model, beginning, 0.9, ends=False) if beginning else 0.0
        whole = log_probability(model, text, 0.9, ends=len(words) < 6)
        assert log_p == pytest.approx(whole - given, abs=1e-4)


def test_what_follows_equal_beginnings_are_independent_draws() -> None:
    """The next word or the end, of two beginnings of one length and a longer one: chi-square over those expected five
    times, the rest pooled; 0.1 % false alarms for at most 8 degrees of freedom, seed fixed."""
    model, kinds, n = model_of(), ["( not", "( True", "( True and"], 3_000
    config = SamplingConfig(temperature=0.9, max_new_tokens=1)
    beginnings = [kinds[i % 3] for i in range(3 * n)]
    texts = written(config, beginnings=beginnings).texts
    for i, kind in enumerate(kinds):
        counts = Counter(" ".join(added(text, kind)) for text in texts[i::3])
        given = log_probability(model, kind, 0.9, ends=False)
        expected = {
            word: n * np.exp(log_probability(model, f"{kind} {word}", 0.9, ends=False) - given) for word in WORDS
        }
        expected[""] = n * np.exp(log_probability(model, kind, 0.9) - given)
        assert sum(expected.values()) == pytest.approx(n)
        common = [word for word, count in expected.items() if count >= 5]
        assert len(common) > 1
        rest = n - sum(expected[word] for word in common)
        chi_square = sum((counts[word] - expected[word]) ** 2 / expected[word] for word in common)
        chi_square += (n - sum(counts[word] for word in common) - rest) ** 2 / max(rest, 5)
        assert chi_square < 26.1
    first, second = texts[0::6], texts[3::6]  # of the same beginning: which one of them a text stands for is chance
    assert abs(sum(map(len, first)) - sum(map(len, second))) < 4 * np.std([len(text) for text in texts]) * n**0.5


def test_the_same_stream_writes_the_same_and_another_one_does_not() -> None:
    assert written() == written()
    assert written().texts != written(seed=2).texts


def test_a_text_ends_where_the_model_has_no_position_left() -> None:
    """64 positions, the start symbol's counted: after it 60 words, so 4 more are read and one more is written."""
    beginning, config = " ".join(["not"] * 60), CONFIG.changed(max_new_tokens=50)
    texts = written(config, beginnings=[beginning] * 40).texts
    assert max(len(added(text, beginning)) for text in texts) <= 4


def test_equal_beginnings_are_evaluated_once() -> None:
    class Counting(torch.nn.Module):
        """Counts the rows of the first pass."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.rows, self.config = model_of(), list[tuple[int, ...]](), model_of().config
            self.device = torch.device("cpu")

        def forward(self, input_ids: torch.Tensor, **options: object) -> object:
            self.rows.append(tuple(input_ids.shape))
            return self.inner(input_ids=input_ids, **options)

    model = Counting()
    continued(model, TOKENIZER, ["( not"] * 50 + ["( True"] * 50, CONFIG, stream(1, "sampling"))  # type: ignore[arg-type]
    assert model.rows[0] == (2, 3)
    assert isinstance(Network(model_of(), TOKENIZER, CONFIG), Continuing)
