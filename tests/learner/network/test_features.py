"""Features of texts against the reference's own route and a text at a time; what is no such model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, T5Config

from ouroloop.config import ConfigError, NamedModel
from ouroloop.learner.network.features import HiddenStates, load_reader
from tests.learner.network.models import FAMILIES, TEXTS
from tests.learner.network.test_pretrained import folder, headless, pickled, with_config

MANY = [*TEXTS, "A", "", *(f"Text {i} is {'longer ' * (i % 5)}than it was." for i in range(30))]


def named(place: Path | str, revision: str | None = None) -> NamedModel:
    return NamedModel("data.mauve_model", str(place), revision)


def reader(place: Path | str) -> HiddenStates:
    return load_reader(named(place), "cpu", 1)


def alone(read: HiddenStates, text: str) -> np.ndarray:
    """Of one text, without padding."""
    words = read.words
    first = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
    ids = words.encode(text, split_special_tokens=True)[: read.longest] or [first]
    with torch.no_grad():
        state: np.ndarray = read.model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    return state


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_last_state_of_the_last_token_whatever_is_read_beside(family: str) -> None:
    read = reader(folder(family))
    found = read([*MANY, "x " * 500])
    assert found.shape == (len(MANY) + 1, 32)
    assert found[:-1] == pytest.approx(np.array([alone(read, text) for text in MANY]), abs=1e-5)
    assert found[-1] == pytest.approx(alone(read, "x " * 500), abs=1e-5)
    assert read(MANY).tobytes() == read(MANY).tobytes()
    assert not read.model.training


def test_the_reference_has_the_same_features_and_the_same_value() -> None:
    """Its own tokenizer and model of this name, of the texts themselves."""
    compute = pytest.importorskip("mauve", exc_type=ImportError).compute_mauve
    from ouroloop.science.likeness import mauve

    place = folder("gpt2, no pad").with_name("gpt2-small")  # it takes no other names than of gpt2 and bert
    if not place.exists():
        shutil.copytree(folder("gpt2, no pad"), place)
    ours, real = [text for text in MANY if text][:16], [f"Another text, number {i}." for i in range(16)]
    expected = compute(p_text=ours, q_text=real, featurize_model_name=str(place), max_text_length=64)
    read = reader(place)
    assert mauve(read(ours), read(real)) == pytest.approx(expected.mauve, rel=1e-9)


def test_an_encoder_reads_too() -> None:
    read = reader(folder("gpt2, no pad"))
    assert read.longest == 64
    read.words.model_max_length = 20
    assert read.longest == 20


def test_what_an_encoder_makes_of_a_text(tmp_path: Path) -> None:
    read = reader(headless(tmp_path))
    assert read(MANY) == pytest.approx(np.array([alone(read, text) for text in MANY]), abs=1e-5)


def two_sided(tmp_path: Path) -> Path:
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "t5", ignore=shutil.ignore_patterns("*.safetensors"))
    small = T5Config(vocab_size=290, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    AutoModel.from_config(small).save_pretrained(copy)
    return copy


def few_rows(tmp_path: Path) -> Path:
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "few", ignore=shutil.ignore_patterns("*.safetensors"))
    small = BertConfig(vocab_size=280, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    AutoModel.from_config(small).save_pretrained(copy)
    return copy


def damaged(tmp_path: Path) -> Path:
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "damaged")
    (copy / "model.safetensors").write_bytes(b"no weights")
    return copy


REFUSED = {
    "only pickled weights": (pickled, "only pytorch_model.bin, and nothing is unpickled"),
    "one that reads and writes": (two_sided, "gives a text no features: "),
    "more tokens than rows": (few_rows, "its tokenizer has 290 tokens, the model embeds 280"),
    "an unknown type": (lambda tmp: with_config(tmp, model_type="no-such"), "cannot be read: "),
    "another shape": (lambda tmp: with_config(tmp, n_layer=3), "12 weights are missing, such as h.2.|weights are"),
    "a damaged file": (damaged, "cannot be loaded: "),
    "no folder": (lambda tmp: tmp / "nowhere", "no folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_model_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    make, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message) as error:
        reader(make(tmp_path))
    assert str(error.value).startswith("data.mauve_model")
    assert "\n" not in str(error.value)


def test_one_that_has_changed_is_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "copy")
    pinned = named(copy, named(copy).pinned)
    assert load_reader(pinned, "cpu", 1)(["a"]).shape == (1, 32)
    given = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(given | {"layer_norm_epsilon": 1e-3}))
    with pytest.raises(ConfigError, match=r"data.mauve_model '.*' has changed: its revision is"):
        load_reader(pinned, "cpu", 1)
