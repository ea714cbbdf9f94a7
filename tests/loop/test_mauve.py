"""MAUVE in a loop, by the command line: beside real text, the same when killed, and refused before anything runs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ouroloop.config import LoopConfig
from ouroloop.loop import cache
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report.folder import write_report
from ouroloop.report.results import read_results
from ouroloop.science import likeness
from tests.conftest import CommandLine, Done
from tests.learner.network.test_pretrained import folder, pickled
from tests.loop.loops import StopAfter, forget, loop, outcome

NAMES = ("mauve", "control_mauve")


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("mauve", exc_type=ImportError)


@pytest.fixture
def mine(root: Path) -> Path:
    """A preset of the ideal learner: what it learns by changes nothing in how its texts are read."""
    corpus, path = root / "corpus.txt", root / "mine.yaml"
    corpus.write_text("\n".join(f"The cat {i} sat on {i % 7} of {i % 11} mats." for i in range(150)))
    data = {"kind": "text", "path": str(corpus), "num_examples": 60, "num_held_out": 25, "compared_tokens": 100,
            "mauve_model": str(folder("gpt2, no pad"))}  # fmt: skip
    path.write_text(yaml.safe_dump({"num_generations": 3, "data": data, "model": {"kind": "empirical"}}))
    return path


def only(store: Store) -> Run:
    (run,) = store.find(level="loop")
    return run


@pytest.mark.heavy
def test_it_stands_beside_real_text_in_record_and_report(mine: Path, root: Path, ouroloop: CommandLine) -> None:
    done = ouroloop("run", str(mine))
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    run = only(Store.open())
    by_step = dict(run.history("mauve"))
    assert by_step.keys() == {0, 1, 2, 3}
    assert [step for step, _ in run.history("control_mauve")] == [0]
    assert all(0 < value <= 1 for value in (*by_step.values(), run.metrics["control_mauve"]))
    params = run.store.client.get_run(run.id).data.params
    assert (
        params["data.mauve_revision"]
        == LoopConfig.model_validate(yaml.safe_load(mine.read_text())).pinned().data.mauve_revision
    )  # type: ignore[union-attr]
    page = write_report(read_results(Store.open(), "mine"), root / "report").read_text()
    assert "MAUVE" in page
    rows = [row for row in (root / "report" / "measures.csv").read_text().splitlines() if row.startswith("mauve,")]
    assert len(rows) == 3
    assert "already complete" in ouroloop("run", str(mine)).stdout


@pytest.mark.heavy
def test_a_killed_loop_comes_to_the_same(mine: Path) -> None:
    config = LoopConfig.model_validate(yaml.safe_load(mine.read_text()))
    undisturbed = outcome(loop(config, study="undisturbed"))
    assert undisturbed.keys() >= {*NAMES}
    forget()
    with pytest.raises(Interrupted):
        loop(config, study="disturbed", observer=StopAfter(2, "measure"))
    assert outcome(loop(config, study="disturbed")) == undisturbed


@pytest.mark.heavy
def test_it_changes_nothing_else_and_nothing_where_it_is_left_out(mine: Path, tmp_path: Path) -> None:
    config = LoopConfig.model_validate(yaml.safe_load(mine.read_text()))
    plain = config.changed(data={"mauve_model": None})
    given = plain.identity()["data"]
    assert not [key for key in given if "mauve" in key]
    assert config.fingerprint() != plain.fingerprint()
    copy = shutil.copytree(folder("gpt2, no pad"), tmp_path / "copy")
    elsewhere = config.changed(data={"mauve_model": str(copy)})
    assert elsewhere.fingerprint() == config.fingerprint() == elsewhere.pinned().fingerprint()
    assert config.label == plain.label

    measured, without = outcome(loop(config, study="with")), outcome(loop(plain, study="without"))
    assert {key: value for key, value in measured.items() if key not in NAMES} == without


def test_its_libraries_are_part_of_the_key_where_it_is_asked_for(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LoopConfig.model_validate(yaml.safe_load(mine.read_text()))
    asked = list[tuple[str, ...]]()
    monkeypatch.setattr(cache, "packages", lambda *more: asked.append(more) or {})
    loop(config, study="with")
    loop(config.changed(data={"mauve_model": None}), study="without")
    assert asked == [likeness.LIBRARIES] * 3 + [()] * 3


BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "no folder": (
        lambda root: ["--data.mauve_model=nowhere"],
        "no folder 'nowhere'; a model on the hub needs data.mauve_revision, its commit in 40 digits",
    ),
    "pickled weights alone": (lambda root: [f"--data.mauve_model={pickled(root)}"], "nothing is unpickled"),
    "another revision": (lambda root: [f"--data.mauve_revision={'a' * 40}"], "has changed: its revision is"),
    "a revision of nothing": (
        lambda root: ["--data.mauve_model=null", "--data.mauve_revision=x"],
        "mauve_revision is the revision of data.mauve_model, which is null",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_nothing_is_recorded(
    what: str, mine: Path, root: Path, ouroloop: CommandLine
) -> None:
    make, message = BAD[what]
    refused(ouroloop("run", str(mine), *make(root)), message)


def refused(done: Done, message: str) -> None:
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert re.search(message, line)
    assert not Store.open().find(level="loop")


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_without_the_library_nothing_runs(
    command: str, mine: Path, root: Path, ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "find_spec", lambda name: None)
    path = mine
    if command == "sweep":
        path = root / "study.yaml"
        path.write_text(
            json.dumps({"kind": "grid", "cycles": ["full_synthetic"], "seeds": [1], "loop": {"base": str(mine)}})
        )
    refused(ouroloop(command, str(path)), r"data.mauve_model needs mauve-text: pip install 'ouroloop\[mauve\]'$")
