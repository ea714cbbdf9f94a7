"""Words and punctuation marks: what texts are counted in, whichever model writes them.

A token is a word or one other visible character, with the space before it if there is one, or one space of any kind.
Scripts that put no spaces between words, such as Chinese, Japanese and Thai, have a token for each character. Longer
words are cut, so that a line of 100 kB without a space is not a single token. Joined, the tokens are the text again.
"""

import re
from collections.abc import Iterator

LONGEST = 32
"""Most characters of a word that make one token."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_TOKEN = re.compile(rf" ?[^\W{_UNSPACED}]{{1,{LONGEST}}}| ?[{_UNSPACED}]| ?[^\w\s]|\s")


def tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def blocks(document: str, size: int) -> Iterator[str]:
    """The document cut after every `size` tokens; only blocks that are all whitespace are lost."""
    if len(document) <= size:  # it has no more tokens than characters: most lines of most corpora
        pieces = [document]
    else:
        found = tokens(document)
        pieces = ["".join(found[start : start + size]) for start in range(0, len(found), size)]
    return (piece for piece in pieces if piece and not piece.isspace())
