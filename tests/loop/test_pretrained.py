"""A loop on a user's own model, by the command line: small ones, one that is real, and what is none."""

import json
import re
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest
import torch
import yaml
from huggingface_hub import constants
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from ouroloop.config import LoopConfig
from ouroloop.learner.network import pretrained
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from tests.conftest import CommandLine
from tests.learner.network import smollm
from tests.learner.network.test_pretrained import folder, headless, pickled
from tests.loop.loops import StopAfter, forget, generations, loop, outcome, sampled

HELD_OUT = ("heldout_t1_nats_per_token", "heldout_nats_per_token")
TRAIN = {"num_steps": 8, "batch_size": 4, "accumulate": 2, "learning_rate": 0.01, "num_warmup_steps": 1,
         "validate_every": 4}  # fmt: skip


def preset(root: Path, model: Path, lora_rank: int | None = None, num_generations: int = 2) -> Path:
    """A loop on a corpus of short texts."""
    corpus, path = root / "corpus.jsonl", root / "mine.yaml"
    texts = [f"The cat {i} sat on {i % 7} of {i % 11} mats." for i in range(120)]
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = {"kind": "text", "path": str(corpus), "num_examples": 40, "num_held_out": 20, "compared_tokens": 100}
    given = {"num_generations": num_generations, "data": data, "train": TRAIN, "sampling": {"max_new_tokens": 30},
             "model": {"pretrained": str(model), "lora_rank": lora_rank}}  # fmt: skip
    path.write_text(yaml.safe_dump(given))
    return path


def plainly_loaded(run: Run) -> Path:
    """The folder of the one model that was registered; transformers alone loads it and predicts with it."""
    (name,) = [model.name for model in run.store.client.search_registered_models()]
    (version, *_) = run.store.client.search_model_versions(f"name='{name}'")
    place = Path(version.source.removeprefix("file://"))
    words = AutoTokenizer.from_pretrained(place)
    plain, info = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert not [weight for weight, _ in plain.named_parameters() if "lora" in weight]
    with torch.no_grad():
        assert plain(torch.tensor([words.encode("The cat")])).logits.isfinite().all()
    return place


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("family", "lora_rank"), [("llama, bos, rows that no token has", 2), ("gpt2, no pad", None)], ids=["llama", "gpt2"]
)
def test_a_folder_goes_through_the_loop_and_comes_out_registered(
    family: str, lora_rank: int | None, root: Path, ouroloop: CommandLine
) -> None:
    path = preset(root, folder(family), lora_rank)
    done = ouroloop("run", str(path), "--seed=3")
    assert done.returncode == 0, done.stderr
    assert "tokens do not reproduce" not in done.stdout
    (run,) = Store.open().find(level="loop")
    assert run.metrics.keys() >= {"distinct_3", "verbatim_share", "synthetic_share", "validation_nats", *HELD_OUT}
    assert run.history("num_lost") == [(0, 0.0)]
    assert len(run.store.client.get_run(run.id).data.params["model.revision"]) == 40
    assert "already complete" in ouroloop("run", str(path), "--seed=3").stdout

    assert ouroloop("register", run.tag("study") or "").returncode == 0
    place = plainly_loaded(run)
    written = ouroloop("sample", str(place), "-n", "2", "--prompt=The cat").stdout.splitlines()
    assert sum("The cat" in line for line in written) == 2


@pytest.mark.heavy
def test_a_killed_loop_goes_on_from_the_same_base(root: Path) -> None:
    given = yaml.safe_load(preset(root, folder("gpt2, no pad")).read_text())
    config = LoopConfig.model_validate(given)
    undisturbed = loop(config, study="undisturbed")
    forget()
    with pytest.raises(Interrupted):
        loop(config, study="disturbed", observer=StopAfter(2, "sample"))
    resumed = loop(config, study="disturbed")
    assert sampled(resumed) == sampled(undisturbed)
    assert outcome(resumed) == outcome(undisturbed)


def test_what_a_tokenizer_loses_is_said(root: Path, ouroloop: CommandLine) -> None:
    place = shutil.copytree(folder("gpt2, no pad"), root / "lower")
    words = AutoTokenizer.from_pretrained(place)
    words.backend_tokenizer.normalizer = normalizers.Lowercase()
    words.save_pretrained(place)
    done = ouroloop("run", str(preset(root, place, num_generations=1)))
    assert done.returncode == 0, done.stderr
    assert "the model's tokens do not reproduce 40 of 40 texts of D_0 exactly\n" in done.stdout
    (run,) = Store.open().find(level="loop")
    assert run.history("num_lost") == [(0, 40.0)]


BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "a missing column": (lambda root: ["--data.text_column=body"], "no column 'body'; data.text_column may be text"),
    "an empty file": (lambda root: [f"--data.path={empty(root)}"], "holds no text"),
    "fewer than m": (lambda root: ["--data.num_examples=101"], "has 120 distinct examples .* and 1 are missing"),
    "texts without room": (
        lambda root: ["--model.context_length=9", "--sampling.max_new_tokens=8"],
        "40 of 40 texts of D_0 have more tokens than .* 9, <eos> counted",
    ),
    "pickled weights alone": (lambda root: [f"--model.pretrained={pickled(root)}"], "nothing is unpickled"),
    "no causal LM": (lambda root: [f"--model.pretrained={headless(root)}"], "is not a causal LM|is not causal"),
    "no network": (
        lambda root: ["--model.pretrained=nobody/nothing", f"--model.revision={'a' * 40}"],
        "cannot get model.pretrained 'nobody/nothing' at aaaaaaaaaaaa: ",
    ),
}


def empty(root: Path) -> Path:
    (root / "empty.jsonl").write_text("")
    return root / "empty.jsonl"


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_nothing_is_recorded(
    what: str, root: Path, ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "OFFLINE_BY_CHOICE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    make, message = BAD[what]
    path = preset(root, folder("gpt2, no pad"))
    done = ouroloop("run", str(path), *make(root))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(message, done.stderr)
    assert not Store.open().find(level="loop")


@pytest.mark.slow
def test_a_real_pretrained_model_goes_through_the_loop(root: Path, ouroloop: CommandLine) -> None:
    """SmolLM2-135M-Instruct, two generations of LoRA on 200 blocks, with every measure, registered and loaded."""
    folder = smollm.saved(root / "smollm")
    begin, used = perf_counter(), time.process_time()
    given = {"model.pretrained": folder, "model.revision": "null", "model.context_length": 128, "num_generations": 2,
             "data.path": "docstrings:optuna,rich", "data.block_tokens": 32, "data.num_examples": 200,
             "data.num_held_out": 40, "data.compared_tokens": 1_000, "train.num_steps": 20, "train.batch_size": 8,
             "train.validate_every": 10, "train.max_validation_examples": 20, "train.precision": "32-true",
             "train.num_threads": 2, "sampling.max_new_tokens": 40, "sampling.batch_size": 32}  # fmt: skip
    done = ouroloop("run", "text-pretrained", *(f"--{key}={value}" for key, value in given.items()))
    assert done.returncode == 0, done.stderr
    (run,) = Store.open().find(level="loop")
    metrics = run.metrics
    wanted = ("distinct_1", "distinct_4", "self_bleu", "compression_ratio", "ngram_entropy_nats", "repetition",
              "vocabulary_coverage", "rare_token_coverage", "verbatim_share", "diversity_levenshtein",
              "diversity_retention", "synthetic_share", "validation_nats", *HELD_OUT)  # fmt: skip
    assert metrics.keys() >= set(wanted)
    assert 2 < metrics["heldout_t1_nats_per_token"] < 5, "docstrings, to a model that has learnt English"
    losses = [generation.metrics["validation_loss_nats"] for generation in generations(run)]
    assert len(losses) == 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{perf_counter() - begin:.0f} s, {time.process_time() - used:.0f} s of a core, {peak:.1f} GB")
    assert ouroloop("register", run.tag("study") or "").returncode == 0
    assert json.loads((plainly_loaded(run) / "config.json").read_text())["num_hidden_layers"] == 30
