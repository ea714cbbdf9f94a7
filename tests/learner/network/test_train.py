"""Training: the loss is the likelihood and nothing of the padding, and the best weights are kept."""

from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from ouroloop.config import ConfigError, ModelConfig, TrainConfig
from ouroloop.learner.base import Training
from ouroloop.learner.network.batches import Batch, MixedDataModule, packed_attention
from ouroloop.learner.network.model import build_model
from ouroloop.learner.network.train import LanguageModel, learning_rate_factor, train
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.grammar import unique_set
from ouroloop.testbed.logic.testbed import TOKENIZER

CONFIG = TrainConfig(
    num_steps=60, batch_size=12, learning_rate=0.01, num_warmup_steps=5, validate_every=10, validation_fraction=0.2
)


def nats(model: torch.nn.Module, text: str) -> float:
    """One unpadded expression by itself: the independent way."""
    ids = torch.tensor([TOKENIZER.encode(text)])
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1]).logits
    return float(F.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))


def texts_of(batch: Batch) -> list[tuple[str, int]]:
    """Each distinct text with its count."""
    starts = torch.nonzero(batch.positions_N == 0).flatten().tolist()
    rows = torch.tensor_split(batch.labels_N, starts[1:])
    return [
        (TOKENIZER.decode(row[:-1].tolist()), int(batch.counts_N[start]))
        for row, start in zip(rows, starts, strict=True)
    ]


def trained(config: TrainConfig = CONFIG, dropout: float = 0.0) -> tuple[torch.nn.Module, MixedDataModule, Training]:
    dataset = Dataset.of(unique_set(120, stream(1, "data"), max_depth=3), Source.ORIGINAL, 0)
    data = MixedDataModule(dataset, TOKENIZER, config, stream(1, "split"))
    shape = ModelConfig(num_layers=1, num_heads=2, hidden_size=32, context_length=64, dropout=dropout)
    model = build_model(shape, TOKENIZER, seed=1)
    return model, data, train(model, data, config, seed=2, report=lambda step, loss: None)


@pytest.mark.heavy
def test_the_best_weights_are_put_back_and_their_loss_is_the_likelihood() -> None:
    """A learning rate that overshoots at the end makes the last validation worse than the best one."""
    model, data, training = trained(CONFIG.changed(final_learning_rate_ratio=1.0, num_steps=300, learning_rate=0.05))
    texts = [text for batch in data.validation_batches() for text, _ in texts_of(batch)]
    assert sum(nats(model, text) for text in texts) / len(texts) == pytest.approx(training.validation_nats, rel=1e-4)
    steps, losses = zip(*training.validation_losses, strict=True)
    assert training.validation_nats == min(losses) < losses[-1]
    assert list(steps) == list(range(10, 301, 10))


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_repeated_expression_weighs_as_often_as_it_is_there(batching: str) -> None:
    model = build_model(ModelConfig(num_layers=1, num_heads=2, hidden_size=32, context_length=64), TOKENIZER, seed=1)
    texts = ["( not False )", "( not False )", "( True or False )", "True", "True", "True"]
    config = CONFIG.changed(batching=batching, validation_fraction=0.01)
    data = MixedDataModule(Dataset.of(texts * 2, Source.SAMPLED, 1), TOKENIZER, config, stream(1, "split"))
    (batch,) = next(data.train_steps())
    with packed_attention(model) if batching == "packed" else nullcontext():
        loss = LanguageModel(model, config, lambda step, loss: None).summed_loss(batch) / batch.num_tokens
    seen = texts_of(batch)
    assert sum(n for _, n in seen) == 11
    expected = sum(n * nats(model, text) for text, n in seen) / sum(n * (len(text.split()) + 1) for text, n in seen)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_training_ends_when_nothing_is_left_to_gain() -> None:
    model = build_model(ModelConfig(num_layers=1, num_heads=2, hidden_size=32, context_length=64), TOKENIZER, seed=1)
    dataset = Dataset.of(["( not False )"] * 100, Source.SAMPLED, 9)
    config = CONFIG.changed(num_steps=400, stop_gap_nats=0.05)
    data = MixedDataModule(dataset, TOKENIZER, config, stream(1, "split"))
    training = train(model, data, config, seed=2, report=lambda step, loss: None)
    assert len(training.train_losses) < 400
    assert training.validation_nats <= 0.05 < training.validation_losses[-2][1]


def test_it_learns_and_counts_its_tokens() -> None:
    model, data, training = trained()
    assert len(training.train_losses) == 60
    assert training.train_losses[-1] < 0.7 * training.train_losses[0]
    assert training.num_tokens == pytest.approx(60 / 8 * data._texts.lengths_U[data._train_rows].sum(), rel=0.01)
    assert not model.training


@pytest.mark.heavy
@pytest.mark.parametrize("muon", [None, 0.02])
def test_accumulated_gradients_are_those_of_the_whole_batch(muon: float | None) -> None:
    """To rounding, 2^-23 of a float, which ten steps of either optimizer enlarge less than a thousandfold."""
    ten = CONFIG.changed(num_steps=10, muon_learning_rate=muon)
    whole = trained(ten)[2]
    parts = trained(ten.changed(batch_size=4, accumulate=3))[2]
    assert parts.train_losses == pytest.approx(whole.train_losses, rel=1e-4)
    assert parts.validation_nats == pytest.approx(whole.validation_nats, rel=1e-4)
    assert parts.num_tokens == whole.num_tokens
    smaller = trained(ten.changed(batch_size=4))[2]
    assert smaller.train_losses != pytest.approx(whole.train_losses, rel=1e-2)


@pytest.mark.heavy
def test_muon_and_adamw_together_make_one_step_and_learn_more_in_it() -> None:
    _, _, training = trained(CONFIG.changed(muon_learning_rate=0.02))
    assert len(training.train_losses) == 60
    assert [step for step, _ in training.validation_losses] == [10, 20, 30, 40, 50, 60]
    assert training.validation_nats < trained()[2].validation_nats


def test_muon_is_not_given_pieces_of_matrices() -> None:
    with pytest.raises(ConfigError, match="whole matrices"):
        trained(CONFIG.changed(muon_learning_rate=0.02, strategy="fsdp"))


def test_the_last_stretch_is_validated_even_if_it_is_shorter() -> None:
    _, _, training = trained(CONFIG.changed(validate_every=25))
    assert [step for step, _ in training.validation_losses] == [25, 50, 60]


@pytest.mark.heavy
def test_the_same_seed_trains_the_same_model_dropout_included() -> None:
    first, again = trained(dropout=0.1), trained(dropout=0.1)
    assert first[2] == again[2]
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), again[0].parameters(), strict=True))


@pytest.mark.heavy
def test_mixed_precision_trains_too() -> None:
    _, _, training = trained(CONFIG.changed(precision="bf16-mixed"))
    assert training.train_losses[-1] < 0.8 * training.train_losses[0]


@pytest.mark.heavy
def test_the_strategy_reaches_the_trainer_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distributed one on a single process: the same sums."""
    strategies: list[type] = []
    fit = pl.Trainer.fit

    def watched(trainer: pl.Trainer, *args: object, **options: object) -> None:
        strategies.append(type(trainer.strategy))
        fit(trainer, *args, **options)

    monkeypatch.setattr(pl.Trainer, "fit", watched)
    assert trained(CONFIG.changed(strategy="ddp"))[2] == trained()[2]
    assert strategies == [DDPStrategy, SingleDeviceStrategy]


def test_warm_up_and_cosine_to_a_tenth() -> None:
    config = TrainConfig(num_steps=110, batch_size=16, learning_rate=1, num_warmup_steps=10, validate_every=10)
    factors = [learning_rate_factor(step, config) for step in range(111)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == max(factors) == 1
    assert factors[60] == pytest.approx(0.55)
    assert factors[110] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_a_diverged_model_is_an_error_and_not_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ouroloop.learner.network.train.LanguageModel.summed_loss",
        lambda self, batch: self.model.lm_head.weight.sum() * torch.nan,
    )
    with pytest.raises(FloatingPointError, match="diverged"):
        trained()


def test_progress_is_reported() -> None:
    seen: list[int] = []
    dataset = Dataset.of(unique_set(30, stream(1, "data")), Source.ORIGINAL, 0)
    data = MixedDataModule(dataset, TOKENIZER, CONFIG, stream(1, "split"))
    model = build_model(ModelConfig(num_layers=1, num_heads=1, hidden_size=8), TOKENIZER, seed=1)
    train(model, data, CONFIG, seed=2, report=lambda step, loss: seen.append(step))
    assert seen == list(range(1, 61))
