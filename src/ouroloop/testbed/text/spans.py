"""The longest span that each text shares with any of some others: exact, by a suffix array.

The array is made by prefix doubling (Manber and Myers, 1990): after round j every position knows the class of the 2^j
tokens that begin there, equal classes being equal tokens. From these classes the longest common prefix with the nearest
position of the others, up and down in the array, is read off by descending powers of two. O(n log n) in numpy.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def longest_shared(texts: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> list[int]:
    """For each of the texts, how many tokens its longest span has that is also in one of the others; 0 without any."""
    if not texts or not others:
        return [0] * len(texts)
    ids, starts = _joined([*others, *texts])
    first = starts[len(others)]  # from here on the texts
    longest = max(map(len, texts), default=0)
    rounds = _classes(ids, max(1, longest))
    order = np.argsort(rounds[-1], kind="stable")
    shared = np.zeros(len(ids), dtype=np.int64)
    for along in (order, order[::-1]):
        nearest = np.maximum.accumulate(np.where(along < first, np.arange(len(along)), -1))
        here = nearest >= 0
        shared[along[here]] = np.maximum(shared[along[here]], _prefix(rounds, along[here], along[nearest[here]]))
    return [int(most) for most in np.maximum.reduceat(shared, starts[len(others) :])]


def _joined(sequences: Sequence[Sequence[str]]) -> tuple[Ids, Ids]:
    """All of them in one row, as numbers, each followed by a number of its own; and where each begins."""
    vocabulary: dict[str, int] = {}
    row, starts = list[int](), list[int]()
    for i, sequence in enumerate(sequences):
        starts.append(len(row))
        row += [vocabulary.setdefault(token, len(vocabulary)) for token in sequence]
        row.append(-1 - i)
    return np.array(row, dtype=np.int64), np.array(starts, dtype=np.int64)


def _classes(ids: Ids, length: int) -> list[Ids]:
    """The class of the 1, 2, 4 … tokens from each position, numbered in order, up to `length` or until all differ."""
    rounds = [np.unique(ids, return_inverse=True)[1].astype(np.int64)]
    while (1 << (len(rounds) - 1)) < length and rounds[-1].max() + 1 < len(ids):
        step, last = 1 << (len(rounds) - 1), rounds[-1]
        following = np.zeros_like(last)
        following[:-step] = last[step:] + 1
        rounds.append(np.unique(last * (len(ids) + 1) + following, return_inverse=True)[1].astype(np.int64))
    return rounds


def _prefix(rounds: Sequence[Ids], ours: Ids, theirs: Ids) -> Ids:
    """How many tokens from each position of `ours` on equal those from its position of `theirs` on."""
    size, common = len(rounds[0]), np.zeros(len(ours), dtype=np.int64)
    for j in [*reversed(range(len(rounds))), 0]:
        at, there = np.minimum(ours + common, size - 1), np.minimum(theirs + common, size - 1)
        is_same = rounds[j][at] == rounds[j][there]
        common += np.where(is_same & (ours != theirs), 1 << j, 0)
    return common
