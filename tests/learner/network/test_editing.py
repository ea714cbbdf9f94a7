"""Token-level editing: what a model is sure of is drawn anew from it, and nothing else."""

import numpy as np
import pytest
import torch

from ouroloop.learner.network import editing
from ouroloop.learner.network.editing import _redrawn, edit
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.learner.network.test_sampling import Cut, model_of

TEXTS = ("( not False )", "( True or ( not False ) )", "", "True")


def test_nothing_is_so_sure_and_everything_is() -> None:
    model = model_of("gpt2")
    assert edit(model, TOKENIZER, TEXTS, 1.0, stream(1, "test")) == list(TEXTS)
    first, again = (edit(model, TOKENIZER, TEXTS, 0.0, stream(1, "test")) for _ in range(2))
    assert first == again
    assert first != list(TEXTS)
    assert [len(text.split()) for text in first] == [len(text.split()) for text in TEXTS]


def test_what_is_not_drawn_anew_stays_letter_by_letter_and_what_is_cut_stays() -> None:
    """Its tokens come back as another text: two spaces are one to this tokenizer."""
    model = model_of("gpt2")
    assert edit(model, TOKENIZER, ["( not  False )"], 1.0, stream(1, "test")) == ["( not  False )"]
    cut = Cut(TOKENIZER.words[:-1])
    short, long = "( not True )", "( True or ( not False ) )"
    first, second = edit(model, cut, [short, long], 0.0, stream(1, "test"))
    assert (first != short, second == long) == (True, True)


def test_a_token_is_judged_and_drawn_by_what_follows_the_texts_own_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one forward pass of the text by itself says; here it is one of a batch, and there are two batches."""
    model, asked = model_of("gpt2").train(), dict[tuple[int, ...], np.ndarray]()

    def noted(p_LV: np.ndarray, words: np.ndarray, *rest: object) -> list[int]:
        asked[tuple(words.tolist())] = p_LV
        return [int(word) for word in words]

    monkeypatch.setattr(editing, "_redrawn", noted)
    monkeypatch.setattr(editing, "_AT_ONCE", 2)
    assert edit(model, TOKENIZER, TEXTS, 0.5, stream(1, "test")) == list(TEXTS)
    assert model.training
    ids = {text: TOKENIZER.encode(text) for text in TEXTS if text}
    assert asked.keys() == {tuple(own[1:-1]) for own in ids.values()}
    for own in ids.values():
        with torch.no_grad():
            logits_LV = model.eval()(input_ids=torch.tensor([own[:-2]])).logits[0, :, : TOKENIZER.size].double()
        assert asked[tuple(own[1:-1])] == pytest.approx(logits_LV.softmax(-1).numpy(), abs=1e-5)


def test_only_the_sure_tokens_are_drawn_and_as_probable_as_they_are() -> None:
    """90 : 10 without `<eos>`, which is never drawn; five standard errors of 2,000 draws.

    A token that is just as probable as the threshold is sure.
    """
    p_LV = np.tile([[0.72, 0.08, 0.2], [0.2, 0.7, 0.1]], (2_000, 1))
    words = np.tile([0, 0], 2_000)
    drawn = np.array(_redrawn(p_LV, words, 0.72, 2, stream(1, "test"))).reshape(-1, 2)
    assert (drawn[:, 1] == 0).all()
    assert set(drawn[:, 0]) == {0, 1}
    assert abs(np.mean(drawn[:, 0] == 1) - 0.1) <= 5 * np.sqrt(0.09 / 2_000)
