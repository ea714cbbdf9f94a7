"""One root seed, many independent named streams.

A stream is keyed by the root seed, a name and a generation, so that drawing more from one stage
never shifts what another stage draws, and a resumed loop draws what an undisturbed one would have.
"""

import hashlib
from typing import NamedTuple

import numpy as np


def _words(seed: int, name: str, generation: int) -> list[int]:
    digest = hashlib.sha256(f"{seed}/{name}/{generation}".encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


def stream(seed: int, name: str, generation: int = 0) -> np.random.Generator:
    """The numpy generator of the stage `name` at `generation`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(seed, name, generation))))


def torch_seed(seed: int, name: str, generation: int = 0) -> int:
    """A 63-bit seed for torch, independent of every `stream` of another name."""
    low, high, *_ = _words(seed, name, generation)
    return (high << 32 | low) & (2**63 - 1)


class Streams(NamedTuple):
    """All streams of one generation."""

    seed: int
    generation: int

    def numpy(self, name: str) -> np.random.Generator:
        return stream(self.seed, name, self.generation)

    def torch(self, name: str) -> int:
        """A seed for torch."""
        return torch_seed(self.seed, name, self.generation)
