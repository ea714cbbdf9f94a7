"""All of the GPU's bench but the GPU: each row is measured, of a small model on the CPU."""

import math
import sys
from types import ModuleType

import pytest
import torch

from ouroloop.config import LoopConfig, ModelConfig
from tests.conftest import REPOSITORY


@pytest.fixture
def bench_gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "experiments"))
    import bench_gpu  # type: ignore[import-not-found]

    return bench_gpu


def test_without_a_gpu_it_says_so_in_one_line(
    bench_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--gpu"])
    bench_gpu.main()
    assert capsys.readouterr().out == "no GPU here: make bench ARGS=--gpu was skipped, and nothing was measured\n"


def test_a_token_costs_what_is_known_of_the_papers_model(bench_gpu: ModuleType) -> None:
    """6·N and 12·layers·width·length/2: nanoGPT's count, but that causal attention needs half of the square."""
    shape = ModelConfig(num_layers=6, num_heads=6, hidden_size=384)
    assert bench_gpu.flops_per_token(shape, [256, 256]) == 6 * 10_616_832 + 12 * 6 * 384 * 128


@pytest.mark.slow
def test_every_row_is_measured(bench_gpu: ModuleType, tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu.bench_peer, "BATCH", 2)
    monkeypatch.setattr(bench_gpu.bench_peer, "PIECE", 16)
    config = tiny.changed(train={"precision": "bf16-mixed"}, model={"dropout": 0.2})
    rows = bench_gpu.measure(config, "cpu", pairs=2, steps=8, size=32)
    assert [row["unit"] for row in rows][:7] == ["tokens/s"] * 4 + ["ratio", "FLOP/s", "texts/s"]
    assert all(math.isfinite(value) and value >= 0 for row in rows for value in row["values"])
    assert all(row["share_of_peak"] > 0 for row in rows[:4])
    assert [row["paper"] for row in rows[-3:]] == [0.8329, 0.0, 0.5291]
