"""The paper's diversity curves, to lay over ours: digitised from figures 4, 5 and 6 of arXiv 2311.16822v2.

Each is one run at m = 10,000 and temperature 0.8; values are good to 0.0002.
"""

import json
from functools import cache
from importlib.resources import files

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.grammar import Initialisation


@cache
def _curves() -> dict[str, list[float]]:
    curves: dict[str, list[float]] = json.loads(files("ouroloop").joinpath("paper.json").read_text(encoding="utf-8"))
    return curves


def published_retention(config: LoopConfig) -> list[float] | None:
    """Diversity by generation over that of the run's own D_0; None where the paper ran nothing like it."""
    data = config.data
    is_like = config.sampling.temperature == 0.8 and data.initialisation is Initialisation.TRUE_ONLY
    is_like &= (data.min_depth, data.max_depth) == (1, 5)
    kind, proportion = config.cycle.kind, config.cycle.synthetic_proportion
    key = kind.value if proportion is None else f"{kind.value}/{proportion:g}"
    if kind is DataCycle.INCREMENTAL and proportion == 1:
        key = DataCycle.FULL_SYNTHETIC.value
    curve = _curves().get(key) if is_like else None
    return None if curve is None else [value / curve[0] for value in curve]
