"""Texts that go on where given beginnings end, one for each."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.base import Samples
from ouroloop.learner.network.model import evaluating
from ouroloop.learner.network.rows import most_tokens
from ouroloop.learner.network.sampling import tree
from ouroloop.testbed.base import Tokenizer

_PROMPTED_AT_ONCE = 2**28  # logits: bounds the output of the first forward pass


@torch.inference_mode()
def continued(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    beginnings: Sequence[str],
    config: SamplingConfig,
    rng: np.random.Generator,
) -> Samples:
    """A text for each beginning, in their order, drawn as `sample` draws it given that prompt.

    Equal beginnings share one row of the key-value cache until their texts part; those with equally many tokens are
    evaluated together. A text is cut off after `config.max_new_tokens` more tokens, or where the model takes no more.

    Raises:
        FloatingPointError: the model gives no finite distribution.
    """
    starts = [tuple(tokenizer.encode(text)[:-1]) for text in beginnings]
    drawn: dict[tuple[int, ...], list[tuple[tuple[int, ...], float]]] = {start: [] for start in starts}
    limit = most_tokens(model, tokenizer)
    with evaluating(model):
        for group, counts in _groups(starts, config.batch_size, tokenizer.size):
            room = limit - len(group[0]) + 1
            within = config.changed(max_new_tokens=max(1, min(config.max_new_tokens, room)))
            for root, ids, log_p, copies in tree(model, tokenizer, group, counts, within, rng):
                drawn[group[root]] += [(ids, log_p)] * copies
    for texts in drawn.values():  # in an order that says nothing about how probable they are
        texts[:] = [texts[i] for i in rng.permutation(len(texts))]
    written = [(start, *drawn[start].pop()) for start in starts]
    return Samples(
        [tokenizer.decode([*start[1:], *ids]) for start, ids, _ in written], [log_p for _, _, log_p in written]
    )


def _groups(
    starts: Sequence[tuple[int, ...]], at_once: int, vocabulary_size: int
) -> Iterator[tuple[list[tuple[int, ...]], npt.NDArray[np.int64]]]:
    """Distinct starts of one length with their counts, at most `at_once` texts in a group."""
    counted = sorted(Counter(starts).items(), key=lambda item: len(item[0]))  # among equals in their order
    group, counts = list[tuple[int, ...]](), list[int]()
    for start, count in counted:
        rows = max(1, _PROMPTED_AT_ONCE // (len(start) * vocabulary_size))
        while count:
            if group and (len(group[0]) != len(start) or len(group) >= rows or sum(counts) >= at_once):
                yield group, np.array(counts)
                group, counts = [], []
            taken = min(count, at_once - sum(counts))
            group.append(start)
            counts.append(taken)
            count -= taken
    if group:
        yield group, np.array(counts)
