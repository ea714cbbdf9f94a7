"""The paper's curves, to lay over ours: digitised from the figures of arXiv 2311.16822v2.

Diversity from figures 4, 5, 6 and 9, composition from 3 and 8, distinct texts from 7. Each is one run
at m = 10,000 and temperature 0.8 (those of appendix C, which start from False or from both, are means
of five runs of ten generations). Diversity is good to 0.0002, a count to one expression.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.grammar import Initialisation

NUM_EXAMPLES = 10_000
"""The paper's m."""


class Published(NamedTuple):
    """What the paper shows of one configuration, from generation 0 on; None where it shows nothing."""

    retention: list[float]
    """Diversity over that of the run's own D_0."""
    composition: list[tuple[float, float, float]] | None
    """Shares of True, False and malformed among all sampled."""
    unique_fraction: list[float] | None


@cache
def _figures() -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = json.loads(files("ouroloop").joinpath("paper.json").read_text("utf-8"))
    return figures


def published(config: LoopConfig) -> Published | None:
    """The paper's run of this cycle, proportion, temperature and kind of D_0; None where it ran nothing like it."""
    data = config.data
    if config.sampling.temperature != 0.8 or (data.min_depth, data.max_depth) != (1, 5):
        return None
    key = _key(config)
    diversity = _figures()["diversity"].get(key)
    if diversity is None:
        return None
    composition = _figures()["composition"].get(key)
    unique = _figures()["num_unique"].get(key)
    return Published(
        [value / diversity[0] for value in diversity],
        composition and [tuple(count / sum(counts) for count in counts) for counts in composition],
        unique and [count / NUM_EXAMPLES for count in unique],
    )


def _key(config: LoopConfig) -> str:
    kind, proportion = config.cycle.kind, config.cycle.synthetic_proportion
    if kind is DataCycle.INCREMENTAL and proportion == 1:
        kind, proportion = DataCycle.FULL_SYNTHETIC, None
    parts = [kind.value] if proportion is None else [kind.value, f"{proportion:g}"]
    if config.data.initialisation is not Initialisation.TRUE_ONLY:
        parts.append(config.data.initialisation.value)
    return "/".join(parts)
