"""The loop on a corpus: what a testbed without verdicts, and with an end, must not break."""

import json
from pathlib import Path

import numpy as np
import pytest

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.loop.loop import prepared_testbed
from ouroloop.record.liveness import Interrupted
from ouroloop.science.dataset import Source
from tests.loop.loops import StopAfter, forget, generations, loop, outcome, sampled

HARD = [
    "tab\there",
    "two\nlines",
    "nul \0 in it",
    "🐍 and e\u0301",
    "\u202eright to left",
    "\\t is no tab",
    "<b>bold</b>",
]
SMALL = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "context_length": 96, "vocabulary_size": 400}
FEW = {"num_steps": 6, "batch_size": 4, "learning_rate": 0.01, "num_warmup_steps": 1, "validate_every": 3}


def corpus(folder: Path, count: int = 400) -> Path:
    path = folder / "corpus.jsonl"
    texts = [f"Text {i} says that {i % 7} is less than {i % 11}: {HARD[i % 7]}" for i in range(count)]
    path.write_text("\n".join(json.dumps({"body": text}) for text in texts))
    return path


@pytest.fixture
def on_text(root: Path) -> LoopConfig:
    data = {"kind": "text", "path": str(corpus(root)), "text_column": "body", "block_tokens": 40, "num_examples": 60,
            "num_held_out": 20, "compared_tokens": 300}  # fmt: skip
    cycle = {"kind": "fresh_mix", "synthetic_proportion": 0.5}
    given = {"seed": 3, "num_generations": 4, "data": data, "cycle": cycle, "model": {"kind": "empirical"}}
    return LoopConfig.model_validate(given)


def network(config: LoopConfig, **changes: object) -> LoopConfig:
    small = {"num_generations": 3, "model": SMALL, "train": FEW, "sampling": {"max_new_tokens": 40}}
    return LoopConfig.model_validate(config.model_dump() | small | changes)


def test_nothing_is_said_of_truth_and_everything_of_variety(on_text: LoopConfig) -> None:
    run = loop(on_text)
    measured = outcome(run)
    steps = {key: [step for step, _ in history] for key, history in measured.items()}  # type: ignore[attr-defined]
    wanted = ("distinct_1", "distinct_2", "distinct_3", "distinct_4", "self_bleu", "compression_ratio", "repetition",
              "ngram_entropy_nats", "vocabulary_coverage", "rare_token_coverage", "diversity_levenshtein",
              "diversity_retention", "num_unique", "unique_fraction")  # fmt: skip
    assert all(steps[key] == [0, 1, 2, 3, 4] for key in wanted)
    assert steps["verbatim_share"] == steps["synthetic_share"] == [1, 2, 3, 4]
    assert steps["control_distinct_3"] == steps["control_verbatim_share"] == [0]
    assert not [key for key in measured if "correct" in key or "depth" in key or "error_rate" in key]
    assert dict(run.history("verbatim_share")) == dict.fromkeys(range(1, 5), 1.0)  # the ideal learner only copies


@pytest.mark.heavy
def test_texts_of_any_kind_survive_storage_and_resumption(on_text: LoopConfig) -> None:
    undisturbed = loop(on_text, study="undisturbed")
    original = undisturbed.read_dataset("original_data.tsv.gz").texts
    assert all(any(hard in text for text in original) for hard in HARD)
    forget()
    for phase in ("measure", "record"):
        with pytest.raises(Interrupted):
            loop(on_text, study="disturbed", observer=StopAfter(3, phase))
    resumed = loop(on_text, study="disturbed")
    assert sampled(resumed) == sampled(undisturbed)
    assert outcome(resumed) == outcome(undisturbed)


@pytest.mark.heavy
def test_soft_targets_of_one_ancestor_each_resume_as_they_were(on_text: LoopConfig) -> None:
    """The best row of the leaderboard without an oracle, on byte pairs; half of each training set is real text."""
    soft = {"targets": "soft", "num_teachers": None, "teaching": "drawn", "soft_top_k": 16}
    plain = network(on_text)
    config = plain.changed(train=soft)
    undisturbed = loop(config, study="undisturbed")
    forget()
    with pytest.raises(Interrupted):
        loop(config, study="disturbed", observer=StopAfter(3, "sample"))
    resumed = loop(config, study="disturbed")
    assert sampled(resumed) == sampled(undisturbed)
    assert outcome(resumed) == outcome(undisturbed)
    of_tokens = sampled(loop(plain.changed(num_generations=2), study="plain"))
    assert of_tokens[0] == sampled(resumed)[0]
    assert of_tokens[1] != sampled(resumed)[1]


@pytest.mark.heavy
def test_texts_go_on_with_real_beginnings_that_nothing_else_has(on_text: LoopConfig) -> None:
    config = network(on_text, sampling={"max_new_tokens": 20, "prompt_tokens": 6})
    undisturbed = loop(config, study="undisturbed")
    prompts = undisturbed.read_dataset("prompts.tsv.gz").texts
    testbed = prepared_testbed(config)
    assert len(set(prompts)) == 60
    assert {len(testbed.tokens(prompt)) for prompt in prompts} == {6}
    made = generations(undisturbed)
    for generation in made:
        texts = generation.read_dataset("samples.tsv.gz").texts
        assert all(text.startswith(prompt) for text, prompt in zip(texts, prompts, strict=True))
        given, whole = (sum(len(testbed.tokens(text)) for text in of) for of in (prompts, texts))
        assert generation.metrics["prompt_share"] == given / whole < 1
    sets = [generation.read_dataset("training_set.tsv.gz") for generation in made]
    real = {text for one in sets for text in one.take(np.flatnonzero(one.sources != Source.SAMPLED)).texts}
    for text in (*real, *testbed.held_out):
        assert not text.startswith(prompts)
    assert not real & set(testbed.held_out)
    forget()
    with pytest.raises(Interrupted):
        loop(config, study="disturbed", observer=StopAfter(2, "measure"))
    assert sampled(loop(config, study="disturbed")) == sampled(undisturbed)


def test_prompts_count_in_what_a_corpus_has_to_hold(on_text: LoopConfig) -> None:
    long = {"num_generations": 9, "sampling": {"prompt_tokens": 6, "max_new_tokens": 20}}
    assert prepared_testbed(network(on_text, **long))  # 20 + 60 + 60 + 8 x 30 of 400, and 20 left
    with pytest.raises(ConfigError, match="10 are missing: D_0 takes 60, fresh data 270, prompts 60, and 20 are held"):
        prepared_testbed(network(on_text, **long | {"num_generations": 10}))


def test_no_generation_trains_on_held_out_text_or_twice_on_fresh(on_text: LoopConfig) -> None:
    fresh_only = on_text.changed(cycle={"kind": "fresh_mix", "synthetic_proportion": 0.0})
    run = loop(fresh_only)
    sets = [generation.read_dataset("training_set.tsv.gz").texts for generation in generations(run)]
    trained_on = [text for texts in sets for text in texts]
    assert len(trained_on) == len(set(trained_on)) == 4 * 60
    assert not set(trained_on) & set(prepared_testbed(fresh_only).held_out)


def test_a_corpus_that_runs_out_is_said_before_anything_is_recorded(on_text: LoopConfig) -> None:
    with pytest.raises(ConfigError, match=r"has 400 distinct .* 7 are missing: D_0 takes 60, fresh data 327"):
        loop(on_text.changed(num_generations=110, cycle={"kind": "fresh_mix", "synthetic_proportion": 0.95}))


@pytest.mark.heavy
def test_a_loop_does_not_go_on_with_another_corpus(on_text: LoopConfig, root: Path) -> None:
    first = loop(on_text)
    assert loop(on_text).id == first.id
    corpus(root, 401)
    with pytest.raises(ConfigError, match="the corpus is not what it was when test loop began; `run --new`"):
        loop(on_text)
    again = loop(on_text, new=True)
    assert again.tag("corpus_digest") != first.tag("corpus_digest")
    assert not [generation for generation in generations(again) if generation.tag("copied_from")]
