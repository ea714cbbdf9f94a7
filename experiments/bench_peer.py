"""nanoGPT's way of training, written from its published description, as a row of the bench: the paper used it.

A GPT-2 with tied embeddings and no biases on a contiguous stream of tokens, from which a batch takes 64 pieces of 256
at random places, wherever in a text they begin; AdamW with weight decay on matrices, clipping at 1, a cosine schedule.
Nothing stands between its loop and torch: no trainer, no data loader, no padding.
"""

from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ouroloop.config import LoopConfig, ModelConfig
from ouroloop.testbed.logic.testbed import TOKENIZER

BATCH, PIECE = 64, 256
READ_EVERY = 10  # its log_interval for a model of this size. Unit: steps


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BLF: Tensor) -> Tensor:
        batch, length, _ = x_BLF.shape
        parts = self.qkv(self.norm1(x_BLF)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        lost = self.dropout if self.training else 0.0
        seen_BHLD = F.scaled_dot_product_attention(*parts, dropout_p=lost, is_causal=True)
        x_BLF = x_BLF + F.dropout(self.out(seen_BHLD.transpose(1, 2).reshape(x_BLF.shape)), lost)
        return x_BLF + F.dropout(self.down(F.gelu(self.up(self.norm2(x_BLF)))), lost)


class Peer(nn.Module):
    def __init__(self, shape: ModelConfig) -> None:
        super().__init__()
        width, self.dropout = shape.hidden_size, shape.dropout
        self.words = nn.Embedding(TOKENIZER.size, shape.hidden_size)
        self.positions = nn.Embedding(PIECE, shape.hidden_size)
        self.blocks = nn.Sequential(*(_Block(width, shape.num_heads, shape.dropout) for _ in range(shape.num_layers)))
        self.norm = nn.LayerNorm(shape.hidden_size, bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids_BL: Tensor) -> Tensor:
        x_BLF = self.words(ids_BL) + self.positions(torch.arange(ids_BL.shape[1], device=ids_BL.device))
        x_BLF = F.dropout(x_BLF, self.dropout, self.training)
        return F.linear(self.norm(self.blocks(x_BLF)), self.words.weight)


def tokens_per_second(config: LoopConfig, texts: list[str], steps: int, device: str = "cpu", warm_up: int = 1) -> float:
    """Speed of its loop after `warm_up` steps; on a GPU, as is done there, compiled, in bfloat16, with fused AdamW."""
    assert isinstance(config.model, ModelConfig)
    is_gpu = device == "cuda"
    model = Peer(config.model).train().to(device)
    compiled = torch.compile(model) if is_gpu else model
    stream = torch.tensor([token for text in texts for token in TOKENIZER.encode(text)[1:]])
    matrices, vectors = ([p for p in model.parameters() if (p.dim() >= 2) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=is_gpu)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5_000)
    wait = torch.cuda.synchronize if is_gpu else lambda: None

    def batch() -> list[Tensor]:
        places = torch.randint(len(stream) - PIECE, (BATCH,)).tolist()
        both_BL = [torch.stack([stream[place + by : place + by + PIECE] for place in places]) for by in (0, 1)]
        return [one_BL.pin_memory().to(device, non_blocking=True) for one_BL in both_BL] if is_gpu else both_BL

    start, (ids_BL, labels_BL) = perf_counter(), batch()
    for step in range(steps + warm_up):
        if step == warm_up:
            wait()
            start = perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=is_gpu):
            loss = F.cross_entropy(compiled(ids_BL).flatten(0, 1), labels_BL.flatten())
        ids_BL, labels_BL = batch()  # while a GPU computes
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % READ_EVERY == 0:
            loss.item()
    wait()
    return steps * BATCH * PIECE / (perf_counter() - start)
