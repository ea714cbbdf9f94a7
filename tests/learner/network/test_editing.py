"""Token-level editing: what a model is sure of is drawn anew from it, and nothing else."""

import numpy as np

from ouroloop.learner.network.editing import _redrawn, edit
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.learner.network.test_sampling import model_of

TEXTS = ("( not False )", "( True or ( not False ) )", "", "True")


def test_nothing_is_so_sure_and_everything_is() -> None:
    model = model_of("gpt2")
    assert edit(model, TOKENIZER, TEXTS, 1.0, stream(1, "test")) == list(TEXTS)
    first, again = (edit(model, TOKENIZER, TEXTS, 0.0, stream(1, "test")) for _ in range(2))
    assert first == again
    assert first != list(TEXTS)
    assert [len(text.split()) for text in first] == [len(text.split()) for text in TEXTS]


def test_only_the_sure_tokens_are_drawn_and_as_probable_as_they_are() -> None:
    """90 : 10 without `<eos>`'s share; five standard errors of 2,000 draws."""
    p_LV = np.tile([[0.72, 0.08, 0.2], [0.2, 0.7, 0.1]], (2_000, 1))
    words = np.tile([0, 0], 2_000)
    drawn = np.array(_redrawn(p_LV, words, 0.5, 2, stream(1, "test"))).reshape(-1, 2)
    assert (drawn[:, 1] == 0).all()
    assert abs(np.mean(drawn[:, 0] == 1) - 0.1) <= 5 * np.sqrt(0.09 / 2_000)
