"""Joined, tokens are the text; blocks lose nothing but space."""

from hypothesis import given
from hypothesis import strategies as st

from ouroloop.testbed.text.tokens import LONGEST, blocks, tokens

ANY = st.text() | st.text(st.characters(exclude_categories=())) | st.text(" a\n\t.é_'", max_size=200)


@given(text=ANY)
def test_joined_they_are_the_text(text: str) -> None:
    found = tokens(text)
    assert "".join(found) == text
    assert all(1 <= len(token) <= LONGEST + 1 for token in found)


def test_words_take_the_space_before_them_and_marks_stand_alone() -> None:
    assert tokens("It's a  dog, really!\n") == ["It", "'", "s", " a", " ", " dog", ",", " really", "!", "\n"]
    assert tokens("x" * 100) == ["x" * 32] * 3 + ["x" * 4]
    assert tokens("naïve 🐍") == ["naïve", " 🐍"]


def test_scripts_without_spaces_between_words_are_counted_in_characters() -> None:
    """As one word, a sentence would be one token, and any two sentences equally far apart."""
    assert tokens("東京は大きい。 3年 GPT") == ["東", "京", "は", "大", "き", "い", "。", " 3", "年", " GPT"]
    assert tokens("ภาษาไทย") == list("ภาษาไทย")
    assert tokens("한국어 문장은 나눈다") == ["한국어", " 문장은", " 나눈다"]


@given(text=ANY, size=st.integers(1, 20))
def test_blocks_are_full_but_the_last_and_lose_only_space(text: str, size: int) -> None:
    found = list(blocks(text, size))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(tokens(block)) <= size and not block.isspace() for block in found)
    if not any(character.isspace() for character in text):
        assert "".join(found) == text
        assert all(len(tokens(block)) == size for block in found[:-1])


def test_a_block_is_so_many_tokens() -> None:
    assert list(blocks("one two three four five", 2)) == ["one two", " three four", " five"]
    assert list(blocks(" \n\t ", 2)) == []
