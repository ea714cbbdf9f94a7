"""Texts with their provenance: who made each example, and when.

Every example is drawn from the testbed at the start (D_0) or fresh at t (F_t), or was sampled at t (S_t).
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


class Source(IntEnum):
    """Who made an example."""

    ORIGINAL = 0
    FRESH = 1
    SAMPLED = 2


class DatasetError(ValueError):
    """A dataset file that does not hold what was written to it."""


_PLAIN = "source\tgeneration\ttext"
_ESCAPED = "source\tgeneration\tescaped_text"


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
        """`count` examples without replacement, in the order they had; drawing all of them changes nothing."""
        if count == len(self):
            return self
        return self.take(np.sort(rng.choice(len(self), size=count, replace=False)))

    def take(self, chosen: npt.NDArray[np.int64]) -> "Dataset":
        """The examples at these places, in the order of the places."""
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
        """Gzipped table with a header, one example a line; equal datasets give equal bytes.

        Where any text has a tab or a newline, all texts are escaped, and the header says so.
        """
        return gzip.compress(self._table(), compresslevel=6, mtime=0)

    def digest(self) -> str:
        return hashlib.sha256(self._table()).hexdigest()

    def _table(self) -> bytes:
        texts, header = self.texts, _PLAIN
        if any("\t" in text or "\n" in text for text in texts):
            texts, header = tuple(map(_escaped, texts)), _ESCAPED
        lines = [header]
        for text, source, generation in zip(texts, self.sources, self.generations, strict=True):
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
            if header not in (_PLAIN, _ESCAPED) or any(len(row) != 3 for row in rows):
                raise DatasetError(f"{path} is not a dataset of ouroloop")
            return cls(
                tuple(_unescaped(text) if header == _ESCAPED else text for _, _, text in rows),
                np.array([Source[source.upper()] for source, _, _ in rows], dtype=np.uint8),
                np.array([int(generation) for _, generation, _ in rows], dtype=np.int32),
            )
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from error


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")


def _unescaped(text: str) -> str:
    return "\\".join(part.replace(r"\t", "\t").replace(r"\n", "\n") for part in text.split(r"\\"))


def _origin(source: int, generation: int) -> str:
    name = Source(source).name.lower()
    return name if source == Source.ORIGINAL else f"{name}-{generation:02d}"
