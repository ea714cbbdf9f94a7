"""The paper's scale on a GPU: training beside nanoGPT's loop, sampling, and one generation beside the paper's figures.

    make bench ARGS=--gpu       where there is a GPU; elsewhere one line says that nothing was measured

Both train the paper's 10.6 M parameters in bfloat16 on equally many tokens a step: 64 pieces of 256, and as many texts
as hold that many tokens. nanoGPT's loop is compiled; ours runs both as it is by default and compiled, and once more
with the 64 texts a step of the preset. The peak is that of bfloat16 products of square matrices on the same GPU.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import bench_peer
import torch

from ouroloop.config import LoopConfig, ModelConfig
from ouroloop.learner import learner_of
from ouroloop.learner.base import Fitted
from ouroloop.loop.generation import compute
from ouroloop.loop.loop import draw_original
from ouroloop.loop.observer import Observer
from ouroloop.presets import load_preset
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.base import Sample

PAPER = {"correctness": 0.8329, "error_rate": 0.0, "diversity_levenshtein": 0.5291}
"""S_1 of the paper's full synthetic loop, digitised from its figures 3 and 4."""
SKIPPED = "no GPU here: make bench ARGS=--gpu was skipped, and nothing was measured"
RESULTS = Path(__file__).parent / "results" / "bench-gpu.json"

Row = dict[str, Any]


def row(what: str, unit: str, *values: float, **beside: float) -> Row:
    return {"what": what, "unit": unit, "values": list(values), **beside}


def flops_per_token(shape: ModelConfig, lengths: list[int]) -> float:
    """FLOP of a training step: 6 for each weight of a matrix, and causal attention over texts of these lengths."""
    attended = sum(length**2 for length in lengths) / sum(lengths) / 2
    return 6 * 12 * shape.num_layers * shape.hidden_size**2 + 12 * shape.num_layers * shape.hidden_size * attended


def peak_flops(device: str, size: int, repeats: int = 20) -> float:
    """FLOP/s of products of bfloat16 matrices, the best of five measurements."""
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    speeds = []
    for _ in range(6):
        wait(device)
        start = perf_counter()
        for _ in range(repeats):
            a @ b
        wait(device)
        speeds.append(2 * size**3 * repeats / (perf_counter() - start))
    return max(speeds[1:])


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def our_tokens_per_second(config: LoopConfig, steps: int, warm_up: int) -> float:
    """Speed from the first report after `warm_up` steps to the last: reports read the loss, and so wait for the GPU."""
    train = {"num_steps": steps, "validate_every": steps, "validation_fraction": 0.01}
    seen: list[tuple[int, float]] = []
    learner = learner_of(config.changed(train=train))
    training = learner.fit(
        draw_original(config), Streams(config.seed, 1), lambda step, _: seen.append((step, perf_counter()))
    ).training
    counted = [(step, at) for step, at in seen if step >= warm_up]
    (first, begin), (last, end) = counted[0], counted[-1]
    return training.num_tokens / steps * (last - first) / (end - begin)


def training_rows(config: LoopConfig, device: str, pairs: int, steps: int, size: int) -> list[Row]:
    assert isinstance(config.model, ModelConfig)
    texts = list(draw_original(config).texts)
    lengths = [len(text.split()) + 1 for text in texts]
    equal = {"batch_size": round(bench_peer.BATCH * bench_peer.PIECE * len(lengths) / sum(lengths))}
    ours: dict[str, dict[str, Any]] = {
        "ours": equal,
        "ours, compiled": equal | {"compile": device == "cuda"},
        f"ours, {config.train.batch_size} texts a step": {},
    }
    warm_up = steps // 4
    peak = peak_flops(device, size)
    speeds: dict[str, list[float]] = {name: [] for name in (*ours, "nanoGPT's loop")}
    for _ in range(pairs):
        for name, train in ours.items():
            speeds[name].append(our_tokens_per_second(config.changed(train=train), steps, warm_up))
        speeds["nanoGPT's loop"].append(bench_peer.tokens_per_second(config, texts, steps - warm_up, device, warm_up))
        print(", ".join(f"{name} {values[-1]:,.0f} tokens/s" for name, values in speeds.items()), flush=True)
    rows = []
    for name, values in speeds.items():
        flops = flops_per_token(config.model, [bench_peer.PIECE] if name == "nanoGPT's loop" else lengths)
        rows.append(row(f"training, {name}", "tokens/s", *values, share_of_peak=median(values) * flops / peak))
    ratios = [own / peer for own, peer in zip(speeds["ours"], speeds["nanoGPT's loop"], strict=True)]
    return [*rows, row("ours over nanoGPT's loop", "ratio", *ratios), row("peak", "FLOP/s", peak)]


def sampling_row(model: Fitted, config: LoopConfig, device: str, repeats: int, steps: int) -> Row:
    count, values = config.data.num_examples, []
    for repeat in range(repeats):
        wait(device)
        start = perf_counter()
        model.sample(count, stream(config.seed, "bench", repeat))
        values.append(count / (perf_counter() - start))
    return row(f"sampling {count:,} texts of M_1 after {steps} steps", "texts/s", *values)


def generation_rows(config: LoopConfig) -> list[Row]:
    """All of generation 1, from D_0 to its measures."""
    original = draw_original(config)
    start = perf_counter()
    made = compute(config, learner_of(config), 1, original, Sample.of(original.texts, config.data.testbed), Observer())
    minutes = (perf_counter() - start) / 60
    beside = [row(f"{key} of S_1", "share", made.metrics[key], paper=paper) for key, paper in PAPER.items()]
    return [row("a generation", "minutes", minutes), *beside]


def measure(config: LoopConfig, device: str, pairs: int, steps: int, size: int) -> list[Row]:
    rows = training_rows(config, device, pairs, steps, size)
    short = config.changed(train={"num_steps": steps, "validate_every": steps})
    model = learner_of(short).fit(draw_original(config), Streams(config.seed, 1))
    return [*rows, sampling_row(model, config, device, 3, steps), *generation_rows(config)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="what this script is for")
    parser.parse_args()
    if not torch.cuda.is_available():
        print(SKIPPED)
        return
    config = load_preset("paper", ["train.precision=bf16-mixed", "train.accelerator=gpu"], LoopConfig)
    rows = measure(config, "cuda", pairs=3, steps=500, size=8_192)
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
    RESULTS.write_text(json.dumps({"date": date.today().isoformat(), **machine, "rows": rows}, indent=2) + "\n")
    for one in rows:
        beside = "".join(f", {key} {one[key]:.3f}" for key in ("share_of_peak", "paper") if key in one)
        print(f"{one['what']}: {median(one['values']):,.4g} {one['unit']}{beside}")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
