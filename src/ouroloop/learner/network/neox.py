"""GPT-NeoX on a packed row with its gradient written out: what the model of transformers computes, for less.

A step of a small model sees some 400 tokens, and the work around its matrix products (a module, a node of the graph
and a fresh tensor for each of some 600 operations) takes as long as the products do. Here a pass is a sequence of
plain operations, many of them in place, and autograd knows the network as one function of its weights.

    1. attention sees short texts together, under a mask that keeps them apart, and long ones alone, all of them
       where they stand in the row,
    2. queries and keys are turned by their positions in one product of complex numbers, for which the rows of a
       qkv matrix are put in another order,
    3. before the first attention, a token's state does not depend on its place: each distinct one is computed once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, addmm, baddbmm, bmm, mm
from transformers import PreTrainedModel

from ouroloop.config import TrainConfig
from ouroloop.learner.network.rows import cheapest_ranges

_GROUP_COST = 7_000  # one more group takes attention as long as this many more pairs of tokens

Norm = tuple[Tensor, Tensor, Tensor]
"""What a norm gives, the mean, and one over the deviation."""


def fits(model: PreTrainedModel, config: TrainConfig) -> bool:
    """Whether a model is one that `PackedNeoX` computes, and is trained where that pays: on a CPU in full precision."""
    shape = model.config
    return (
        shape.model_type == "gpt_neox"
        and all(weight.requires_grad for weight in model.parameters())
        and model.device.type == "cpu"
        and (config.batching, config.precision) == ("packed", "32-true")
        and not (config.compile or config.strategy == "fsdp")
        and shape.hidden_size // shape.num_attention_heads % 2 == 0  # features of a head are turned in pairs
        and shape.hidden_act == "relu"
        and shape.attention_bias
        and not (shape.use_parallel_residual or shape.attention_dropout or shape.hidden_dropout)
        and shape.rope_parameters["rope_type"] == "default"
    )


class _Layer(NamedTuple):
    """Weights, or their gradients: g and b of a norm, w and c of a linear layer."""

    g1_F: Tensor
    b1_F: Tensor
    w_qkv: Tensor
    c_qkv: Tensor
    w_out: Tensor
    c_out: Tensor
    g2_F: Tensor
    b2_F: Tensor
    w_up: Tensor
    c_up: Tensor
    w_down: Tensor
    c_down: Tensor


def _weights(layer: Any) -> list[Tensor]:
    parts = (
        layer.input_layernorm, layer.attention.query_key_value, layer.attention.dense,
        layer.post_attention_layernorm, layer.mlp.dense_h_to_4h, layer.mlp.dense_4h_to_h,
    )  # fmt: skip
    return [weight for part in parts for weight in (part.weight, part.bias)]


class _Row(NamedTuple):
    """A packed row of N tokens, U of them distinct."""

    distinct_U: Tensor
    index_N: Tensor
    """Which of the distinct tokens each token is."""
    turn_N1C: Tensor
    """What turns the queries and then the keys, pair by pair of a head's features; the queries are scaled too."""
    sizes: list[int]
    """Sizes of the groups of texts that attention sees at once. Unit: tokens."""
    masks_LL: list[Tensor]
    """A mask for each group, added to the scores: 0 where the row's token sees the column's, and -inf elsewhere."""


class _Trace(NamedTuple):
    """What a layer's gradient needs from its pass: of N tokens or, before the first attention, of U distinct ones."""

    in_NF: Tensor
    norm1: Norm
    qkv_NH3D: Tensor
    attention_HLL: list[Tensor]
    attended_NF: Tensor
    between_NF: Tensor
    norm2: Norm
    hidden_NI: Tensor


class PackedNeoX:
    """The network of a model of transformers, whose weights it shares."""

    def __init__(self, model: PreTrainedModel) -> None:
        body, config = model.gpt_neox, model.config
        self._heads, self._eps = config.num_attention_heads, config.layer_norm_eps
        last = body.final_layer_norm
        layers = [weight for layer in body.layers for weight in _weights(layer)]
        self._weights = [body.embed_in.weight, *layers, last.weight, last.bias, model.lm_head.weight]
        features = config.hidden_size // self._heads
        frequencies = body.rotary_emb.inv_freq
        self._order = _paired(features, self._heads, len(frequencies))
        self._own_order = self._order.argsort()
        self._turn_L1C = _turns(features, frequencies, config.max_position_embeddings)

    def logits(self, ids_N: Tensor, positions_N: Tensor, lengths_B: npt.NDArray[np.int64]) -> Tensor:
        """Logits (N, V) of what follows each token, texts not seeing one another."""
        distinct_U, index_N = torch.unique(ids_N, return_inverse=True)
        sizes, masks_LL = zip(*((lengths.sum(), _mask(lengths)) for lengths in groups(lengths_B)), strict=True)
        row = _Row(distinct_U, index_N, self._turn_L1C[positions_N], [*map(int, sizes)], [*masks_LL])
        logits_NV: Tensor = _Pass.apply(self, row, *self._weights)  # type: ignore[no-untyped-call]
        return logits_NV

    def forward(self, row: _Row, weights: Sequence[Tensor]) -> tuple[Tensor, tuple[list[_Trace], Tensor, Norm]]:
        g_F, b_F, head = weights[-3:]
        x_NF, traces = weights[0][row.distinct_U], list[_Trace]()
        for layer in _layers(weights):
            x_NF, trace = self._layer(x_NF, row, layer, is_first=not traces)
            traces.append(trace)
        norm = torch.native_layer_norm(x_NF, g_F.shape, g_F, b_F, self._eps)
        return mm(norm[0], head.mT), (traces, x_NF, norm)

    def _layer(self, x_NF: Tensor, row: _Row, w: _Layer, is_first: bool) -> tuple[Tensor, _Trace]:
        norm1 = torch.native_layer_norm(x_NF, w.g1_F.shape, w.g1_F, w.b1_F, self._eps)
        qkv_NF, in_NF = addmm(w.c_qkv[self._order], norm1[0], w.w_qkv[self._order].mT), x_NF
        if is_first:
            qkv_NF, x_NF = qkv_NF[row.index_N], x_NF[row.index_N]
        qkv_NH3D = qkv_NF.view(len(qkv_NF), self._heads, 3, -1)
        _turn(qkv_NH3D, row.turn_N1C)
        attended_NF, attention_HLL = _attend(qkv_NH3D, row)
        between_NF = addmm(x_NF, attended_NF, w.w_out.mT).add_(w.c_out)
        norm2 = torch.native_layer_norm(between_NF, w.g2_F.shape, w.g2_F, w.b2_F, self._eps)
        hidden_NI = addmm(w.c_up, norm2[0], w.w_up.mT).relu_()
        out_NF = addmm(between_NF, hidden_NI, w.w_down.mT).add_(w.c_down)
        return out_NF, _Trace(in_NF, norm1, qkv_NH3D, attention_HLL, attended_NF, between_NF, norm2, hidden_NI)

    def backward(
        self, d_NV: Tensor, row: _Row, weights: Sequence[Tensor], kept: tuple[list[_Trace], Tensor, Norm]
    ) -> list[Tensor]:
        """The gradient of each weight, from that of the logits."""
        traces, x_NF, norm = kept
        g_F, b_F, head = weights[-3:]
        d_NF, *of_norm = _norm_back(mm(d_NV, head), x_NF, norm, g_F, b_F)
        of_layers = list[_Layer]()
        for layer in reversed(_layers(weights)):
            trace = traces.pop()
            d_NF, of_layer = self._layer_back(d_NF, row, layer, trace, is_first=not traces)
            of_layers.insert(0, of_layer)
        d_embedding = torch.zeros_like(weights[0]).index_copy_(0, row.distinct_U, d_NF)
        return [d_embedding, *sum(map(tuple, of_layers), ()), *of_norm, mm(d_NV.mT, norm[0])]

    def _layer_back(self, d_NF: Tensor, row: _Row, w: _Layer, kept: _Trace, is_first: bool) -> tuple[Tensor, _Layer]:
        d_w_down, d_c_down = mm(d_NF.mT, kept.hidden_NI), d_NF.sum(0)
        d_NI = mm(d_NF, w.w_down)
        torch.ops.aten.threshold_backward.grad_input(d_NI, kept.hidden_NI, 0, grad_input=d_NI)
        d_w_up, d_c_up = mm(d_NI.mT, kept.norm2[0]), d_NI.sum(0)
        through_NF, d_g2, d_b2 = _norm_back(mm(d_NI, w.w_up), kept.between_NF, kept.norm2, w.g2_F, w.b2_F)
        d_NF = through_NF.add_(d_NF)
        d_w_out, d_c_out = mm(d_NF.mT, kept.attended_NF), d_NF.sum(0)
        d_qkv_NH3D = _attend_back(mm(d_NF, w.w_out), kept, row)
        _turn(d_qkv_NH3D, row.turn_N1C.conj())
        d_qkv_NF = d_qkv_NH3D.flatten(1)
        if is_first:
            d_qkv_NF, d_NF = _summed(d_qkv_NF, row), _summed(d_NF, row)
        d_w_qkv, d_c_qkv = mm(d_qkv_NF.mT, kept.norm1[0])[self._own_order], d_qkv_NF.sum(0)[self._own_order]
        through_NF, d_g1, d_b1 = _norm_back(mm(d_qkv_NF, w.w_qkv[self._order]), kept.in_NF, kept.norm1, w.g1_F, w.b1_F)
        of_attention = d_g1, d_b1, d_w_qkv, d_c_qkv, d_w_out, d_c_out
        return through_NF.add_(d_NF), _Layer(*of_attention, d_g2, d_b2, d_w_up, d_c_up, d_w_down, d_c_down)


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: PackedNeoX, row: _Row, *weights: Tensor) -> Tensor:
        logits_NV, kept = network.forward(row, weights)
        ctx.backward_from = lambda d_NV: network.backward(d_NV, row, weights, kept)
        return logits_NV

    @staticmethod
    def backward(ctx: Any, d_NV: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.backward_from(d_NV)


def _layers(weights: Sequence[Tensor]) -> list[_Layer]:
    width = len(_Layer._fields)
    return [_Layer(*weights[i : i + width]) for i in range(1, len(weights) - 3, width)]


def _norm_back(d_NF: Tensor, in_NF: Tensor, norm: Norm, g_F: Tensor, b_F: Tensor) -> list[Tensor]:
    _, mean, rstd = norm
    return [*torch.ops.aten.native_layer_norm_backward(d_NF, in_NF, g_F.shape, mean, rstd, g_F, b_F, [True] * 3)]


def _summed(d_NF: Tensor, row: _Row) -> Tensor:
    """The gradient summed over all places of each distinct token."""
    d_UF: Tensor = torch.ops.aten.embedding_dense_backward(d_NF, row.index_N, len(row.distinct_U), -1, False)
    return d_UF


def groups(lengths_B: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Lengths of texts, in their order, in the groups that attention sees at once: those with the least to compute."""
    bounds = np.concatenate([[0], np.cumsum(lengths_B)])

    def costs(end: int) -> npt.NDArray[np.int64]:
        pairs: npt.NDArray[np.int64] = (bounds[end] - bounds[:end]) ** 2
        return pairs + _GROUP_COST

    return [lengths_B[first:end] for first, end in cheapest_ranges(len(lengths_B), costs)]


def _mask(lengths_B: npt.NDArray[np.int64]) -> Tensor:
    text_L = np.repeat(np.arange(len(lengths_B)), lengths_B)
    is_seen_LL = np.tril(text_L[:, None] == text_L)
    return torch.from_numpy(np.where(is_seen_LL, np.float32(0), np.float32(-np.inf)))


def _attend(qkv_NH3D: Tensor, row: _Row) -> tuple[Tensor, list[Tensor]]:
    q, k, v = (torch.split_with_sizes(of_all, row.sizes, dim=1) for of_all in qkv_NH3D.permute(2, 1, 0, 3).unbind())
    attention_HLL, out_HLD = list[Tensor](), list[Tensor]()
    for mask_LL, q_HLD, k_HLD, v_HLD in zip(row.masks_LL, q, k, v, strict=True):
        attention_HLL.append(baddbmm(mask_LL, q_HLD, k_HLD.mT).softmax(-1))
        out_HLD.append(bmm(attention_HLL[-1], v_HLD))
    return torch.cat(out_HLD, dim=1).transpose(0, 1).flatten(1), attention_HLL


def _attend_back(d_NF: Tensor, kept: _Trace, row: _Row) -> Tensor:
    qkv_3HND = kept.qkv_NH3D.permute(2, 1, 0, 3)
    d_HND = d_NF.view(len(d_NF), qkv_3HND.shape[1], -1).transpose(0, 1)
    parts = (torch.split_with_sizes(of_all, row.sizes, dim=1) for of_all in (*qkv_3HND.unbind(), d_HND))
    d_q, d_k, d_v = list[Tensor](), list[Tensor](), list[Tensor]()
    for attention_HLL, q_HLD, k_HLD, v_HLD, d_HLD in zip(kept.attention_HLL, *parts, strict=True):
        d_v.append(bmm(attention_HLL.mT, d_HLD))
        d_HLL = torch._softmax_backward_data(bmm(d_HLD, v_HLD.mT), attention_HLL, -1, d_HLD.dtype)
        d_q.append(bmm(d_HLL, k_HLD))
        d_k.append(bmm(d_HLL.mT, q_HLD))
    d_3HND = torch.empty(qkv_3HND.shape)
    for of_all, of_groups in zip(d_3HND, (d_q, d_k, d_v), strict=True):
        torch.cat(of_groups, dim=1, out=of_all)
    return d_3HND.permute(2, 1, 0, 3).contiguous()


def _paired(features: int, heads: int, num_pairs: int) -> Tensor:
    """The order of the rows of a qkv matrix that puts the two features of each pair next to one another.

    Transformers keeps them `num_pairs` apart. Queries and keys are ordered alike, so their products stay the same.
    """
    pairs = torch.arange(2 * num_pairs).view(2, num_pairs).T.flatten()
    of_vector = torch.cat([pairs, torch.arange(2 * num_pairs, features)])
    of_head = torch.cat([of_vector, features + of_vector, 2 * features + torch.arange(features)])
    return (3 * features * torch.arange(heads)[:, None] + of_head).flatten()


def _turns(features: int, frequencies: Tensor, length: int) -> Tensor:
    angles_LC = torch.zeros(length, features // 2)
    angles_LC[:, : len(frequencies)] = torch.arange(length)[:, None] * frequencies
    turn_LC = torch.polar(torch.ones(()), angles_LC)
    return torch.cat([turn_LC * features**-0.5, turn_LC], dim=1)[:, None]


def _turn(qkv_NH3D: Tensor, turn_N1C: Tensor) -> None:
    pairs_NH3D2 = qkv_NH3D.view(*qkv_NH3D.shape[:-1], -1, 2)
    torch.view_as_complex(pairs_NH3D2)[:, :, :2].flatten(2).mul_(turn_N1C)
