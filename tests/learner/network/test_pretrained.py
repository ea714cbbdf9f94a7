"""A user's own model: several families trained, sampled, saved and loaded by plain transformers; what is refused."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig

from ouroloop.config import ConfigError, LoopConfig, PretrainedModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner import learner_of
from ouroloop.learner.network import pretrained, sampling
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.learner.network.sampling import _split, _split_by_text
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from tests.learner import contract
from tests.learner.network.models import FAMILIES, TEXTS, save
from tests.learner.network.test_subwords import Prose

TRAIN = TrainConfig(num_steps=20, batch_size=8, learning_rate=0.01, num_warmup_steps=2, validate_every=10)
SAMPLING = SamplingConfig(temperature=0.7, max_new_tokens=30)
DATASET = Dataset.of(TEXTS * 5, Source.ORIGINAL, 0)


@cache
def folder(family: str) -> Path:
    return save(Path(mkdtemp()), **FAMILIES[family])


def learner(family: str, **model: object) -> NetworkLearner:
    config = PretrainedModelConfig.model_validate({"pretrained": str(folder(family)), **model})
    return NetworkLearner(config, TRAIN, SAMPLING, None)


@cache
def trained() -> Path:
    """One that writes, with all of its weights fine-tuned."""
    new = learner("llama, bos, rows that no token has")
    steps = TRAIN.changed(num_steps=100, learning_rate=0.02)
    made, texts = Path(mkdtemp()), Prose().original(60, stream(1, "data"))
    dataset = Dataset.of(texts, Source.ORIGINAL, 0)
    NetworkLearner(new.model, steps, SAMPLING, None).fit(dataset, Streams(1, 1)).save(made)
    return made


class TestLora(contract.LearnerContract):
    temperature = SAMPLING.temperature
    longest = SAMPLING.max_new_tokens
    spells_in_one_way = False
    of_testbed = staticmethod(Prose)

    @staticmethod
    def learner() -> NetworkLearner:
        return NetworkLearner(PretrainedModelConfig(pretrained=str(trained()), lora_rank=4), TRAIN, SAMPLING, None)


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora_rank", [None, 4])
def test_a_family_trains_samples_and_loads_with_plain_transformers(
    family: str, lora_rank: int | None, tmp_path: Path
) -> None:
    own = learner(family, lora_rank=lora_rank).prepared(TEXTS)
    own.check()
    base = own.load(folder(family))
    fitted = own.fit(DATASET, Streams(1, 1))
    assert fitted.log_prob(TEXTS, [1.0]).sum() > base.log_prob(TEXTS, [1.0]).sum() + 1
    samples = fitted.sample(100, stream(1, "sampling"))
    assert len(set(samples.texts)) > 20, "its own top-k of 1 would leave one"

    fitted.save(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[f"{state}_keys"] for state in ("missing", "mismatched", "unexpected"))
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    assert plain.generation_config.top_k == 0
    first = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
    ids = [first, *words.encode(TEXTS[0], add_special_tokens=False), words.eos_token_id]
    with torch.no_grad():
        logits = plain(torch.tensor([ids[:-1]])).logits[0, :, : len(words)].double()
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None]).sum().item()
    assert fitted.log_prob([TEXTS[0]], [1.0])[0, 0] == pytest.approx(expected, abs=1e-4)


def test_every_generation_starts_from_the_same_base() -> None:
    own = learner("gpt2, no pad", lora_rank=2)
    first = own.fit(DATASET, Streams(1, 1))
    again = learner("gpt2, no pad", lora_rank=2).fit(DATASET, Streams(1, 1), previous=())
    pairs = zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    untouched = pretrained.load_base(own.model).state_dict()  # type: ignore[arg-type]
    changed = [name for name, weight in first.model.state_dict().items() if not torch.equal(weight, untouched[name])]
    assert changed
    assert not [name for name in changed if "wte" in name or "wpe" in name or "ln" in name]


def test_the_next_one_may_start_from_the_last() -> None:
    own = learner("qwen2, sharded", lora_rank=2)
    own = NetworkLearner(own.model, TRAIN.changed(start="previous", num_steps=1, learning_rate=1e-7), SAMPLING, None)
    first = learner("qwen2, sharded", lora_rank=2).fit(DATASET, Streams(1, 1))
    second = own.fit(DATASET, Streams(1, 2), previous=[first])
    assert second.log_prob(TEXTS, [1.0]) == pytest.approx(first.log_prob(TEXTS, [1.0]), abs=0.05)


def loop(**model: object) -> LoopConfig:
    return LoopConfig.model_validate(
        {
            "num_generations": 1,
            "data": {"kind": "text", "path": "corpus.txt", "num_examples": 10},
            "model": model,
            "train": TRAIN.model_dump(),
            "sampling": SAMPLING.model_dump(),
        }
    )


def test_a_loop_is_known_by_what_the_model_is_and_not_by_where_it_lies(tmp_path: Path) -> None:
    here = loop(pretrained=str(folder("gpt2, no pad")))
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "copy")
    there = loop(pretrained=str(copy))
    pinned = there.pinned()
    assert here.fingerprint() == there.fingerprint() == pinned.fingerprint()
    assert learner_of(pinned).prepared(TEXTS)
    words = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(words | {"layer_norm_epsilon": 1e-3}))
    assert there.fingerprint() != here.fingerprint()
    with pytest.raises(ConfigError, match="has changed: its revision is"):
        learner_of(pinned).check()


def without(name: str, tmp_path: Path, *globs: str) -> Path:
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / name)
    for pattern in globs:
        for path in copy.glob(pattern):
            path.unlink()
    return copy


def pickled(tmp_path: Path) -> Path:
    copy = without("pickled", tmp_path, "*.safetensors")
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    return copy


def with_config(tmp_path: Path, **change: object) -> Path:
    copy = without("changed", tmp_path)
    given = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(given | change))
    return copy


def headless(tmp_path: Path) -> Path:
    copy = without("headless", tmp_path, "*.safetensors", "config.json")
    small = BertConfig(vocab_size=290, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    AutoModel.from_config(small).save_pretrained(copy)
    return copy


REFUSED = {
    "only pickled weights": (pickled, "no weights in safetensors, only pytorch_model.bin, and nothing is unpickled"),
    "no weights": (lambda tmp: without("x", tmp, "*.safetensors"), "has no weights in safetensors$"),
    "no tokenizer": (lambda tmp: without("x", tmp, "tokenizer*"), "has no tokenizer"),
    "no config": (lambda tmp: without("x", tmp, "config.json"), "it has no config.json"),
    "no causal LM": (lambda tmp: with_config(tmp, model_type="t5"), "not a causal LM of transformers"),
    "an encoder": (headless, "not a causal LM|not causal"),
    "an unknown type": (lambda tmp: with_config(tmp, model_type="no-such"), "cannot be read: "),
    "more tokens than rows": (
        lambda tmp: with_config(tmp, vocab_size=12),
        "cannot be loaded|weights are missing|tokens",
    ),
    "no folder": (lambda tmp: tmp / "nowhere", "no folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_model_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    make, message = REFUSED[what]
    config = PretrainedModelConfig(pretrained=str(make(tmp_path)))
    with pytest.raises(ConfigError, match=message) as error:
        NetworkLearner(config, TRAIN, SAMPLING, None).check()
    assert "\n" not in str(error.value)


def test_a_model_without_positions_for_what_it_may_write_is_refused_before_it_is_trained() -> None:
    new = learner("gpt2, no pad")
    has = pretrained.num_positions(new.model)
    new.check()
    replace(new, sampling=SAMPLING.changed(max_new_tokens=has - 1)).check()
    with pytest.raises(ConfigError, match=f"has {has} positions, and must have at least {has + 1}"):
        replace(new, sampling=SAMPLING.changed(max_new_tokens=has)).check()


def test_texts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 of 5 texts of D_0"):
        learner("gpt2, no pad").prepared([*TEXTS, "x" * 99])


def test_a_name_of_the_hub_needs_its_commit_and_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no folder 'gpt2'; a model on the hub needs model.revision"):
        PretrainedModelConfig(pretrained="gpt2")
    config = PretrainedModelConfig(pretrained="nobody/nothing", revision="0" * 40)
    monkeypatch.setattr(pretrained, "OFFLINE_BY_CHOICE", True)
    with pytest.raises(ConfigError, match=r"cannot get model.pretrained 'nobody/nothing' at 000000000000: ") as error:
        NetworkLearner(config, TRAIN, SAMPLING, None).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"pretrained": "/x", "num_layers": 2}, "num_layers"),
        ({"pretrained": "/x", "lora_rank": 0}, "lora_rank"),
        ({"pretrained": "/x", "context_length": 30}, "must be at least 31"),
    ],
)
def test_fields_that_are_of_no_use_are_refused(model: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loop(**model)


def test_large_vocabularies_are_split_as_small_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same distribution by another way: chi-square over 10 tokens, 0.1 % false alarms, 9 degrees of freedom.

    Computed a row at a time, as rows that would take too much memory together are, the draws are the same.
    """
    logits_RV = torch.linspace(0, 3, 10).repeat(3, 1)
    counts, decoding = np.array([20_000, 1, 7]), SamplingConfig(temperature=0.8)
    drawn = _split_by_text(logits_RV, counts, decoding, stream(1, "sampling"))
    other = _split(logits_RV, counts, decoding, stream(1, "sampling"))
    assert [drawn.copies[drawn.rows == row].sum() for row in range(3)] == [20_000, 1, 7]
    p = np.exp(np.linspace(0, 3, 10) / 0.8)
    p /= p.sum()
    assert drawn.log_p == pytest.approx(np.log(p)[drawn.tokens])
    assert other.log_p == pytest.approx(np.log(p)[other.tokens])
    first = drawn.rows == 0
    found = dict(zip(drawn.tokens[first].tolist(), drawn.copies[first].tolist(), strict=True))
    assert sum((found[i] - 20_000 * p[i]) ** 2 / (20_000 * p[i]) for i in range(10)) < 27.9
    assert sorted(zip(drawn.rows, drawn.tokens, strict=True)) == list(zip(drawn.rows, drawn.tokens, strict=True))
    monkeypatch.setattr(sampling, "_SPLIT_AT_ONCE", 10)
    pieces = _split_by_text(logits_RV, counts, decoding, stream(1, "sampling"))
    assert all((own == other).all() for own, other in zip(pieces[:3], drawn[:3], strict=True))
    assert pieces.log_p == pytest.approx(drawn.log_p)


def test_no_token_of_probability_0_is_ever_drawn() -> None:
    logits_RV = torch.full((2, 3_000), -torch.inf)
    logits_RV[:, [5, 2_999]] = 0.0
    drawn = _split(logits_RV, np.array([500, 500]), SamplingConfig(), stream(1, "sampling"))
    assert set(drawn.tokens.tolist()) == {5, 2_999}
    with pytest.raises(FloatingPointError):
        _split(torch.full((1, 3_000), torch.nan), np.array([1]), SamplingConfig(), stream(1, "sampling"))
