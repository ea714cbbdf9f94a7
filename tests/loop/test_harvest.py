"""A curation that leaves too little: said everywhere, copied with the rest, padded nowhere, a failure at its end."""

from io import StringIO

import pytest
from rich.console import Console

from ouroloop.config import LoopConfig
from ouroloop.console import LoopView
from ouroloop.learner.base import Samples
from ouroloop.learner.empirical import EmpiricalModel
from ouroloop.loop.harvest import NothingKeptError
from ouroloop.loop.observer import Observer
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.metrics import as_metrics, measure
from ouroloop.testbed.base import Sample
from tests.loop.loops import StopAfter, forget, generations, loop, note, watched

UNIQUE = {"steps": ["unique"], "max_drawn": 1.5}
SAID = "curation kept {} of the 40 texts wanted, out of 60 drawn"

pytestmark = pytest.mark.usefixtures("root")


class Listener(Observer):
    """What is said of curations that ran short."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []

    def ran_short(self, generation: int, shortfall: str) -> None:
        self.said.append((generation, shortfall))


def shortfalls(run: Run) -> list[tuple[int, str]]:
    """By generation, as said in the tag; where there is one, the note says it too."""
    found = [(t, child.tag("ran_short") or "", note(child)) for t, child in enumerate(generations(run), 1)]
    assert all(said in note for _, said, note in found)
    return [(t, said) for t, said, _ in found if said]


def test_running_short_is_said_on_the_terminal_in_the_note_and_in_a_tag_of_a_copy_too(ideal: LoopConfig) -> None:
    config, output = ideal.changed(curation=UNIQUE), StringIO()
    first, heard = loop(config, "first", listener := Listener()), listener.said
    kept = [len(child.read_dataset("curated.tsv.gz")) for child in generations(first)]
    assert max(kept) < 40
    assert heard == [(t, SAID.format(count)) for t, count in enumerate(kept, 1)] == shortfalls(first)
    with LoopView(Console(file=output, width=200)) as view:
        copied = loop(config, "second", view)
    assert all(child.tag("copied_from") for child in generations(copied))
    assert shortfalls(copied) == heard
    assert [child.tag("curated") for child in generations(copied)] == ["unique"] * len(kept)
    assert [line for line in output.getvalue().splitlines() if line.startswith("t = ")] == [
        f"t = {t}: {said}" for t, said in heard
    ]


def test_what_is_missing_makes_the_training_set_smaller(ideal: LoopConfig) -> None:
    run = loop(ideal.changed(curation=UNIQUE))
    kept = [len(child.read_dataset("curated.tsv.gz")) for child in generations(run)]
    learnt = [len(child.read_dataset("training_set.tsv.gz")) for child in generations(run)]
    assert learnt == [40, *kept[:-1]]
    assert [child.metrics["num_kept"] for child in generations(run)] == kept


def test_a_curation_that_leaves_nothing_ends_the_loop_as_failed_and_says_why(ideal: LoopConfig) -> None:
    """A verifier that is always wrong, of an ideal learner that writes what is True alone."""
    always_wrong = {"steps": [{"name": "verified", "error_rate": 1.0}]}
    with pytest.raises(NothingKeptError, match=r"D_1 has 0 examples: curation \(verified\) left nothing to learn from"):
        loop(ideal.changed(curation=always_wrong))
    (run,) = Store.open().find(level="loop")
    assert run.status == "FAILED"
    (only,) = generations(run)
    assert only.status == "FINISHED"
    assert shortfalls(run) == [(1, "curation kept 0 of the 40 texts wanted, out of 320 drawn")]
    assert only.metrics["acceptance_rate"] == 0
    assert "drawn_per_kept" not in only.metrics
    assert not any(name.startswith("curated_") for name in only.metrics)


def test_one_text_is_nothing_to_learn_from_either(ideal: LoopConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmpiricalModel, "sample", lambda _, n, __: Samples(["( not False )"] * n, [0.0] * n))
    with pytest.raises(NothingKeptError, match="D_1 has 1 examples"):
        loop(ideal.changed(curation={"steps": ["unique"]}))


def test_what_was_kept_is_measured_as_s_t_is(ideal: LoopConfig) -> None:
    run = loop(ideal.changed(curation=UNIQUE, num_generations=2))
    last = generations(run)[1]
    kept, original = (
        Sample.of(one.read_dataset(name).texts, ideal.data.testbed)
        for one, name in ((last, "curated.tsv.gz"), (run, "original_data.tsv.gz"))
    )
    found = {key.removeprefix("curated_"): v for key, v in last.metrics.items() if key.startswith("curated_")}
    assert found == pytest.approx(as_metrics(measure(kept, original)))
    assert found["num_unique"] == last.metrics["num_kept"] < 40
    assert found["unique_fraction"] == 1 != last.metrics["unique_fraction"]


def test_an_empty_curation_at_the_last_generation_is_an_outcome(ideal: LoopConfig) -> None:
    """Nothing is learnt from it any more."""
    always_wrong = {"steps": [{"name": "verified", "error_rate": 1.0}]}
    run = loop(ideal.changed(curation=always_wrong, num_generations=1))
    assert run.store.get(run.id).status == "FINISHED"


@pytest.mark.heavy
@pytest.mark.parametrize("steps", [["verified", "unique"], ["weighted"], [{"name": "original_buffer", "share": 0.1}]])
def test_a_curated_loop_goes_on_where_it_stopped_with_the_same_texts(steps: list[object], ideal: LoopConfig) -> None:
    """It harvests anew what it had begun to: nothing of the undisturbed loop is there to be copied."""
    config = ideal.changed(num_generations=4, data={"num_examples": 50}, curation={"steps": steps})
    whole = loop(config, "whole")
    forget()
    with pytest.raises(Interrupted):
        loop(config, "part", StopAfter(3, "curate"))
    resumed, watcher = watched(config, "part")
    assert watcher.fitted == [3, 4]
    texts = [[g.read_dataset("curated.tsv.gz").digest() for g in generations(run)] for run in (whole, resumed)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4
    metrics = generations(whole)[3].metrics
    assert {"acceptance_rate", "drawn_per_kept", "curate_seconds", "curated_num_unique"} <= metrics.keys()
