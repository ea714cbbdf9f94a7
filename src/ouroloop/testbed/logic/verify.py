"""What a text is: True, False or malformed. This module defines truth for the whole project.

A shift-reduce parser over the seven words: one pass, linear in the length of the text, no recursion,
no exception on any string. Python's `eval` is not the grammar (it accepts `not ( )` and
`True or ( ) ( )`), and nothing that a model wrote may ever reach it.
"""

from enum import StrEnum
from typing import Literal, NamedTuple

MAX_TOKENS = 1_024  # more than the 1,000 that a model may be allowed to write
MAX_DEPTH = MAX_TOKENS // 3  # in operators, each of which takes three words: a well-formed text nests no deeper
_MAX_CHARACTERS = MAX_TOKENS * len("False ")


class Verdict(StrEnum):
    TRUE = "True"
    FALSE = "False"
    MALFORMED = "malformed"


class Node(NamedTuple):
    """A parsed expression; `is_level` says whether all its leaves lie equally deep."""

    operator: Literal["constant", "not", "and", "or"]
    children: "tuple[Node, ...]"
    value: bool
    depth: int
    is_level: bool


class Judgement(NamedTuple):
    verdict: Verdict
    depth: int | None
    """Longest path from root to leaf in operators, None when malformed."""
    is_level: bool

    def is_in_grammar(self, min_depth: int, max_depth: int) -> bool:
        """Whether the grammar with these depths can derive the text (True or False alike)."""
        return self.is_level and self.depth is not None and min_depth <= self.depth <= max_depth


_CONSTANTS = {
    "True": Node("constant", (), True, 0, True),
    "False": Node("constant", (), False, 0, True),
}


def parse(text: str) -> Node | None:
    """The tree of a well-formed expression, None for every other string.

    Texts over `MAX_TOKENS` words or nested deeper than `MAX_DEPTH` count as malformed.
    """
    if len(text) > _MAX_CHARACTERS or text.count(" ") >= MAX_TOKENS:
        return None
    stack: list[str | Node] = []
    num_open = 0
    for word in text.split(" "):
        if word in _CONSTANTS:
            stack.append(_CONSTANTS[word])
        elif word == "(":
            num_open += 1
            if num_open > MAX_DEPTH:
                return None
            stack.append(word)
        elif word in ("not", "and", "or"):
            stack.append(word)
        elif word == ")":
            node = _reduce(stack)
            if node is None:
                return None
            num_open -= 1
            stack.append(node)
        else:
            return None
    match stack:
        case [Node() as root]:
            return root
    return None


def _reduce(stack: list[str | Node]) -> Node | None:
    match stack[-4:]:
        case [*_, "(", "not", Node() as child]:
            del stack[-3:]
            return Node("not", (child,), not child.value, child.depth + 1, child.is_level)
        case ["(", Node() as left, "and" | "or" as operator, Node() as right]:
            del stack[-4:]
            value = (left.value and right.value) if operator == "and" else (left.value or right.value)
            is_level = left.is_level and right.is_level and left.depth == right.depth
            return Node(operator, (left, right), value, max(left.depth, right.depth) + 1, is_level)
    return None


def judge(text: str) -> Judgement:
    """The verdict on any string, with what the measures need to know of its form."""
    node = parse(text)
    if node is None:
        return Judgement(Verdict.MALFORMED, None, False)
    return Judgement(Verdict.TRUE if node.value else Verdict.FALSE, node.depth, node.is_level)
