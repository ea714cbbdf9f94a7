"""Streams must be independent of one another and the same everywhere."""

from ouroloop.science.seeding import Streams, stream, torch_seed


def test_streams_are_pinned() -> None:
    """Another numpy or another Python must not change a published result unnoticed."""
    assert stream(1, "data").integers(1_000, size=4).tolist() == [699, 11, 34, 492]
    assert torch_seed(1, "init", 3) == 4214230478576880707


def test_every_part_of_the_key_counts() -> None:
    keys = [(1, "data", 0), (2, "data", 0), (1, "fresh", 0), (1, "data", 1), (11, "data", 0), (1, "data", 11)]
    assert len({stream(*key).integers(2**63) for key in keys}) == len(keys)
    assert len({torch_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= torch_seed(*key) < 2**63 for key in keys)


def test_the_streams_of_a_generation_are_of_that_generation() -> None:
    """Or every M_t would begin with the same weights, and every S_t be drawn with the same numbers."""
    assert Streams(1, 3).torch("init") == torch_seed(1, "init", 3) != torch_seed(1, "init")
    of_numpy = Streams(1, 3).numpy("data").integers(2**63)
    assert of_numpy == stream(1, "data", 3).integers(2**63) != stream(1, "data").integers(2**63)
