"""Words and punctuation marks: what texts are counted in, whichever model writes them.

A token is a word or one other visible character, with the space before it if there is one, or one space of any kind.
Longer words are cut, so that a line of 100 kB without a space is not a single token. Joined, the tokens are the text
again.
"""

import re
from collections.abc import Iterator

LONGEST = 32
"""Most characters of a word that make one token."""

_TOKEN = re.compile(rf" ?\w{{1,{LONGEST}}}| ?[^\w\s]|\s")


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
