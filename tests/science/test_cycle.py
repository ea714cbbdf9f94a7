"""The mixtures: no example may be lost, doubled, or lose its origin."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroloop.config import CycleConfig, DataCycle
from ouroloop.science.cycle import (
    fresh_share,
    needs_fresh_data,
    next_dataset,
    num_synthetic,
)
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import stream


def texts(prefix: str, count: int) -> list[str]:
    return [f"{prefix}.{i}" for i in range(count)]


def run(cycle: CycleConfig, m: int, generations: int, seed: int = 0, num_sampled: int | None = None) -> list[Dataset]:
    """D_0 .. D_T with every example's text naming its true origin. Of an S_t `num_sampled` texts are left, else m."""
    left = m if num_sampled is None else num_sampled
    original = Dataset.of(texts("original", m), Source.ORIGINAL, 0)
    datasets, samples = [original], list[Dataset]()
    for t in range(1, generations + 1):
        samples.append(Dataset.of(texts(f"sampled-{t:02d}", left), Source.SAMPLED, t))
        fresh = Dataset.of(texts(f"fresh-{t:02d}", m), Source.FRESH, t) if needs_fresh_data(cycle, m) else None
        datasets.append(
            next_dataset(
                cycle,
                original=original,
                previous=datasets[-1],
                samples=samples,
                fresh=fresh,
                rng=stream(seed, "cycle", t),
            )
        )
    return datasets


def cycles() -> st.SearchStrategy[CycleConfig]:
    with_proportion = st.builds(
        CycleConfig,
        kind=st.sampled_from([kind for kind in DataCycle if kind.takes_proportion]),
        synthetic_proportion=st.floats(0, 1),
    )
    return with_proportion | st.builds(
        CycleConfig, kind=st.sampled_from([kind for kind in DataCycle if not kind.takes_proportion])
    )


@given(cycles(), st.integers(2, 60), st.integers(1, 6))
def test_sizes_are_exact_and_nothing_is_lost_or_doubled(cycle: CycleConfig, m: int, generations: int) -> None:
    for t, dataset in enumerate(run(cycle, m, generations)):
        assert len(dataset) == (m * (t + 1) if cycle.kind is DataCycle.EXPANDING else m)
        assert len(set(dataset.texts)) == len(dataset)
        origins = Counter(text.split(".")[0] for text in dataset.texts)
        assert dataset.mixture() == origins  # what the provenance says is what the texts say
        assert sum(dataset.mixture().values()) == len(dataset)


HALF = [CycleConfig(kind=kind, synthetic_proportion=0.5 if kind.takes_proportion else None) for kind in DataCycle]


@pytest.mark.parametrize("cycle", HALF, ids=lambda cycle: str(cycle.kind))
def test_a_portion_is_drawn_evenly_and_is_no_head(cycle: CycleConfig) -> None:
    """D_0 and F_t begin with short texts. The mean place of n out of N is known to √((N+1)(N-n)/12n); five of these.

    For 50 of 100 that is 14.5 places about the middle, and their head is 25 away from it.
    """
    places: dict[str, list[int]] = {}
    for text in run(cycle, 100, 1)[1].texts:
        origin, place = text.split(".")
        places.setdefault(origin, []).append(int(place))
    for origin, found in places.items():
        n = len(found)
        assert abs(np.mean(found) - 99 / 2) <= 5 * np.sqrt(101 * (100 - n) / 12 / n), origin


def test_the_order_of_the_draws_is_pinned() -> None:
    """Another one would give published loops other data. D_{t-1} and F_t stand before S_t, which is drawn first."""
    drawn = {cycle.kind: [int(text.split(".")[1]) for text in run(cycle, 6, 1, seed=1)[1].texts] for cycle in HALF}
    assert drawn[DataCycle.BALANCED] == [1, 2, 3, 1, 3, 4]  # of D_0, of S_1
    assert drawn[DataCycle.INCREMENTAL] == [1, 3, 4, 1, 2, 3]  # of D_0, of S_1
    assert drawn[DataCycle.FRESH_MIX] == [1, 3, 4, 1, 2, 3]  # of F_1, of S_1
    assert drawn[DataCycle.EXPANDING] == [0, 1, 2, 3, 4, 5, 1, 3, 4, 1, 2, 3]  # D_0, of F_1, of S_1


def test_a_part_that_has_too_little_gives_all_and_nothing_stands_in_for_the_rest() -> None:
    """D_0 has 10 texts, and curation left 2 of S_1: m is still 10, and of the others no more is taken than ever."""
    found = {cycle.kind: run(cycle, 10, 1, num_sampled=2)[1].mixture() for cycle in HALF}
    assert found == {
        DataCycle.FULL_SYNTHETIC: {"sampled-01": 2},
        DataCycle.BALANCED: {"original": 5, "sampled-01": 2},
        DataCycle.INCREMENTAL: {"original": 5, "sampled-01": 2},
        DataCycle.EXPANDING: {"original": 10, "fresh-01": 5, "sampled-01": 2},
        DataCycle.FRESH_MIX: {"fresh-01": 5, "sampled-01": 2},
    }


def test_balanced_takes_equal_parts() -> None:
    dataset = run(CycleConfig(kind=DataCycle.BALANCED), 100, 6)[-1]
    assert dataset.mixture() == {"original": 15, "sampled-01": 15} | {f"sampled-{t:02d}": 14 for t in range(2, 7)}


def test_expanding_keeps_everything() -> None:
    cycle = CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.9)
    before, after = run(cycle, 50, 2)[-2:]
    assert after.texts[: len(before)] == before.texts
    assert after.mixture() == {"original": 50, "fresh-01": 5, "fresh-02": 5, "sampled-01": 45, "sampled-02": 45}


@pytest.mark.parametrize(
    ("cycle", "share"),
    [
        (CycleConfig(kind=DataCycle.FULL_SYNTHETIC), lambda t: 1),
        (CycleConfig(kind=DataCycle.BALANCED), lambda t: t / (t + 1)),
        (CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0.25), lambda t: 1 - 0.75**t),
        (CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.9), lambda t: 0.9 * t / (1 + t)),
        (CycleConfig(kind=DataCycle.FRESH_MIX, synthetic_proportion=0.3), lambda t: 0.3),
    ],
)
def test_realised_share_agrees_with_the_closed_form(cycle: CycleConfig, share: Callable[[int], float]) -> None:
    """Incremental alone is random: which examples of D_{t-1} stay is drawn. There the bound is 5 standard
    errors of a binomial share, which drawing without replacement stays inside."""
    m = 1_000
    for t, dataset in enumerate(run(cycle, m, 12)):
        expected = share(t) if t else 0.0
        drift = 5 * np.sqrt(expected * (1 - expected) / m) if cycle.kind is DataCycle.INCREMENTAL else 0
        assert abs(dataset.synthetic_share - expected) <= drift + (t + 1) / m


def test_incremental_at_1_is_full_synthetic_bit_for_bit() -> None:
    full = run(CycleConfig(kind=DataCycle.FULL_SYNTHETIC), 40, 4)
    incremental = run(CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1), 40, 4)
    assert [d.to_bytes() for d in full] == [d.to_bytes() for d in incremental]


def test_incremental_at_0_keeps_the_original_data() -> None:
    datasets = run(CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0), 40, 3)
    assert all(dataset.texts == datasets[0].texts for dataset in datasets)


@pytest.mark.parametrize("kind", [DataCycle.EXPANDING, DataCycle.FRESH_MIX])
def test_no_fresh_data_is_needed_at_1(kind: DataCycle) -> None:
    cycle = CycleConfig(kind=kind, synthetic_proportion=1)
    assert not needs_fresh_data(cycle, 40)
    assert "fresh-01" not in run(cycle, 40, 2)[-1].mixture()


def test_portions_are_rounded_half_up() -> None:
    def count(proportion: float) -> int:
        return num_synthetic(CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=proportion), 10)

    assert [count(p) for p in (0, 0.04, 0.05, 0.25, 0.95, 1)] == [0, 0, 1, 3, 10, 10]


@pytest.mark.parametrize("kind", DataCycle)
def test_the_fresh_share_is_what_the_new_examples_hold(kind: DataCycle) -> None:
    cycle = CycleConfig(kind=kind, synthetic_proportion=0.26 if kind.takes_proportion else None)
    new = Counter(text.split("-")[0] for text in run(cycle, 50, 1)[1].texts if not text.startswith("original"))
    assert fresh_share(cycle, 50) == pytest.approx(new["fresh"] / sum(new.values()))
    assert (fresh_share(cycle, 50) > 0) == needs_fresh_data(cycle, 50)
