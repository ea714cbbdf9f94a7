"""MAUVE against histograms made by hand, and what must hold for any features."""

import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from ouroloop.config import ConfigError
from ouroloop.science import likeness
from ouroloop.science.likeness import Likeness, mauve, require_mauve
from ouroloop.testbed.base import Array, Sample
from ouroloop.testbed.text.testbed import TextTestbed

WORDS = TextTestbed()


def points(seed: int, count: int = 200, width: int = 8) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("mauve", exc_type=ImportError)


def area(p: Array, q: Array) -> float:
    """Under the divergence curve of two histograms, by the paper's definition, trapezoids over 25 mixtures."""

    def divergence(one: Array, other: Array) -> float:
        there = one > 0
        return float((one[there] * np.log(one[there] / other[there])).sum())

    curve = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, 25):
        mixed = weight * p + (1 - weight) * q
        curve.append((float(np.exp(-5 * divergence(q, mixed))), float(np.exp(-5 * divergence(p, mixed)))))
    x, y = np.array([*curve, (1.0, 0.0)]).T

    def under(along: Array, height: Array) -> float:
        order = np.argsort(along)
        return float(np.trapezoid(height[order], along[order]))

    return (under(x, y) + under(y, x)) / 2


def test_it_is_the_area_under_the_curve_of_two_histograms() -> None:
    """Twenty texts a side in two heaps, so far apart that the two clusters are known: 15 and 5 beside 8 and 12."""
    heaps = np.array([[1.0, 0.0], [0.0, 1.0]])
    spread = 1e-3 * points(1, 20, 2)
    ours, real = heaps[[0] * 15 + [1] * 5] + spread, heaps[[0] * 8 + [1] * 12] + spread[::-1]
    assert mauve(ours, real) == pytest.approx(area(np.array([0.75, 0.25]), np.array([0.4, 0.6])), rel=1e-9)


def test_the_same_are_alike_others_are_not_and_two_samples_of_one_source_are_nearly() -> None:
    ours, alike, aside = points(1), points(2), 99 * np.eye(8)
    assert mauve(ours, ours) == 1.0
    same_source = mauve(ours, alike)
    assert same_source is not None
    assert 0.8 < same_source < 1
    nothing_shared = mauve(ours + aside[0], alike + aside[1])
    assert nothing_shared == pytest.approx(area(np.array([1.0, 0.0]), np.array([0.0, 1.0])), abs=1e-9)
    assert nothing_shared < 0.005


CODE = """
import numpy as np
from ouroloop.science.likeness import mauve
rng = np.random.default_rng(5)
print(mauve(rng.normal(size=(300, 64)), rng.normal(size=(300, 64)) + 0.1).hex())
"""


@pytest.mark.heavy
def test_it_is_the_same_bit_for_bit_whatever_the_threads() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        )
        for threads in ("1", "2")
    ]  # fmt: skip
    rng = np.random.default_rng(5)
    ours, real = rng.normal(size=(300, 64)), rng.normal(size=(300, 64)) + 0.1
    here = [mauve(ours, real), mauve(ours, real)]
    assert {value.hex() for value in here if value is not None} == {one.stdout.strip() for one in found}
    assert {one.stderr for one in found} == {""}, "faiss says nothing to the terminal"


def test_what_is_no_number_has_none() -> None:
    numbers, none = points(1, 20, 2), np.full((20, 2), np.nan)
    assert mauve(none, numbers) is mauve(numbers, none) is None


class Counted:
    """Features by a rule: how long a text is, and its first letter. Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Array:
        self.asked.append(list(texts))
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float64)


REAL = [f"{'abcde'[i % 5]} real text of {'x' * (i % 7)} {i}" for i in range(60)]


def test_real_texts_are_read_once_and_a_repeated_text_too() -> None:
    read = Counted()
    measure = Likeness(read, REAL, 20)
    collapsed = Sample.of(["a text"] * 25, WORDS)
    first = measure.of(collapsed)
    assert first == measure.of(collapsed)
    assert [len(texts) for texts in read.asked] == [1, 20, 1]
    assert 0 <= first["mauve"].value < 0.3
    assert first["mauve"].stderr is None


def test_both_sides_have_as_many_texts_and_a_smaller_sample_has_no_value() -> None:
    read = Counted()
    measure = Likeness(read, REAL, 20)
    original = Sample.of(REAL[20:], WORDS)
    assert measure.of(Sample.of(REAL[:19], WORDS)) == {}
    assert measure.control(Sample.of(REAL[:39], WORDS)) == {}
    assert measure.of(original).keys() == {"mauve"}
    control = measure.control(original)["control_mauve"].value
    halves = [Counted()(original.spread[start::2][:20]) for start in (1, 0)]
    assert control == mauve(*halves)
    assert max(len(texts) for texts in read.asked) == 20
    assert measure.of(Sample.of(REAL[:20], WORDS))["mauve"].value == 1.0, "the library says 0.75"


def test_without_the_library_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_mauve()
    monkeypatch.setattr(likeness, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        require_mauve()
    assert str(error.value) == "data.mauve_model needs mauve-text: pip install 'ouroloop[mauve]'"
