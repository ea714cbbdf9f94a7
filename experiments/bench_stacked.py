"""Does it pay to train k loops as one stacked model? Forward and backward over k loops' batches, and Muon's share.

In turns, on the same texts, one thread: the pass as it is (by hand, packed); transformers' own model, loop by loop, on
padded rows; and k such models as one (torch.func.stack_module_state, vmap), with rows as long as the longest of all.

    python experiments/bench_stacked.py [--rounds=15]

On a GPU, with `--gpu`, the time of the wall is taken. There a step as it is is one CUDA graph: a whole step of a real
training, optimizer and all, is timed beside the others, which are launched kernel by kernel.
"""

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch
from bench_gpu import our_tokens_per_second, wait
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F
from transformers import PreTrainedModel

from ouroloop.config import LoopConfig, ModelConfig
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.muon import block_matrices, orthogonal
from ouroloop.learner.network.neox import PackedNeoX
from ouroloop.loop.loop import draw_original
from ouroloop.presets import load_preset
from ouroloop.testbed.logic.testbed import TOKENIZER

_IGNORED = -100
RESULTS = Path(__file__).parent / "results" / "bench-stacked.json"


def padded(texts: Sequence[list[int]], length: int) -> tuple[Tensor, Tensor]:
    """Ids and labels (B, L), the labels ids shifted left."""
    ids_BL, labels_BL = torch.full((len(texts), length), TOKENIZER.eos_id), torch.full((len(texts), length), _IGNORED)
    for ids_L, labels_L, text in zip(ids_BL, labels_BL, texts, strict=True):
        ids_L[1 : len(text) + 1] = torch.tensor(text)
        labels_L[: len(text) + 1] = torch.tensor([*text, TOKENIZER.eos_id])
    return ids_BL, labels_BL


def packed(texts: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Ids, labels and positions (N), and lengths (B)."""
    lengths_B = np.array([len(text) + 1 for text in texts])
    rows = [[part[:n] for part in padded([text], int(n))] for text, n in zip(texts, lengths_B, strict=True)]
    ids_N, labels_N = (torch.cat([row[which].flatten() for row in rows]) for which in (0, 1))
    return ids_N, labels_N, torch.cat([torch.arange(int(n)) for n in lengths_B]), lengths_B


def nats(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    return F.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=_IGNORED)


class Ways:
    def __init__(self, models: Sequence[PreTrainedModel], device: str) -> None:
        self.device, self.models = device, models
        self.by_hand = [PackedNeoX(model) for model in models] if device == "cpu" else []
        self.weights, self.buffers = stack_module_state(list(models))
        self.base = deepcopy(models[0]).to("meta")
        self.matrices = [torch.stack([weight.detach() for weight in group["params"]])
                         for group in block_matrices(models[0])]  # fmt: skip

    def as_it_is(self, batches: Sequence[Sequence[list[int]]]) -> None:
        for by_hand, model, texts in zip(self.by_hand, self.models, batches, strict=True):
            ids_N, labels_N, positions_N, lengths_B = packed(texts)
            torch.autograd.backward(F.cross_entropy(by_hand.logits(ids_N, positions_N, lengths_B), labels_N))
            model.zero_grad()

    def one_by_one(self, batches: Sequence[Sequence[list[int]]]) -> None:
        for model, texts in zip(self.models, batches, strict=True):
            ids_BL, labels_BL = (rows.to(self.device) for rows in padded(texts, max(map(len, texts)) + 1))
            logits_BLV = model(ids_BL, use_cache=False).logits
            torch.autograd.backward(
                F.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=_IGNORED)
            )
            model.zero_grad()

    def stacked(self, batches: Sequence[Sequence[list[int]]]) -> None:
        longest = max(len(text) for texts in batches for text in texts) + 1
        both = map(torch.stack, zip(*(padded(texts, longest) for texts in batches), strict=True))
        ids_KBL, labels_KBL = (rows.to(self.device) for rows in both)
        vmap(grad(self._loss), randomness="error")(self.weights, self.buffers, ids_KBL, labels_KBL)

    def _loss(
        self, weights: dict[str, Tensor], buffers: dict[str, Tensor], ids_BL: Tensor, labels_BL: Tensor
    ) -> Tensor:
        logits_BLV = functional_call(self.base, (weights, buffers), (ids_BL,), {"use_cache": False}).logits
        return nats(logits_BLV, labels_BL)

    def muon_one_by_one(self, batches: Sequence[Sequence[list[int]]]) -> None:
        for _ in batches:
            for matrices_KRC in self.matrices:
                orthogonal(matrices_KRC)

    def muon_stacked(self, batches: Sequence[Sequence[list[int]]]) -> None:
        for matrices_KRC in self.matrices:
            orthogonal(matrices_KRC.repeat(len(batches), 1, 1))


def synchronized() -> float:
    wait("cuda")
    return perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of which medians are taken")
    parser.add_argument("--gpu", action="store_true", help="there, instead of on one core")
    given = parser.parse_args()
    if given.gpu and not torch.cuda.is_available():
        parser.error("--gpu: there is none here")
    rounds, device = given.rounds, "cuda" if given.gpu else "cpu"
    clock = synchronized if given.gpu else process_time
    torch.set_num_threads(1)
    config, rows = load_preset("laptop", [], LoopConfig), list[dict[str, float]]()
    assert isinstance(config.model, ModelConfig)
    assert config.train is not None
    texts, rng = [TOKENIZER.encode(text) for text in draw_original(config).texts], np.random.default_rng(config.seed)
    for k in (1, 2, 4, 8):
        models = [build_model(config.model, TOKENIZER, seed).to(device) for seed in range(k)]
        for model in models:
            model.set_attn_implementation("eager")  # the kind that can be stacked
        ways = Ways(models, device)
        names = ["one_by_one", "stacked", "muon_one_by_one", "muon_stacked"]
        names += [] if given.gpu else ["as_it_is"]
        taken: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 2):
            chosen = rng.choice(len(texts), (k, config.train.batch_size))
            batches = [sorted((texts[n] for n in row), key=len) for row in chosen]
            for name in names if turn % 2 else reversed(names):
                start = clock()
                getattr(ways, name)(batches)
                taken[name].append((clock() - start) * 1000 / k)
        rows.append({"loops": k, **{name: round(median(spent[2:]), 2) for name, spent in taken.items()}})
        print(json.dumps(rows[-1]), flush=True)
    unit = f"ms of {'the wall' if given.gpu else 'processor'} for one loop's step, median"
    made = {"unit": unit, "rounds": rounds, "torch": torch.__version__}
    if given.gpu:
        num_tokens = config.train.batch_size * (sum(map(len, texts)) / len(texts) + 1)
        of_graph = 1000 * num_tokens / our_tokens_per_second(config, 450, 100)
        made |= {"gpu": torch.cuda.get_device_name(), "whole_step_as_it_is": f"{of_graph:.2f} ms"}
        print(made)
    path = RESULTS.with_stem("bench-stacked-gpu") if given.gpu else RESULTS
    path.write_text(json.dumps({**made, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
