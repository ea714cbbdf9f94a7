"""Of a step as one CUDA graph: what it computes, which needs no GPU, and on a GPU that a replay computes the same."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ouroloop.config import LoopConfig, TrainConfig
from ouroloop.learner import learner_of
from ouroloop.learner.network import graph
from ouroloop.learner.network.batches import Batch, MixedDataModule, packed_attention
from ouroloop.learner.network.graph import filled
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.train import LanguageModel
from ouroloop.loop.loop import draw_original
from ouroloop.science.dataset import Dataset
from ouroloop.science.seeding import Streams
from ouroloop.testbed.logic.testbed import TOKENIZER

CONFIG = TrainConfig(num_steps=1, batch_size=12, learning_rate=1e-3, validate_every=1)


def batches(dataset: Dataset) -> list[Batch]:
    data = MixedDataModule(dataset, TOKENIZER, CONFIG, np.random.default_rng(1))
    return [batch for step, _ in zip(data.train_steps(), range(4), strict=False) for batch in step]


def test_batches_are_filled_up_to_one_of_a_few_shapes(tiny: LoopConfig) -> None:
    given = batches(draw_original(tiny))
    shapes = {(len(one.ids_N), *one.blocks.shapes[0]) for one in (filled(batch, CONFIG.batch_size) for batch in given)}
    assert len({len(batch.ids_N) for batch in given}) > 1, "batches of one size would show nothing"
    assert len(shapes) == 1
    for batch in given:
        one = filled(batch, CONFIG.batch_size)
        assert one.counts_N.sum() == batch.counts_N.sum()
        assert len(one.blocks.shapes) == 1
        assert one.blocks.index_P[one.blocks.back_N].tolist() == list(range(len(one.ids_N)))


@pytest.mark.parametrize("context_length", [32, 25])  # a multiple of what texts are filled up to, and none
def test_what_fills_a_batch_up_changes_neither_its_loss_nor_its_gradients(
    tiny: LoopConfig, context_length: int
) -> None:
    shape = tiny.model.changed(context_length=context_length)
    for batch in batches(draw_original(tiny)):
        found: list[tuple[Tensor, list[Tensor | None]]] = []
        for is_filled in (False, True):
            model = build_model(shape, TOKENIZER, seed=1)  # type: ignore[arg-type]
            module = LanguageModel(model, CONFIG, lambda *_: None)
            with packed_attention(model):
                if is_filled:
                    logits = graph.logits(model, one := filled(batch, CONFIG.batch_size))
                    loss = module.nats(logits, one)
                else:
                    loss = module.summed_loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
            found.append((loss, [weight.grad for weight in model.parameters()]))
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_only_steps_that_are_alike_become_a_graph() -> None:
    assert graph.fits(CONFIG, torch.device("cuda"))
    assert not graph.fits(CONFIG, torch.device("cpu"))
    for other in ({"accumulate": 2}, {"batching": "padded"}, {"targets": "soft"}, {"precision": "16-mixed"}):
        assert not graph.fits(CONFIG.changed(**other), torch.device("cuda"))


@pytest.mark.parametrize(
    "accelerator",
    ["cpu", pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
@pytest.mark.parametrize("muon_learning_rate", [None, 0.01])
def test_a_training_is_what_it_is_step_by_step(
    tiny: LoopConfig, accelerator: str, muon_learning_rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU those of a replay; on the CPU those that are recorded."""
    train = {"accelerator": accelerator, "num_steps": 30, "batch_size": 12, "muon_learning_rate": muon_learning_rate}
    config, found = tiny.changed(train=train), []
    for fits in (lambda *_: True, lambda *_: False):
        monkeypatch.setattr(graph, "fits", fits)
        training = learner_of(config).fit(draw_original(config), Streams(1, 1)).training
        assert training is not None
        found.append((training.train_losses, training.validation_losses))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3)
