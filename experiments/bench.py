"""Ours against stock, alternating in one run on the same threads: medians and ratios, as a table and as JSON.

Stock is the plain way with the same libraries, as a user would write it: `generate` at its best batch size
with its cache on, the default GPT-2 configuration, a Trainer with default flags, padded random batches, a
Python loop over rapidfuzz. Ratios are of neighbouring measurements, so a noisy machine slows both.

    make bench ARGS=--quick       under two minutes: fewer steps, and no training by the plain recipe
    make bench                    also time to quality, and a generation's overhead
    make bench ARGS=--loop        whole loops instead: 50 generations, and generations of m = 500 to 16,000
    make bench ARGS="--loop --only=larger"      only rows whose title begins with this; the file keeps the others
"""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import platform
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bench_peer
import numpy as np
import pytorch_lightning as pl
import torch
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from ouroloop.config import LoopConfig
from ouroloop.learner import learner_of
from ouroloop.learner.network.fitted import Network
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.learner.network.sampling import sample
from ouroloop.loop.loop import draw_original, run_loop
from ouroloop.loop.observer import Observer
from ouroloop.presets import load_preset
from ouroloop.record import stores
from ouroloop.record.track import Store
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.metrics import diversity_levenshtein
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.logic.grammar import unique_set
from ouroloop.testbed.logic.testbed import TOKENIZER

EOS_ID = TOKENIZER.eos_id
RESULTS = Path(__file__).parent / "results"
THREADS = 1
PAIRS = 5
SECONDS = "seconds"
PACKAGES = ("torch", "transformers", "pytorch-lightning", "rapidfuzz", "numpy")


@dataclass
class Row:
    what: str
    unit: str
    ours: list[float]
    stock: list[float]
    wanted: str
    note: str = ""
    is_race: bool = True
    """Whether less is better; otherwise the ratio is ours over the other."""

    @property
    def ratios(self) -> list[float]:
        """For each pair, how many times faster ours was, or for a share or growth, ours over the other; else empty."""
        if not self.stock:
            return []
        pairs = zip(self.ours, self.stock, strict=True)
        return [theirs / ours if self.is_race else ours / theirs for ours, theirs in pairs]


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def alternate(ours: Callable[[], float], stock: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Measurements of both, which take turns in going first from pair to pair."""
    results: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            results[which].append((ours, stock)[which]())
    return results


# ---------------------------------------------------------------------- sampling


def generate(model: PreTrainedModel, count: int, batch_size: int) -> None:
    start = torch.full((batch_size, 1), EOS_ID)
    for _ in range(math.ceil(count / batch_size)):
        model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            temperature=0.8,
            top_k=0,
            top_p=1.0,
            max_new_tokens=200,
            eos_token_id=EOS_ID,
            pad_token_id=EOS_ID,
            use_cache=True,
        )


def sampling_row(
    what: str, model: PreTrainedModel, config: LoopConfig, pairs: int, wanted: str, sizes: tuple[int, ...]
) -> Row:
    """Seconds for m texts; stock draws as few whole batches as it takes, and is scaled to m."""
    count = config.data.num_examples
    speed = {size: seconds(lambda s=size: generate(model, s, s)) / size for size in sizes}
    best = min(speed, key=lambda size: speed[size])
    rng = stream(config.seed, "bench")
    ours, stock = alternate(
        lambda: seconds(lambda: sample(model, TOKENIZER, count, config.sampling, rng)),
        lambda: seconds(lambda: generate(model, best, best)) * count / best,
        pairs,
    )
    return Row(what, SECONDS, ours, stock, wanted, f"{count:,} texts; generate at its best batch size, {best}")


def fitted(config: LoopConfig, dataset: Dataset) -> Network:
    learner = learner_of(config)
    assert isinstance(learner, NetworkLearner)
    return learner.fit(dataset, Streams(config.seed, 1))


def collapsed_model(config: LoopConfig) -> PreTrainedModel:
    """Trained on 16 distinct expressions, the first of them half of the data, the second a quarter, ..."""
    texts = unique_set(16, stream(config.seed, "bench", 1), min_depth=4, max_depth=5)
    copies = [max(1, config.data.num_examples >> (i + 1)) for i in range(16)]
    repeated = [text for text, n in zip(texts, copies, strict=True) for _ in range(n)]
    return fitted(config, Dataset.of(repeated, Source.SAMPLED, 1)).model


# ---------------------------------------------------------------------- training


class StockModel(pl.LightningModule):
    def __init__(self, config: LoopConfig) -> None:
        super().__init__()
        shape = config.model
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=8,
                n_positions=shape.context_length,
                n_embd=shape.hidden_size,
                n_layer=shape.num_layers,
                n_head=shape.num_heads,
                bos_token_id=EOS_ID,
                eos_token_id=EOS_ID,
            )
        )

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        loss = self.model(**batch).loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1.2e-3)


def padded(texts: list[str]) -> dict[str, torch.Tensor]:
    rows = [torch.tensor(TOKENIZER.encode(text)) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=EOS_ID)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def stock_tokens_per_second(config: LoopConfig, texts: list[str], steps: int) -> float:
    """Only real tokens count: padding is work, but yields nothing."""
    loader = DataLoader(texts, batch_size=32, shuffle=True, collate_fn=padded)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        model = StockModel(config)
        trainer = pl.Trainer(max_steps=steps, default_root_dir=folder)
        start = perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bar costs time, but must not be seen here
            trainer.fit(model, loader)
        spent = perf_counter() - start
    tokens_per_text = sum(len(text.split()) + 1 for text in texts) / len(texts)
    return steps * 32 * tokens_per_text / spent


def our_tokens_per_second(config: LoopConfig, texts: list[str], steps: int) -> float:
    short = config.changed(train={"num_steps": steps, "validate_every": steps, "validation_fraction": 0.01})
    dataset = Dataset.of(texts, Source.ORIGINAL, 0)
    start = perf_counter()
    return fitted(short, dataset).training.num_tokens / (perf_counter() - start)


def training_rows(config: LoopConfig, pairs: int, steps: int) -> list[Row]:
    texts = list(draw_original(config).texts)
    ours, stock = alternate(
        lambda: our_tokens_per_second(config, texts, steps * 32 // config.train.batch_size),
        lambda: stock_tokens_per_second(config, texts, steps),
        pairs,
    )
    unit = "tokens/s"
    layers, width = config.model.num_layers, config.model.hidden_size
    lengths = np.array([len(text.split()) + 1 for text in texts])
    attention = 12 * layers * width * float((lengths**2).sum() / lengths.sum()) / 2  # causal: half of the square
    flops = 6 * 12 * layers * width**2 + attention
    peak = [peak_flops() for _ in ours]
    used = [speed * flops for speed in ours]
    share = median(a / b for a, b in zip(used, peak, strict=True))
    return [
        Row(
            "training, same shape and threads",
            unit,
            ours,
            stock,
            "≥ 3",
            f"batches of {config.train.batch_size} and 32",
            is_race=False,
        ),
        Row(
            "its share of the peak of matrix products",
            "FLOP/s",
            used,
            peak,
            "stated",
            f"{share:.0%} of {median(peak) / 1e9:.0f} GFLOP/s, {flops / 1e6:.2f} MFLOP a token",
            is_race=False,
        ),
    ]


def peer_row(config: LoopConfig, pairs: int, steps: int) -> Row:
    """Speeds over `steps` of the peer's, and over as many of ours as see about as many tokens."""
    texts = list(draw_original(config).texts)
    ours, peer = alternate(
        lambda: our_tokens_per_second(config, texts, 50 * steps),
        lambda: bench_peer.tokens_per_second(config, texts, steps),
        pairs,
    )
    note = f"nanoGPT's loop without dropout, 16,384 tokens a step; ours has batches of {config.train.batch_size} texts"
    return Row("training, beside nanoGPT's own loop", "tokens/s", ours, peer, "≥ 1.2", note, is_race=False)


def peak_flops() -> float:
    """The best speed of matrix products as large as those of training."""
    speeds = []
    for rows, inner, columns in ((800, 96, 384), (800, 384, 96), (1_024, 1_024, 1_024)):
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        flops = 2 * rows * inner * columns
        repeats = max(1, int(2e9 / flops))
        speeds += [flops * repeats / seconds(lambda a=a, b=b, n=repeats: [a @ b for _ in range(n)]) for _ in range(5)]
    return max(speeds)


def quality_row(config: LoopConfig, plain: LoopConfig, pairs: int) -> Row:
    """Seconds until the lowest validation loss of the plain recipe, each pair with a seed of its own.

    The plain recipe is spared the overheads of stock code: our own trainer runs it. A pair in which ours
    ends above that loss has no ratio; its losses stand in the note.
    """
    ours: list[float] = []
    stock: list[float] = []
    losses = []
    for seed in range(1, pairs + 1):
        goal, whole = time_to_nats(plain.changed(seed=seed), None)
        nats, spent = time_to_nats(config.changed(seed=seed), goal)
        losses.append(f"{nats:.2f} and {goal:.2f}")
        if spent is not None and whole is not None:
            ours.append(spent)
            stock.append(whole)
    note = f"reached in {len(ours)} of {pairs}; lowest losses of both, in nats: {'; '.join(losses)}"
    return Row("until the plain recipe's validation loss", SECONDS, ours, stock, "≥ 2", note)


def time_to_nats(config: LoopConfig, goal: float | None) -> tuple[float, float | None]:
    """(lowest validation loss, seconds until the loss was at most the goal, by default the lowest; None: never)."""
    original = draw_original(config)
    start = perf_counter()
    reports: list[tuple[int, float]] = []
    report = lambda step, loss: reports.append((step, perf_counter() - start))  # noqa: E731
    training = learner_of(config).fit(original, Streams(config.seed, 1), report).training
    total = perf_counter() - start
    wanted = training.validation_nats if goal is None else goal
    step = next((at for at, nats in training.validation_losses if nats <= wanted), None)
    if step is None:
        return training.validation_nats, None
    return training.validation_nats, next((spent for at, spent in reports if at >= step), total)


# ---------------------------------------------------------------------- measuring


def diversity_rows(config: LoopConfig, pairs: int) -> list[Row]:
    texts = unique_set(10_000, stream(config.seed, "bench", 2))
    tokens = {text: text.split() for text in texts}
    words = list(tokens.values())
    part = 40_000
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(words), size=(part, 2)).tolist()

    def stock() -> float:
        spent = seconds(lambda: sum(Levenshtein.normalized_distance(words[i], words[j]) for i, j in chosen) / part)
        return spent * math.comb(len(words), 2) / part

    counts = dict.fromkeys(texts, 1)
    ours, theirs = alternate(lambda: seconds(lambda: diversity_levenshtein(tokens, counts)), stock, pairs)
    collapsed = Counter(texts[i] for i in rng.integers(0, 100, size=10_000))
    once = [seconds(lambda: diversity_levenshtein(tokens, collapsed)) for _ in range(pairs)]
    few = [text.split() for text in collapsed.elements()]
    both = f"all pairs on all cores; the Python loop from {part:,} random pairs of them"
    start = perf_counter()
    for i, j in chosen:
        Levenshtein.normalized_distance(few[i], few[j])
    slow = (perf_counter() - start) * math.comb(10_000, 2) / part
    return [
        Row("diversity of 10,000 distinct expressions", SECONDS, ours, theirs, "≥ 20, ours < 5 s", both),
        Row("the same of 100 distinct ones", SECONDS, once, [slow] * pairs, "ours < 0.05 s", both),
    ]


# ---------------------------------------------------------------------- whole loops


class Recorder(Observer):
    """Each generation's metrics, and the resident memory at its end in MB."""

    def __init__(self) -> None:
        self.generations: list[dict[str, float]] = []
        self.memory: list[float] = []

    def generation_finished(self, generation: int, metrics: dict[str, float], source: str) -> None:
        self.generations.append(metrics)
        kilobytes = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
        self.memory.append(int(kilobytes.stdout) / 1_000)


def recorded_loop(*overrides: str) -> Recorder:
    """A laptop loop in a store of its own, in a process that has loaded its libraries as the command line does."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OUROLOOP_ROOT"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        stores.require_writable()
        config = load_preset("laptop", overrides, LoopConfig)
        run_loop(config, Store.open(), name="bench", study="bench", observer=recorder)
    return recorder


def outside_row(generations: list[dict[str, float]]) -> Row:
    outside = [g["generation_seconds"] - g["train_seconds"] - g["sample_seconds"] for g in generations]
    total = [g["generation_seconds"] for g in generations]
    share = median(a / b for a, b in zip(outside, total, strict=True))
    return Row(
        "a generation's time outside training and sampling",
        SECONDS,
        outside,
        total,
        "≤ 5 %",
        f"{share:.1%}",
        is_race=False,
    )


def loop_rows() -> list[Row]:
    start = perf_counter()
    loop = recorded_loop()
    minutes = [(perf_counter() - start) / 60]
    return [
        Row("a laptop loop of 50 generations", "minutes", minutes, [], "≤ 6, aim 4", "full synthetic, one thread"),
        Row("resident memory, generation 50 and 5", "MB", loop.memory[49:], loop.memory[4:5], "≤ 1.05", is_race=False),
    ]


def size_row(config: LoopConfig) -> Row:
    sizes, times = (500, 2_000, 16_000), []
    for size in sizes:
        steps = config.train.num_steps * size // config.data.num_examples
        run = recorded_loop(
            "num_generations=1",
            f"data.num_examples={size}",
            f"train.num_steps={steps}",
            f"train.validate_every={steps // 10}",
        )
        times.append(run.generations[0]["generation_seconds"])
    slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    note = f"log-log slope {slope:.2f} over m = 500, 2,000 and 16,000, equal epochs"
    what = "a generation at m = 16,000 and 500"
    return Row(what, SECONDS, times[-1:], times[:1], "slope ≤ 1.1", note, is_race=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer steps, no plain recipe")
    parser.add_argument("--loop", action="store_true", help="instead: a whole loop, its memory, and larger datasets")
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has this title, or titles that begin so")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    config, plain = load_preset("laptop", [], LoopConfig), load_preset("laptop-plain", [], LoopConfig)
    console = Console()
    rows: list[Row] = []
    path = RESULTS / f"bench{'-loop' * options.loop or '-quick' * options.quick}.json"
    plan = dict(_plan(config, plain, options))
    chosen = [options.only] if options.only in plan else [title for title in plan if title.startswith(options.only)]
    if not chosen:
        parser.error(f"no title begins with {options.only!r}; there are: {', '.join(plan)}")
    with console.status("measuring") as status:
        for title in chosen:
            status.update(title)
            measured = plan[title]()
            rows += measured
            path.write_text(json.dumps(_record(measured, path), indent=2, ensure_ascii=False) + "\n")
    console.print(_table(rows))
    for row in rows:
        if row.note:
            console.print(f"- {row.what}: {row.note}", highlight=False, markup=False)
    console.print(f"written to {path}", highlight=False)


def _plan(
    config: LoopConfig, plain: LoopConfig, options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    sizes = (128, 512) if options.quick else (128, 512, 1_024)

    def sampling() -> list[Row]:
        steps = {"num_steps": 200, "num_warmup_steps": 20, "validate_every": 50} if options.quick else {}
        first = fitted(config.changed(train=steps), draw_original(config)).model
        what = "sampling M_1 after 200 steps" if options.quick else "sampling M_1"
        return [sampling_row(what, first, config, PAIRS, "≥ 4", sizes)]

    def collapsed() -> list[Row]:
        return [sampling_row("sampling a collapsed model", collapsed_model(config), config, PAIRS, "≥ 40", sizes)]

    def outside() -> list[Row]:
        generations = recorded_loop("num_generations=3").generations
        return [outside_row(generations)]

    if options.loop:
        yield "whole loop", loop_rows
        yield "larger datasets", lambda: [size_row(config)]
        return
    yield "sampling", sampling
    yield "sampling a collapsed model", collapsed
    yield "training", lambda: training_rows(config, PAIRS, steps=20 if options.quick else 100)
    yield "training beside nanoGPT", lambda: [peer_row(config, PAIRS, steps=2 if options.quick else 5)]
    yield "diversity", lambda: diversity_rows(config, PAIRS)
    if not options.quick:
        yield "outside training and sampling", outside
        yield "time to quality", lambda: [quality_row(config, plain, PAIRS)]


def _table(rows: list[Row]) -> Table:
    table = Table(title=f"ours against stock, {THREADS} thread, medians of {PAIRS} pairs", title_justify="left")
    for heading in ("what", "unit", "ours", "stock", "ratio", "wanted"):
        table.add_column(heading, justify="right" if heading in ("ours", "stock", "ratio") else "left")
    for row in rows:
        ratio = f"{median(row.ratios):,.2f} ({min(row.ratios):,.2f}–{max(row.ratios):,.2f})" if row.stock else "–"
        ours, stock = (f"{median(values):,.4g}" if values else "–" for values in (row.ours, row.stock))
        table.add_row(row.what, row.unit, ours, stock, ratio, row.wanted)
    return table


def _record(rows: list[Row], path: Path) -> dict[str, object]:
    """The file's rows with these in their place, each with when and on what it was measured."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    conditions = {
        "date": date.today().isoformat(),
        "load_average": os.getloadavg(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "threads": THREADS,
        "versions": {name: version(name) for name in PACKAGES},
    }
    new = [asdict(row) | ({"ratio": median(row.ratios)} if row.ratios else {}) | conditions for row in rows]
    return {"rows": list({row["what"]: row for row in [*before, *new]}.values())}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
