"""sympy as an independent judge: the truth of our trees, computed by somebody else's logic.

It gets trees that our parser built, never text: `sympify` and `parse_expr` run code.
"""

from collections.abc import Iterable

import sympy

from ouroloop.testbed.logic.verify import Node, parse


class OracleDisagreesError(AssertionError):
    """Our evaluator and sympy differ on an expression: a bug in one of them, never a measurement."""


def truth(node: Node) -> bool:
    """The value of a tree according to sympy."""
    if node.operator == "constant":
        return bool(sympy.true if node.value else sympy.false)
    children = [sympy.true if truth(child) else sympy.false for child in node.children]
    operator = {"not": sympy.Not, "and": sympy.And, "or": sympy.Or}[node.operator]
    return bool(operator(*children))


def cross_check(texts: Iterable[str]) -> int:
    """How many of the texts are well-formed, after checking that sympy agrees with our value on each of those.

    Raises:
        OracleDisagreesError: sympy judges a text differently; the first one is named.
    """
    checked = 0
    for text in texts:
        node = parse(text)
        if node is None:
            continue
        if truth(node) != node.value:
            raise OracleDisagreesError(f"{text!r} is {node.value} here and {truth(node)} in sympy")
        checked += 1
    return checked
