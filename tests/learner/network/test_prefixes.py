"""Rows of a tree of prefixes, and their slots in the key-value cache."""

import numpy as np
import torch

from ouroloop.learner.network.prefixes import SlotLayer, assign_slots


def test_a_cache_that_grows_has_room_for_the_texts_that_are_left() -> None:
    keys_RHLF = torch.randn(8, 2, 40, 4)
    layer = SlotLayer(8)
    layer.update(keys_RHLF[:, :, :32], keys_RHLF[:, :, :32])
    layer.num_slots = 3
    keys, values = layer.update(keys_RHLF[:2, :, 32:], keys_RHLF[:2, :, 32:])
    assert layer.keys.shape[0] == 3
    assert torch.equal(keys, keys_RHLF[:2])
    assert torch.equal(values, keys_RHLF[:2])


def test_slots_are_distinct_and_never_overwrite_a_live_parent() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        rows = int(rng.integers(1, 12))
        children = rng.integers(0, 4, size=rows)
        parents = np.repeat(np.arange(rows), children)
        if not len(parents):
            continue
        slots = assign_slots(parents)
        assert sorted(slots) == list(range(len(parents)))
        moved = slots != parents
        assert not set(slots[moved]) & set(parents[moved])
