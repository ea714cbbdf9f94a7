"""The contract, and what a corpus gives a loop: apart, in the seed's order, and one line where there is too little."""

from pathlib import Path

import pytest

from ouroloop.errors import ConfigError
from ouroloop.science.seeding import stream
from ouroloop.testbed.text.testbed import TextTestbed
from tests.testbed import contract

NOUNS = ("cat", "dog", "house", "tree", "river", "cloud", "stone")
VERBS = ("sees", "likes", "follows", "forgets", "paints")
LINES = [f"The {a} {v} a {b}, {n} times." for n in range(3, 8) for a in NOUNS for v in VERBS for b in NOUNS]


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "corpus.txt"
    place.write_text("\n".join(LINES))
    return str(place)


class TestText(contract.TestbedContract):
    @pytest.fixture
    def testbed(self, path: str) -> TextTestbed:
        return TextTestbed(path, num_examples=contract.COUNT, num_held_out=20, compared_tokens=200)


def draw(testbed: TextTestbed, seed: int, num_fresh: int = 0) -> list[str]:
    prepared = testbed.prepared(seed, 100, num_fresh)
    return prepared.original(100, stream(seed, "data", 0))


def test_d_0_is_the_seeds_and_a_longer_loop_has_that_of_a_shorter_one(path: str) -> None:
    testbed = TextTestbed(path, num_held_out=50, compared_tokens=100)
    assert draw(testbed, 1) == draw(testbed, 1, num_fresh=500)
    assert draw(testbed, 1) != draw(testbed, 2)
    few = testbed.prepared(1, 100, 60).fresh(30, 2, stream(1, "fresh", 2))
    assert few == testbed.prepared(1, 100, 900).fresh(30, 2, stream(1, "fresh", 2))


def test_held_out_text_is_the_same_for_every_seed_and_in_no_training_set(path: str) -> None:
    testbed = TextTestbed(path, num_held_out=50, compared_tokens=100)
    one, other = testbed.prepared(1, 100, 1_000), testbed.prepared(2, 100, 1_000)
    assert one.held_out == other.held_out
    everything = {*one.original(100, stream(1, "data", 0)), *one.fresh(1_000, 1, stream(1, "fresh", 1))}
    assert len(everything) == 1_100
    assert not everything & set(one.held_out)


def test_what_is_missing_is_said_in_one_line(path: str) -> None:
    testbed = TextTestbed(path, num_held_out=100, compared_tokens=100)
    there = len(LINES)
    testbed.prepared(1, 1_000, there - 1_100)
    with pytest.raises(ConfigError, match=rf"{there:,} distinct .* 3 are missing: D_0 takes 1,000, fresh data 128"):
        testbed.prepared(1, 1_000, there - 1_100 + 3)
    with pytest.raises(ConfigError, match=r"D_0 takes 2,000, and 100 are held out"):
        testbed.prepared(1, 2_000, 0)
    with pytest.raises(ConfigError, match=r"compared_tokens 100,000 must be at most [0-9,]+, half of D_0"):
        TextTestbed(path, num_held_out=100, compared_tokens=100_000).prepared(1, 1_000, 0)


def test_a_changed_corpus_has_another_digest(path: str) -> None:
    before = TextTestbed(path).digest
    assert TextTestbed(path, seed=5, num_fresh=9).digest == before
    Path(path).write_text("\n".join([*LINES, "One more."]))
    assert TextTestbed(path).digest != before
