"""The definition of truth: it must agree with Python on the language, and survive everything else."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import WORDS, TruthLabel, enumerate_expressions, unique_set
from ouroloop.testbed.logic.verify import MAX_DEPTH, MAX_TOKENS, Judgement, Verdict, judge, parse
from ouroloop.testbed.tokenizer import EOS

MALFORMED = [
    "",
    " ",
    "( )",
    "( True )",
    "not True",
    "( not True",
    "True )",
    ") True (",
    "( not not True )",
    "( True and False or True )",
    "( True and )",
    "( and True )",
    "True True",
    "( True not False )",
    "( not True ) ",
    " ( not True )",
    "( not  True )",
    "(not True)",
    "( not\tTrue )",
    "( not true )",
    "( not True )\n",
    "( not \u2002True )",
    "<eos>",
    # What Python's eval accepts, though the language has no such expression
    "not ( )",
    "( not ( ) )",
    "True or ( ) ( )",
    "True or False ( True )",
    "True and 1",
    "__import__('os').system('true')",
    "( not True ) if True else ( not False )",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed(text: str) -> None:
    assert judge(text).verdict is Verdict.MALFORMED


@pytest.mark.heavy
def test_every_expression_up_to_depth_3_agrees_with_python() -> None:
    """Python's eval is right on well-formed text, which here comes from the grammar and not from a model."""
    for depth in (1, 2, 3):
        for text, value in enumerate_expressions(depth):
            verdict = Verdict.TRUE if value else Verdict.FALSE
            assert judge(text) == Judgement(verdict, depth, True)
            if depth < 3:
                assert eval(text) is value


@pytest.mark.parametrize(
    ("text", "verdict", "depth", "is_level"),
    [
        ("True", Verdict.TRUE, 0, True),
        ("( not False )", Verdict.TRUE, 1, True),
        ("( True and ( not True ) )", Verdict.FALSE, 2, False),
        ("( ( not True ) or ( True and True ) )", Verdict.TRUE, 2, True),
        # one child is uneven, and as deep as the other
        ("( not ( True and ( not True ) ) )", Verdict.TRUE, 3, False),
        ("( ( not ( not True ) ) and ( True and ( not True ) ) )", Verdict.FALSE, 3, False),
        ("( ( True and ( not True ) ) or ( not ( not True ) ) )", Verdict.TRUE, 3, False),
    ],
)
def test_true_is_not_the_same_as_in_the_grammar(text: str, verdict: Verdict, depth: int, is_level: bool) -> None:
    judgement = judge(text)
    assert (judgement.verdict, judgement.depth, judgement.is_level) == (verdict, depth, is_level)
    assert judgement.is_in_grammar(1, 5) == (is_level and depth >= 1)


def test_caps_on_depth_and_length() -> None:
    def negations(count: int) -> str:
        return "( not " * count + "True" + " )" * count

    assert judge(negations(MAX_DEPTH)).depth == MAX_DEPTH
    assert judge(negations(MAX_DEPTH + 1)).verdict is Verdict.MALFORMED
    wide = "True"
    for _ in range(8):
        wide = f"( {wide} and {wide} )"
    assert len(wide.split()) == 4 * 2**8 - 3 <= MAX_TOKENS
    assert judge(wide).verdict is Verdict.TRUE
    assert judge(f"( {wide} and {wide} )") == Judgement(Verdict.MALFORMED, None, False)
    assert parse(f"( {wide} and {wide} )") is None


TOKENS = (*WORDS, EOS)
JUNK = [*TOKENS, "\0", "λ", "\u202e", "\ud800", "eval('1')", "lambda: 0", "__import__('os')", "((", "\n", ""]


def mutated(words: list[str], below: Callable[[int], int]) -> list[str]:
    for _ in range(below(4)):
        at, junk = below(len(words) + 1), JUNK[below(len(JUNK))]
        match below(4):
            case 0:
                words = [*words[:at], junk, *words[at:]]
            case 1:
                words = words[:at] + words[at + 1 :]
            case 2:
                words = [*words[:at], junk, *words[at + 1 :]]
            case _:
                words = words[at:] + words[:at]
    return words


@pytest.mark.slow
def test_a_hundred_thousand_hostile_strings_get_a_verdict() -> None:
    """Random and mutated texts: tokens, Unicode, NUL, Python code, wrong blanks. None may raise."""
    numbers = iter(stream(1, "hostile").integers(2**31, size=2_000_000).tolist())  # drawn one by one they take seconds

    def below(count: int) -> int:
        return int(next(numbers) % count)

    seeds = unique_set(500, stream(1, "data"), truth_label=TruthLabel.HALF_AND_HALF)
    seen = dict.fromkeys(Verdict, 0)
    for i in range(100_000):
        words = seeds[i % 500].split(" ") if i % 2 else [TOKENS[below(8)] for _ in range(below(12))]
        judgement = judge((" " if i % 7 else "").join(mutated(words, below)))
        seen[judgement.verdict] += 1
        assert (judgement.depth is None) == (judgement.verdict is Verdict.MALFORMED)
    assert min(seen.values()) > 1_000  # the mutations reach every verdict


@given(st.text() | st.lists(st.sampled_from(TOKENS)).map(" ".join))
def test_any_string_gets_a_verdict(text: str) -> None:
    assert judge(text).verdict in Verdict


@pytest.mark.parametrize("unit", ["( not ", "True ", " ", "(", "\0", "( True and ", "λ", "print(1);"])
def test_ten_megabytes(unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    start = time.perf_counter()
    assert judge(text).verdict is Verdict.MALFORMED
    assert time.perf_counter() - start < 1  # one pass over 10 MB; anything quadratic takes hours


@pytest.mark.slow
def test_time_is_linear_in_length() -> None:
    """Doubling the length at the largest texts that are parsed at all may not quadruple the time."""

    def seconds(depth: int) -> float:
        text = "True"
        for _ in range(depth):
            text = f"( {text} or {text} )"
        best = float("inf")
        for _ in range(20):
            start = time.perf_counter()
            assert judge(text).depth == depth
            best = min(best, time.perf_counter() - start)
        return best / (text.count(" ") + 1)

    assert seconds(8) < 3 * seconds(5)  # 1,021 against 125 tokens: 8 times if it were quadratic
