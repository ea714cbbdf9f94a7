"""The two tokenizers must agree, and the saved one must be what AutoTokenizer loads."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import EOS, TOKENS, unique_set
from ouroloop.testbed.tokenizer import EOS_ID, build_tokenizer, decode, encode


def test_eight_tokens_and_a_round_trip() -> None:
    assert len(TOKENS) == 8
    for text in ["", "True", *unique_set(50, stream(1, "data"))]:
        ids = encode(text)
        assert ids[0] == ids[-1] == EOS_ID
        assert decode(ids[1:-1]) == text


def test_words_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(KeyError):
        encode("( not x )")


def test_auto_tokenizer_agrees(tmp_path: Path) -> None:
    build_tokenizer(64).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == EOS
    for text in ["", "( not", *unique_set(50, stream(1, "data"))]:
        assert tokenizer(text).input_ids == encode(text)[:-1]  # a prompt is open at its end
        assert tokenizer.decode(encode(text), skip_special_tokens=True) == text


def test_one_that_continues_decodes_what_can_be_joined_to_a_prompt(tmp_path: Path) -> None:
    build_tokenizer(64, continues=True).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "( not ( True and False ) )"
    ids = encode(text)
    for split in (2, 3, 7):
        prompt, rest = decode(ids[1:split]), tokenizer.decode(ids[split:], skip_special_tokens=True)
        assert prompt + rest == text
        assert tokenizer(prompt).input_ids == ids[:split]
    assert tokenizer.decode([EOS_ID], skip_special_tokens=True) == ""
