"""What somebody else's error says, on a line of ours."""

import pytest

from ouroloop.errors import needs, reason
from ouroloop.record.urls import masked


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no such table\n[SQL: SELECT 1]\n(Background on this error at: x)", "no such table"),
        ("In field 'n':\n\n    TypeError: expected\tint\nmore", "In field 'n': TypeError: expected int"),
        ("all of it:", "all of it:"),
        ("", "ValueError"),
        (" \n", "ValueError"),
    ],
)  # fmt: skip
def test_its_first_line_and_the_next_after_a_colon(said: str, line: str) -> None:
    assert reason(ValueError(said)) == line


def test_a_long_one_is_cut_between_words() -> None:
    line = reason(ValueError("word " * 100))
    assert line.endswith("word …")
    assert 190 < len(line) <= 200


@pytest.mark.parametrize("before", range(150, 200, 7))
def test_no_half_of_an_address_is_left_that_would_show_its_password(before: int) -> None:
    said = f"{'x' * before} postgresql://me:se-cret@{'h' * 30}-{'h' * 30} is away"
    assert "cret" not in masked(reason(ValueError(said)))


def test_a_library_that_is_not_there_is_named_with_its_extra() -> None:
    assert str(needs("--on=ray", "Ray", "ray")) == "--on=ray needs Ray: pip install 'ouroloop[ray]'"
