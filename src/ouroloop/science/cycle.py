"""The data cycles: which examples, made by whom, form the next training set.

    full_synthetic   D_t = S_t                                       m
    balanced         D_t = m/(t+1) from each of D_0, S_1 .. S_t      m
    incremental      D_t = (1-λ)·D_{t-1} + λ·S_t                     m
    expanding        D_t = D_{t-1} + (1-λ)·F_t + λ·S_t               m(t+1)
    fresh_mix        D_t = (1-λ)·F_t + λ·S_t                         m

A portion is drawn without replacement, uniformly, and rounded to whole examples (half up). Every
example keeps its provenance: drawn from the grammar at the start (D_0) or fresh at t (F_t), or
sampled at t (S_t). Knows nothing about models: S_t is a list of texts.

Source: Algorithm 1 and section 3 of arXiv 2311.16822v2; fresh_mix is the fresh-data loop of
arXiv 2307.01850.
"""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ouroloop.config import CycleConfig, DataCycle


class Source(IntEnum):
    """Who made an example."""

    ORIGINAL = 0
    FRESH = 1
    SAMPLED = 2


class DatasetError(ValueError):
    """A dataset file that is not what was written."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with their provenance, in order; duplicates are kept.

    `sources` holds `Source` values and `generations` the t at which each example was made (0 for D_0).
    """

    texts: tuple[str, ...]
    sources: npt.NDArray[np.uint8]
    generations: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: Sequence[str], source: Source, generation: int) -> Self:
        return cls(
            tuple(texts),
            np.full(len(texts), source, dtype=np.uint8),
            np.full(len(texts), generation, dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: "Dataset") -> "Dataset":
        return Dataset(
            self.texts + other.texts,
            np.concatenate([self.sources, other.sources]),
            np.concatenate([self.generations, other.generations]),
        )

    def draw(self, count: int, rng: np.random.Generator) -> "Dataset":
        """`count` examples without replacement, in the order they had; all of them changes nothing."""
        if count == len(self):
            return self
        chosen = np.sort(rng.choice(len(self), size=count, replace=False))
        return Dataset(tuple(self.texts[i] for i in chosen), self.sources[chosen], self.generations[chosen])

    @property
    def synthetic_share(self) -> float:
        """Model-made examples / all examples, in [0, 1]; raises on an empty dataset."""
        if not self.texts:
            raise ValueError("an empty dataset has no synthetic share")
        return float(np.mean(self.sources == Source.SAMPLED))

    def mixture(self) -> dict[str, int]:
        """Examples by origin: `original`, `fresh-07`, `sampled-03` …, in that order."""
        keys, counts = np.unique(np.stack([self.sources, self.generations]), axis=1, return_counts=True)
        names = (_origin(source, generation) for source, generation in keys.T)
        return dict(zip(names, map(int, counts), strict=True))

    def to_bytes(self) -> bytes:
        """Gzipped table with a header, one example a line; equal datasets give equal bytes."""
        return gzip.compress(self._table(), compresslevel=6, mtime=0)

    def digest(self) -> str:
        return hashlib.sha256(self._table()).hexdigest()

    def _table(self) -> bytes:
        lines = ["source\tgeneration\ttext"]
        for text, source, generation in zip(self.texts, self.sources, self.generations, strict=True):
            lines.append(f"{Source(source).name.lower()}\t{generation}\t{text}")
        return "\n".join(lines).encode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `to_bytes` wrote.

        Raises:
            DatasetError: truncated, damaged, or another kind of file.
        """
        try:
            header, *lines = gzip.decompress(path.read_bytes()).decode().split("\n")
            rows = [line.split("\t") for line in lines]
            if header != "source\tgeneration\ttext" or any(len(row) != 3 for row in rows):
                raise DatasetError(f"{path} is not a dataset of ouroloop")
            return cls(
                tuple(text for _, _, text in rows),
                np.array([Source[source.upper()] for source, _, _ in rows], dtype=np.uint8),
                np.array([int(generation) for _, generation, _ in rows], dtype=np.int32),
            )
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from error


def _origin(source: int, generation: int) -> str:
    name = Source(source).name.lower()
    return name if source == Source.ORIGINAL else f"{name}-{generation:02d}"


def num_synthetic(cycle: CycleConfig, num_examples: int) -> int:
    """λ·m rounded half up: how many examples of S_t enter the new part of D_t."""
    assert cycle.synthetic_proportion is not None
    return int(cycle.synthetic_proportion * num_examples + 0.5)


def needs_fresh_data(cycle: CycleConfig, num_examples: int) -> bool:
    has_fresh_part = cycle.kind in (DataCycle.EXPANDING, DataCycle.FRESH_MIX)
    return has_fresh_part and num_synthetic(cycle, num_examples) < num_examples


def fresh_share(cycle: CycleConfig, num_examples: int) -> float:
    """Fresh examples / all examples that are new in a D_t, t >= 1, in [0, 1]: what the grammar is asked for.

    New are the portions of F_t and S_t, so it is (m - round(λm)) / m for the cycles that draw F_t. The others
    live on D_0, which is not fresh: theirs is 0.
    """
    if not needs_fresh_data(cycle, num_examples):
        return 0.0
    return (num_examples - num_synthetic(cycle, num_examples)) / num_examples


def next_dataset(
    cycle: CycleConfig,
    *,
    original: Dataset,
    previous: Dataset,
    samples: Sequence[Dataset],
    fresh: Dataset | None,
    rng: np.random.Generator,
) -> Dataset:
    """D_t from D_0 (`original`), D_{t-1} (`previous`), S_1 .. S_t (`samples`) and F_t (`fresh`).

    m is the size of D_0. `fresh` holds m expressions, of which the cycle draws its portion; it may be
    None when `needs_fresh_data` says so. `rng` decides which examples are drawn, nothing else.
    """
    m, newest = len(original), samples[-1]
    if cycle.kind is DataCycle.FULL_SYNTHETIC:
        return newest
    if cycle.kind is DataCycle.BALANCED:
        parts = [original, *samples]
        share, rest = divmod(m, len(parts))  # the first `rest` parts give one more
        drawn = [part.draw(share + (i < rest), rng) for i, part in enumerate(parts)]
        return _joined(drawn)
    count = num_synthetic(cycle, m)
    synthetic = newest.draw(count, rng)
    if cycle.kind is DataCycle.INCREMENTAL:
        return _joined([previous.draw(m - count, rng), synthetic])
    increment = [synthetic] if fresh is None else [fresh.draw(m - count, rng), synthetic]
    return _joined([previous, *increment] if cycle.kind is DataCycle.EXPANDING else increment)


def _joined(parts: Sequence[Dataset]) -> Dataset:
    joined, *others = [part for part in parts if len(part)]
    for part in others:
        joined += part
    return joined


def expected_synthetic_share(cycle: CycleConfig, generation: int) -> float:
    """The share of D_t that is model-made, in expectation over the draws; 0 at t = 0."""
    t, proportion = generation, cycle.synthetic_proportion
    if t == 0:
        return 0.0
    match cycle.kind:
        case DataCycle.FULL_SYNTHETIC:
            return 1.0
        case DataCycle.BALANCED:
            return t / (t + 1)
    assert proportion is not None
    match cycle.kind:
        case DataCycle.INCREMENTAL:
            return float(1 - (1 - proportion) ** t)
        case DataCycle.EXPANDING:
            return proportion * t / (t + 1)
    return proportion
