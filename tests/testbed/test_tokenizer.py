"""The two tokenizers must agree, and the saved one must be what AutoTokenizer loads."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import WORDS, unique_set
from ouroloop.testbed.logic.testbed import TOKENIZER
from ouroloop.testbed.tokenizer import EOS, WordTokenizer


def test_eight_tokens_and_a_round_trip() -> None:
    assert TOKENIZER.size == len(TOKENIZER.words) == len(WORDS) + 1 == 8
    assert TOKENIZER.words[TOKENIZER.eos_id] == EOS
    for text in ["", "True", *unique_set(50, stream(1, "data"))]:
        ids = TOKENIZER.encode(text)
        assert ids[0] == ids[-1] == TOKENIZER.eos_id
        assert TOKENIZER.decode(ids[1:-1]) == text


def test_words_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(KeyError):
        TOKENIZER.encode("( not x )")


def test_a_words_id_is_its_place() -> None:
    tokenizer = WordTokenizer(["night", "day", "dawn"])
    assert (tokenizer.size, tokenizer.eos_id) == (4, 3)
    assert tokenizer.encode("dawn day dawn") == [3, 2, 1, 2, 3]
    assert tokenizer.decode([2, 1, 2]) == "dawn day dawn"


@pytest.mark.parametrize("words", [WORDS, ("night", "day", "dawn")], ids=["logic", "another language"])
def test_auto_tokenizer_agrees(tmp_path: Path, words: tuple[str, ...]) -> None:
    ours = WordTokenizer(words)
    ours.build(64).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(words) + 1
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == EOS
    logic = ["( not", *unique_set(50, stream(1, "data"))]
    for text in ["", *(logic if words == WORDS else ["night day night dawn"])]:
        assert tokenizer(text).input_ids == ours.encode(text)[:-1]  # a prompt is open at its end
        assert tokenizer.decode(ours.encode(text), skip_special_tokens=True) == text


def test_one_that_continues_decodes_what_can_be_joined_to_a_prompt(tmp_path: Path) -> None:
    TOKENIZER.build(64, continues=True).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "( not ( True and False ) )"
    ids = TOKENIZER.encode(text)
    for split in (2, 3, 7):
        prompt, rest = TOKENIZER.decode(ids[1:split]), tokenizer.decode(ids[split:], skip_special_tokens=True)
        assert prompt + rest == text
        assert tokenizer(prompt).input_ids == ids[:split]
    assert tokenizer.decode([TOKENIZER.eos_id], skip_special_tokens=True) == ""
