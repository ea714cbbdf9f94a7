"""What loops share must be what each of them would have computed, be computed once, and say where it is from."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ouroloop.config import CycleConfig, DataCycle, EmpiricalConfig, LoopConfig
from ouroloop.console import LoopView
from ouroloop.loop import cache
from ouroloop.loop.loop import draw_original
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.dataset import Dataset, Source
from tests.conftest import REPOSITORY, TINY
from tests.learner.network.test_pretrained import folder
from tests.loop.loops import TIMES, StopAfter, forget, generations, loop, note, outcome, sampled, watched

IDEAL = {**TINY, "model": {"kind": "empirical"}}
del IDEAL["train"]
EXPANDING = CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=0.5)


@pytest.fixture
def ideal(ideal: LoopConfig) -> LoopConfig:
    """Of two generations, which are enough here."""
    return ideal.changed(num_generations=2)


# What the key is made of


def key(config: LoopConfig, device: str = "cpu", training_set: Dataset | None = None, generation: int = 2) -> str:
    return cache.key(config, device, training_set or draw_original(config), generation)


CHANGES: dict[str, Callable[[LoopConfig], LoopConfig]] = {
    "seed": lambda c: c.changed(seed=6),
    "temperature": lambda c: c.changed(sampling={"temperature": 1.0}),
    "max_new_tokens": lambda c: c.changed(sampling={"max_new_tokens": 21}),
    "num_examples": lambda c: c.changed(data={"num_examples": 41}),
    "truth_label": lambda c: c.changed(data={"truth_label": "false_only"}),
    "hidden_size": lambda c: c.changed(model={"hidden_size": 32}),
    "kind": lambda c: c.changed(model=EmpiricalConfig(kind="empirical"), train=None),
    "num_steps": lambda c: c.changed(train={"num_steps": 13}),
    "num_threads": lambda c: c.changed(train={"num_threads": 2}),
    "exact": lambda c: c.changed(exact_every=2),
}
IRRELEVANT: dict[str, Callable[[LoopConfig], LoopConfig]] = {
    "num_generations": lambda c: c.changed(num_generations=9),
    "cycle": lambda c: c.changed(cycle=EXPANDING),
    "incremental at 1": lambda c: c.changed(cycle=CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1)),
    "stages": lambda c: c.changed(stages={"healthy": 0.9}),
    "keep_weights": lambda c: c.changed(keep_weights="none"),
    "description": lambda c: c.changed(description="another"),
    "exact_every": lambda c: c.changed(exact_every=7),  # generation 2 is exact in neither
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_it_depends_on(tiny: LoopConfig, change: str) -> None:
    """On each of these by itself: the training set stays."""
    training_set = draw_original(tiny)
    assert key(CHANGES[change](tiny), training_set=training_set) != key(tiny, training_set=training_set)


@pytest.mark.parametrize("change", IRRELEVANT)
def test_what_it_does_not_depend_on(tiny: LoopConfig, change: str) -> None:
    assert key(IRRELEVANT[change](tiny)) == key(tiny)


def test_it_depends_on_the_training_set_and_its_provenance(tiny: LoopConfig) -> None:
    texts = draw_original(tiny).texts
    sets = [
        Dataset.of(texts, Source.ORIGINAL, 0),
        Dataset.of(texts, Source.SAMPLED, 1),
        Dataset.of(texts, Source.SAMPLED, 2),
        Dataset.of(texts[::-1], Source.ORIGINAL, 0),
        Dataset.of([*texts[1:], texts[1]], Source.ORIGINAL, 0),
    ]
    assert len({key(tiny, training_set=one) for one in sets}) == len(sets)
    assert len({key(tiny, training_set=sets[0], generation=t) for t in (1, 2, 3)}) == 3
    assert key(tiny) == key(tiny, training_set=sets[0])


def test_machines_that_may_round_otherwise_share_no_key(tiny: LoopConfig) -> None:
    assert len({key(tiny, device) for device in ("cpu", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "mps")}) == 4


@pytest.mark.parametrize(
    ("name", "other"),
    [("code", "another"), ("packages", {"torch": "9.9"}), ("processor", "riscv64 of somebody")],
)
def test_software_and_processor_count(
    tiny: LoopConfig, name: str, other: str | dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(tiny)
    monkeypatch.setattr(cache, name, lambda: other)
    assert key(tiny) != before


def test_a_library_that_some_loops_compute_with_is_in_the_key_of_those(
    tiny: LoopConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of those that are no part of every loop's; a loop on logic keeps its key."""
    asked, texts = list[tuple[str, ...]](), Dataset.of(["True"], Source.ORIGINAL, 0)
    monkeypatch.setattr(cache, "packages", lambda *more: asked.append(more) or {})
    data = {"kind": "text", "path": "docstrings", "num_examples": 60, "num_held_out": 20}
    tuned = {"pretrained": str(folder("gpt2, no pad")), "lora_rank": 2}
    on_text = LoopConfig.model_validate(TINY | {"data": data})
    ideal = {"model": {"kind": "empirical"}, "train": None}
    adapted = {"model": tuned, "train": TINY["train"] | {"muon_learning_rate": None}}  # type: ignore[operator]
    for config in (tiny, on_text, *(LoopConfig.model_validate(TINY | {"data": data} | to) for to in (ideal, adapted))):
        key(config, training_set=texts)
    assert asked == [(), ("tokenizers",), (), ("tokenizers", "peft")]


# What is found by it


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_what_another_loop_has_computed_is_copied_and_is_what_would_have_been_computed(tiny: LoopConfig) -> None:
    """Full synthetic is incremental at 1, and three generations are the beginning of four."""
    first = loop(tiny.changed(num_generations=4, keep_weights="all"), study="first")
    cycle = CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1.0)
    config = tiny.changed(cycle=cycle)
    copied, watcher = watched(config, study="copied")
    assert (watcher.started, watcher.fitted) == ([1, 2, 3], [])
    computed, watcher = watched(config, study="copied", new=True)
    assert watcher.fitted == [1, 2, 3]
    assert sampled(copied) == sampled(computed) == sampled(first)[:3]
    assert outcome(copied) == outcome(computed)
    for twin, copy, original in zip(generations(first), generations(copied), generations(computed), strict=False):
        assert copy.tag("copied_from") == twin.id
        assert copy.tag("study") == "copied"
        assert copy.metrics.keys() == original.metrics.keys()
        assert copy.history("train_loss_nats_per_token") == original.history("train_loss_nats_per_token")
        assert note(copy) == f"Copied from first loop {twin.name}, with its times.\n\n{note(twin)}"
        assert note(twin) == note(original)
        assert (copy.tag("stage"), copy.mixture) == (original.tag("stage"), original.mixture)
        assert copy.model_id != twin.model_id
        assert (copy.model_id is None) == (original.model_id is None)  # and not all that its twin keeps
        assert model_bytes(copy) in (None, model_bytes(twin))
    assert generations(copied)[-1].model_id is not None
    assert watched(config.changed(seed=6, num_generations=1), study="other")[1].fitted == [1]


def model_bytes(generation: Run) -> bytes | None:
    if generation.model_id is None:
        return None
    place = generation.store.client.get_logged_model(generation.model_id).artifact_location
    return (Path(place.removeprefix("file://")) / "model.safetensors").read_bytes()


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_its_times_are_those_of_the_original(ideal: LoopConfig) -> None:
    first, copied = loop(ideal, study="first"), loop(ideal, study="copied")
    times = outcome(first, lambda name: name.endswith(TIMES))
    assert {"generation_seconds", "sample_seconds", "sample_tokens_per_second"} <= times.keys()
    assert outcome(copied, lambda name: name.endswith(TIMES)) == times


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_where_it_is_from_is_said(ideal: LoopConfig) -> None:
    """What a key leads to is what was computed, never a copy: where that is gone, it is computed again."""
    first = loop(ideal, study="first")
    second, watcher = watched(ideal.changed(cycle=EXPANDING), study="second")
    assert watcher.sources == ["copied from first loop gen-01", ""]
    forgotten, *_ = generations(first)
    first.store.client.delete_run(forgotten.id)
    third, _ = watched(ideal.changed(cycle=EXPANDING), study="third")
    copies = [generation.tag("copied_from") for generation in generations(third)]
    assert copies == [None, generations(second)[1].id]


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_the_terminal_says_so_too(ideal: LoopConfig) -> None:
    loop(ideal, study="first")
    output = StringIO()
    with LoopView(Console(file=output, width=200)) as view:
        loop(ideal, study="second", observer=view)
        loop(ideal, study="second", observer=view)
    lines = output.getvalue().splitlines()
    assert [line.rpartition("  ")[2] for line in lines[1:3]] == [f"copied from first loop gen-0{t}" for t in (1, 2)]
    assert "second loop: already complete" in lines


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_loop_that_was_renamed_is_text(ideal: LoopConfig, is_terminal: bool) -> None:
    """To whoever copies from it, on the terminal and in the description of its runs."""
    first = loop(ideal, study="first")
    first.store.client.update_run(first.id, name="mine [/old] [bold]<img src=x onerror=alert(1)>\x1b[31m")
    (old, *_) = generations(first)
    first.store.client.set_tag(
        old.id, "mlflow.note.content", "<script>alert(2)</script> ![x](http://example.com/x.png)"
    )
    output = StringIO()
    console = Console(file=output, width=200, force_terminal=is_terminal, color_system=None)
    with LoopView(console) as view:
        second = loop(ideal, study="x[/y] [bold]\x1b]0;", observer=view)
        console.print(view.table())
    assert "x[/y] [bold]␛]0;" in output.getvalue()
    assert ("copied from mine [/old] [bold]<img src=x onerror=alert(1)>␛[31m" in output.getvalue()) is not is_terminal
    said = note(generations(second)[0])
    assert said.startswith(r"Copied from mine \[/old\] \[bold\]\<img src=x onerror=alert(1)\>␛\[31m gen-01, with")
    assert "<" not in said.replace(r"\<", "")
    assert "example.com" not in said
    assert "texts:" in said  # composed anew from the numbers that were copied


@pytest.mark.usefixtures("root")
def test_loops_that_differ_in_their_cycle_share_their_first_generation(ideal: LoopConfig) -> None:
    loop(ideal, study="first")
    run, watcher = watched(ideal.changed(cycle=EXPANDING), study="second")
    assert watcher.fitted == [2]
    assert [generation.tag("copied_from") is None for generation in generations(run)] == [False, True]


@pytest.mark.usefixtures("root")
def test_a_new_loop_computes_everything_itself(ideal: LoopConfig) -> None:
    first = loop(ideal)
    again, watcher = watched(ideal, new=True)
    assert watcher.fitted == [1, 2]
    assert again.id != first.id
    assert not any(generation.tag("copied_from") for generation in generations(again))


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_only_what_the_same_software_and_processor_computed_is_copied(
    ideal: LoopConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop(ideal, study="first")
    with monkeypatch.context() as patch:
        patch.setattr(cache, "processor", lambda: "another")
        assert watched(ideal, study="second")[1].fitted == [1, 2]
    assert watched(ideal, study="third")[1].fitted == []


def artifact(generation: Run, name: str) -> Path:
    return Path(generation.entity.info.artifact_uri.removeprefix("file://")) / name


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted"])
def test_what_is_damaged_is_computed_again(ideal: LoopConfig, damage: str) -> None:
    first = loop(ideal, study="first")
    whole = sampled(first)
    path = artifact(generations(first)[1], "samples.tsv.gz")
    content, middle = path.read_bytes(), len(path.read_bytes()) // 2
    if damage == "deleted":
        path.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes(content[:-7] if damage == "truncated" else flipped)
    second, watcher = watched(ideal, study="second")
    assert watcher.fitted == [2]
    assert sampled(second) == whole
    assert watched(ideal, study="third")[1].fitted == []  # from the second one now


@pytest.mark.usefixtures("root")
def test_what_was_deleted_or_did_not_finish_is_not_copied(ideal: LoopConfig) -> None:
    first = loop(ideal, study="first")
    killed, deleted = generations(first)
    killed.end("KILLED")
    first.store.client.delete_run(deleted.id)
    assert watched(ideal, study="second")[1].fitted == [1, 2]


@pytest.mark.usefixtures("root")
def test_what_was_interrupted_is_not_there_and_what_was_finished_is(ideal: LoopConfig) -> None:
    with pytest.raises(Interrupted):
        loop(ideal, study="first", observer=StopAfter(2, "record"))
    assert watched(ideal, study="second")[1].fitted == [2]


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_copy_needs_the_weights_that_its_loop_keeps(tiny: LoopConfig) -> None:
    loop(tiny.changed(keep_weights="none"), study="first")
    run, watcher = watched(tiny.changed(keep_weights="last"), study="second")
    assert watcher.fitted == [3]
    assert generations(run)[-1].model_id is not None
    assert watched(tiny.changed(keep_weights="last"), study="third")[1].fitted == []
    assert watched(tiny.changed(keep_weights="none"), study="fourth")[1].fitted == []


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_weights_that_are_gone_are_computed_again(tiny: LoopConfig) -> None:
    first = loop(tiny.changed(num_generations=1, keep_weights="last"), study="first")
    (only,) = generations(first)
    place = only.store.client.get_logged_model(only.model_id or "").artifact_location
    shutil.rmtree(place.removeprefix("file://"))
    second, watcher = watched(tiny.changed(num_generations=1, keep_weights="last"), study="second")
    assert watcher.fitted == [1]
    assert model_bytes(generations(second)[0])
    assert sampled(second) == sampled(first)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_generation_is_no_copy_of_itself(ideal: LoopConfig) -> None:
    """A damaged one that is taken up again is what its key leads to."""
    with pytest.raises(Interrupted):
        loop(ideal, observer=StopAfter(2, "train"))
    (run,) = Store.open().find(level="loop")
    path = artifact(generations(run)[0], "samples.tsv.gz")
    path.write_bytes(path.read_bytes()[:-7])
    again, watcher = watched(ideal)
    assert (again.id, watcher.fitted) == (run.id, [1, 2])
    assert not any(generation.tag("copied_from") for generation in generations(again))


@pytest.mark.usefixtures("root")
def test_forgotten_is_computed(ideal: LoopConfig) -> None:
    """What the tests of resumption rest on."""
    loop(ideal, study="first")
    forget()
    assert watched(ideal, study="second")[1].fitted == [1, 2]


def test_two_generations_are_equal_wherever_they_are_from() -> None:
    made = cache.Generation(Dataset.of(["True"], Source.SAMPLED, 1), None, {"a": 1.0}, {}, "", {}, None)
    assert replace(made, source="first loop gen-01") == made


# Several processes


def process(body: str, study: str) -> subprocess.Popen[str]:
    """A loop of its own process, in which `body` may change how a generation is computed."""
    code = f"""
import sys, time
from ouroloop.config import LoopConfig
from ouroloop.loop import loop
from ouroloop.record.track import Store
config = LoopConfig.model_validate({IDEAL!r}).changed(num_generations=1)
compute = loop.compute
def slowly(*arguments):
    print("computes", flush=True)
    {body}
    return compute(*arguments)
loop.compute = slowly
run = loop.run_loop(config, Store.open(), name="loop", study={study!r})
print("done", flush=True)
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_processes_that_want_the_same_compute_it_once() -> None:
    processes = [process("time.sleep(5)", f"study-{i}") for i in range(3)]
    outputs = sorted(process.communicate(timeout=200)[0] for process in processes)
    assert outputs == ["computes\ndone\n", "done\n", "done\n"]
    copies = [run.tag("copied_from") for run in Store.open().find(level="generation")]
    assert len(copies) == 3
    assert copies.count(None) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_dies_while_computing_holds_up_nobody(number: signal.Signals) -> None:
    first = process("time.sleep(600)", "first")
    assert first.stdout is not None
    assert first.stdout.readline() == "computes\n"
    second = process("pass", "second")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=15)  # it waits for what the first one is at
    os.kill(first.pid, number)
    assert second.communicate(timeout=100)[0] == "computes\ndone\n"
    first.communicate()
    assert first.returncode == -number
