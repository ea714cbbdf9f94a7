"""The digitised curves must be laid only over what the paper ran."""

import pytest

from ouroloop.config import CycleConfig, DataConfig, DataCycle, LoopConfig
from ouroloop.paper import published_retention


def like(tiny: LoopConfig, kind: DataCycle, proportion: float | None = None) -> LoopConfig:
    return tiny.model_copy(update={"cycle": CycleConfig(kind=kind, synthetic_proportion=proportion)})


@pytest.mark.parametrize(
    ("kind", "proportion", "end"),
    [
        (DataCycle.FULL_SYNTHETIC, None, 0.0),
        (DataCycle.INCREMENTAL, 1.0, 0.0),
        (DataCycle.INCREMENTAL, 0.1, 1 - 0.684),  # the changes that the paper states
        (DataCycle.BALANCED, None, 1 - 0.306),
        (DataCycle.EXPANDING, 0.9, 1 - 0.226),
    ],
)
def test_end_of_the_curves(tiny: LoopConfig, kind: DataCycle, proportion: float | None, end: float) -> None:
    deep = tiny.model_copy(update={"data": DataConfig(num_examples=40)})
    curve = published_retention(like(deep, kind, proportion))
    assert curve is not None
    assert (len(curve), curve[0]) == (51, 1)
    assert curve[50] == pytest.approx(end, abs=0.001)


def test_what_the_paper_did_not_run_has_no_curve(tiny: LoopConfig) -> None:
    deep = tiny.model_copy(update={"data": DataConfig(num_examples=40)})
    warmer = deep.model_copy(update={"sampling": tiny.sampling.model_copy(update={"temperature": 1.0})})
    assert published_retention(warmer) is None
    assert published_retention(like(tiny, DataCycle.FULL_SYNTHETIC)) is None  # depth 1 and 2 only
    assert published_retention(like(deep, DataCycle.INCREMENTAL, 0.3)) is None
    assert published_retention(like(deep, DataCycle.FRESH_MIX, 0.5)) is None
