"""What arms share must be what each of them would have computed, and be computed once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.loop.cache import first_generation
from ouroloop.loop.generation import Observer, Product, produce
from ouroloop.loop.loop import draw_original
from tests.conftest import TINY


@pytest.fixture
def compute(tiny: LoopConfig) -> Callable[[], Product]:
    return lambda: produce(tiny, 1, draw_original(tiny), Observer())


def never() -> Product:
    raise AssertionError("it was there already")


def same(first: Product, second: Product) -> bool:
    assert first.model is not None
    assert second.model is not None
    weights = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return (
        first.texts == second.texts and first.training == second.training and all(torch.equal(a, b) for a, b in weights)
    )


@pytest.mark.usefixtures("root")
def test_it_comes_back_bit_for_bit(tiny: LoopConfig, compute: Callable[[], Product]) -> None:
    original = draw_original(tiny)
    first, was_there = first_generation(tiny, original, compute)
    again, is_there = first_generation(tiny, original, never)
    assert (was_there, is_there) == (False, True)
    assert same(first, again)
    assert same(first, compute())


@pytest.mark.usefixtures("root")
def test_what_it_depends_on(tiny: LoopConfig, compute: Callable[[], Product]) -> None:
    first_generation(tiny, draw_original(tiny), compute)
    cycle = CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.5)
    alike = tiny.model_copy(update={"cycle": cycle, "num_generations": 9, "keep_weights": "none"})
    first_generation(alike, draw_original(alike), never)
    warmer = tiny.model_copy(update={"sampling": tiny.sampling.model_copy(update={"temperature": 1.0})})
    for other in (tiny.model_copy(update={"seed": 6}), warmer):
        with pytest.raises(AssertionError, match="there already"):
            first_generation(other, draw_original(other), never)


@pytest.mark.parametrize("name", ["model/model.safetensors", "samples.tsv.gz", "record.json"])
def test_a_damaged_one_is_computed_again(
    tiny: LoopConfig, compute: Callable[[], Product], root: Path, name: str
) -> None:
    original = draw_original(tiny)
    first, _ = first_generation(tiny, original, compute)
    (path,) = (root / "mlruns" / "shared").glob(f"*/{name}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:-7], whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]):
        path.write_bytes(damaged)
        again, was_there = first_generation(tiny, original, compute)
        assert not was_there
        assert same(first, again)
    assert same(first, first_generation(tiny, original, never)[0])


@pytest.mark.usefixtures("root")
def test_two_processes_compute_it_once() -> None:
    code = f"""
from ouroloop.config import LoopConfig
from ouroloop.loop.generation import produce
from ouroloop.loop.generation import Observer
from ouroloop.loop.loop import draw_original
from ouroloop.loop.cache import first_generation
config = LoopConfig.model_validate({TINY!r})
original = draw_original(config)
def compute():
    print("computed")
    return produce(config, 1, original, Observer())
first_generation(config, original, compute)
"""
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=100)[0] for process in processes) == ["", "computed\n"]
