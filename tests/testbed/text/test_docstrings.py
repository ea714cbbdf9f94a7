"""What is taken for English, and that a library's sentences are kept by its version."""

import gzip
from pathlib import Path

import pytest

from ouroloop.testbed.text import docstrings

SOURCE = b'''
"""A module about one thing and no other thing at all.

    >>> this(is, code)

Its second paragraph is wrapped
over two lines. And it has a second sentence in it!
"""

def function(x):
    """Short one.

    Args:
        x: The value that the caller wants to have doubled.
    """

class Thing:
    """Returns x = 1; y = 2; z[0] = {3}; w @ v; all of that.

    Notes
    -----
    The heading above this sentence is no part of it.
    """
'''


def test_sentences_are_english() -> None:
    assert list(docstrings.of_source(SOURCE)) == [
        "A module about one thing and no other thing at all.",
        "Its second paragraph is wrapped over two lines.",
        "And it has a second sentence in it!",
        "The heading above this sentence is no part of it.",
    ]


def test_a_source_of_another_python_is_left_out() -> None:
    with pytest.raises(SyntaxError):
        list(docstrings.of_source(b"print 'hello'"))


@pytest.mark.heavy
def test_a_library_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = list(docstrings.sentences(["optuna"]))
    assert len(set(first)) == len(first) > 300
    (kept,) = (tmp_path / "ouroloop" / "docstrings").iterdir()
    assert kept.name.startswith("optuna-")
    kept.write_bytes(gzip.compress(b"Only this sentence was kept of it."))
    assert list(docstrings.sentences(["optuna"])) == ["Only this sentence was kept of it."]
    kept.write_bytes(b"damaged")
    assert list(docstrings.sentences(["optuna"])) == first


def test_the_path_names_libraries() -> None:
    assert docstrings.libraries_of("docstrings") == docstrings.LIBRARIES
    assert docstrings.libraries_of("docstrings:optuna, rich") == ["optuna", "rich"]
    assert docstrings.libraries_of("corpus.txt") is None
    assert "numpy-" in docstrings.versions(["numpy"])[0]
