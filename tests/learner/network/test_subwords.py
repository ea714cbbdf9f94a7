"""Tokens of a language without words of its own: learnt of D_0, of any text, and back byte for byte."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ouroloop.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from ouroloop.learner.network.learner import NetworkLearner
from ouroloop.learner.network.subwords import Subwords, byte_pairs
from tests.conftest import REPOSITORY
from tests.learner import contract
from tests.testbed.test_throwaway import WordList

SENTENCES = (
    "The cat sat on the mat.",
    "A dog ran\tafter\nthe cat!",
    "naïve \U0001f600 café\0",
    "and <eos> then the end",
)
MODEL = ModelConfig(num_layers=1, num_heads=2, hidden_size=16, context_length=64, vocabulary_size=280)
TRAIN = TrainConfig(num_steps=60, batch_size=8, learning_rate=0.03, num_warmup_steps=2, validate_every=20)
SAMPLING = SamplingConfig(temperature=0.7, max_new_tokens=40)

learnt = byte_pairs(SENTENCES, 300, 10_000)


@dataclass(frozen=True)
class Prose(WordList):
    """Sentences; what a token of them is a learner has to know."""

    tokenizer = None  # type: ignore[assignment]

    def original(self, count: int, rng: np.random.Generator) -> list[str]:
        return [SENTENCES[i] for i in rng.integers(len(SENTENCES), size=count)]


class TestFromScratch(contract.LearnerContract):
    temperature = SAMPLING.temperature
    longest = SAMPLING.max_new_tokens
    spells_in_one_way = False
    of_testbed = staticmethod(Prose)

    @staticmethod
    def learner() -> NetworkLearner:
        return NetworkLearner(MODEL, TRAIN, SAMPLING, Prose.tokenizer)

    def test_plain_transformers_loads_it(self, tmp_path: Path) -> None:
        model = self.fitted_once()
        model.save(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        ids = tokenizer(SENTENCES[0], return_tensors="pt").input_ids
        logits = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits[0]
        steps = logits[:-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None]).sum()
        ends = logits[-1].double().log_softmax(-1)[tokenizer.eos_token_id]
        assert (steps + ends).item() == pytest.approx(model.log_prob([SENTENCES[0]], [1.0])[0, 0], abs=1e-4)


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from([*SENTENCES, "<eos>" * 3, "x" * 3_000, "\0"])
)
def test_every_text_comes_back_and_ends_nowhere_within(text: str) -> None:
    ids = learnt.encode(text)
    assert ids[0] == learnt.start_id
    assert ids[-1] == learnt.eos_id
    assert learnt.eos_id not in ids[1:-1]
    assert all(0 <= i < learnt.size for i in ids)
    assert learnt.decode(ids[1:-1]) == text
    assert learnt.num_lost([text]) == 0


@pytest.mark.slow
def test_another_process_learns_the_same() -> None:
    code = f"from {__name__} import learnt; print(learnt.library.backend_tokenizer.to_str())"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == learnt.library.backend_tokenizer.to_str()


def test_frequent_pairs_have_tokens_of_their_own() -> None:
    assert byte_pairs(SENTENCES, 257, 99).size == 257
    assert learnt.size > 257
    assert len(learnt.encode("The cat")) < len("The cat")


def test_what_has_no_room_is_cut_and_refused_of_original_data() -> None:
    short = learnt.within(5)
    assert short.encode(SENTENCES[0]) == learnt.encode(SENTENCES[0])[:6]
    with pytest.raises(ConfigError, match=r"\d of 4 texts of D_0 have more tokens than model.context_length 5, "):
        short.require_room(SENTENCES, "model.context_length")
    learner = NetworkLearner(MODEL.changed(context_length=8), TRAIN, SAMPLING, None)
    with pytest.raises(ConfigError, match=r"\d of 4 texts of D_0"):
        learner.prepared(SENTENCES)


def test_a_text_that_grew_beyond_the_positions_is_still_scored() -> None:
    """Bytes that are no text come back as three each: what a model wrote may have more tokens than it wrote."""
    model = TestFromScratch.fitted_once()
    long = SENTENCES[0] * 20
    assert model.num_tokens([long]) == [64]
    assert np.isfinite(model.log_prob([long], [1.0])).all()


def test_a_vocabulary_without_an_end_is_refused() -> None:
    library = PreTrainedTokenizerFast(tokenizer_object=learnt.library.backend_tokenizer)
    with pytest.raises(ConfigError, match="eos_token"):
        Subwords(library, 10)


def test_before_anything_is_learnt_a_model_has_its_size() -> None:
    learner = NetworkLearner(MODEL, TRAIN, SAMPLING, None)
    assert learner.tokenizer.size == 280
    prepared = learner.prepared(SENTENCES * 3)
    assert 257 < prepared.tokenizer.size <= 280
    assert prepared.prepared(["other"]) is prepared
