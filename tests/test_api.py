"""The Python face: what the commands do, without a shell, a checkout, or an import that takes seconds."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest

import ouroloop
from ouroloop.config.data import TextData
from ouroloop.record.track import Store
from ouroloop.science.metrics import RETENTION, entered, stages_of
from tests.conftest import TINY

IDEAL = {"model": {"kind": "empirical"}, "train": None}


@pytest.fixture
def tiny_config() -> ouroloop.LoopConfig:
    return ouroloop.LoopConfig.model_validate(TINY | IDEAL)


def test_importing_it_is_cheap() -> None:
    code = "import sys, ouroloop; print(*sys.modules)"
    started = perf_counter()
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert perf_counter() - started < 5  # a loaded machine; that nothing large is loaded is what makes it cheap
    assert not {"torch", "mlflow", "optuna", "transformers", "pandas", "pydantic", "rich", "numpy"} & set(loaded)


@pytest.mark.usefixtures("root")
def test_a_loop_by_preset_with_both_kinds_of_overrides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no checkout
    before = set(tmp_path.iterdir())
    changes = {"model.kind": "empirical", "train": None, "cycle.kind": "incremental"}
    results = ouroloop.run(
        "smoke", changes, cycle__synthetic_proportion=0.5, num_generations=2, data__num_examples=50, seed=9, show=False
    )
    [loop] = results.loops
    assert loop.config is not None
    assert (loop.config.seed, loop.config.cycle.synthetic_proportion, loop.reached) == (9, 0.5, 2)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("root")
def test_metrics_are_tidy_and_those_of_the_record(tiny_config: ouroloop.LoopConfig) -> None:
    results = ouroloop.run(tiny_config, name="mine", show=False)
    frame = results.metrics
    assert list(frame.columns) == ["loop", "seed", "generation", "measure", "value", "stderr"]
    assert not frame.duplicated(["loop", "generation", "measure"]).any()
    retention = frame[frame.measure == "diversity_retention"].set_index("generation")
    recorded = results.loops[0].history
    assert retention.value.to_dict() == recorded["diversity_retention"]
    assert retention.stderr.to_dict() == pytest.approx(recorded["diversity_retention_stderr"])
    assert sorted(retention.index) == [0, 1, 2, 3]
    assert math.isnan(frame[frame.measure == "num_unique"].stderr.iloc[0])
    results.loops[0].run.log_tags(seed="edited in the UI")
    again = ouroloop.load("mine")
    assert again.metrics.equals(frame)


@pytest.mark.usefixtures("root")
def test_samples_are_what_was_written(tiny_config: ouroloop.LoopConfig) -> None:
    results = ouroloop.run(tiny_config, show=False)
    written = results.samples(2)
    assert list(written.columns) == ["loop", "count", "share", "verdict", "depth", "expression"]
    assert written["count"].sum() == tiny_config.data.num_examples
    metrics = results.metrics.set_index(["generation", "measure"]).value
    assert (written.verdict == "True") @ written.share == pytest.approx(metrics[2, "correctness"])
    assert len(results.samples(0)) == tiny_config.data.num_examples  # D_0 is a unique set
    with pytest.raises(LookupError, match="no generation 9"):
        results.samples(9)


@pytest.mark.usefixtures("collapsing")
def test_models_by_generation_and_by_stage() -> None:
    study = ouroloop.load("collapsing")
    with pytest.raises(LookupError, match=study.names[0]):
        study.model("healthy")
    with pytest.raises(KeyError, match="there are"):
        study["nobody"]
    loop = study[study.names[-1]]
    last = loop.model(3)
    assert last.write(5, 1.0, "", 0) == last.write(5, 1.0, "", 0)
    [one] = loop.loops
    assert one.config is not None
    came = entered(stages_of(one.history[RETENTION], one.config.stages))
    assert len(came) > 1
    for stage, t in came.items():
        made_by = loop.model(stage).generation
        assert made_by is not None
        assert made_by.tag("generation") == str(t)
    kept = [run.tag("generation") for run in loop.loops[0].generations.values() if run.model_id]
    with pytest.raises(LookupError, match=rf"no weights of 77 are on record, only those of {kept[0]} \("):
        loop.model(77)
    assert repr(last) == f"<FoundModel '{last.name}'>"


@pytest.mark.usefixtures("root")
def test_a_loop_is_asked_for_by_its_study_and_the_ideal_learner_for_no_model(tiny_config: ouroloop.LoopConfig) -> None:
    results = ouroloop.run(tiny_config, name="ideal", show=False)
    with pytest.raises(ouroloop.ConfigError, match=r"is a loop; give its run id, or the name of its study: .*ideal"):
        ouroloop.load(results.loops[0].name)
    with pytest.raises(LookupError, match="nor any others; the ideal learner is its training set"):
        results.model(1)
    why = "it needs the weights of two stages and has none: the ideal learner is its training set"
    with pytest.warns(UserWarning, match=why):
        assert ouroloop.load("ideal").compare() == []


@pytest.mark.usefixtures("collapsing")
def test_one_noisy_generation_is_not_the_model_of_a_stage() -> None:
    """As in the registry: the next generation has to be no better."""
    loop = ouroloop.load("collapsing").loops[0]
    noisy, lasting = (replace(loop, history={RETENTION: {1: 0.9, 2: 0.25, 3: end}}) for end in (0.9, 0.25))
    assert noisy.generation("onset") is None
    found = lasting.generation("onset")
    assert found is not None
    assert found.tag("generation") == "2"
    for one in (noisy, lasting):
        assert one.generation("healthy") == one.generation(1)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_study_and_its_report(tmp_path: Path) -> None:
    preset = tmp_path / "few.yaml"
    preset.write_text(
        "synthetic_proportions: [0.0, 1.0]\nloop:\n  num_generations: 2\n  data: {num_examples: 30, max_depth: 3}\n"
        "  model: {kind: empirical}\n"
    )
    results = ouroloop.sweep(str(preset), {"seeds": [1, 2]}, show=False)
    assert len(results.loops) == 4
    assert set(results.metrics.seed) == {1, 2}
    settings = results.settings
    assert settings.loop.tolist() == results.names
    by_λ = results.metrics.merge(settings).query("measure == 'num_unique'").groupby("synthetic_proportion")
    assert by_λ.seed.unique().map(sorted).to_dict() == {0.0: [1, 2], 1.0: [1, 2]}
    assert set(settings.cycle) == {"incremental"}
    one = results[results.names[1]]
    assert one.report() != results.report()
    assert len(pd.read_csv(results.report().with_name("loops.csv"))) == 4, "one loop's page does not replace it"
    assert len(pd.read_csv(one.report().with_name("loops.csv"))) == 1
    for of_cells in (one.register, one.compare):
        with pytest.raises(ouroloop.ConfigError, match=r"is one loop, and .* by cell of a study"):
            of_cells()
    with pytest.raises(ouroloop.ConfigError, match="few has no board"):
        _ = results.board
    answered = "every λ up to 0 keeps" in (said := results.report().read_text("utf-8")) or "no λ is known" in said
    assert answered or "every λ up to 1 keeps" in said
    run = results.loops[0].run
    run.store.client.delete_run(run.id)
    said = ouroloop.load(results.name).report().read_text("utf-8")
    assert "The study has no answer now: 1 loop is no longer on record; <code>ouroloop sweep few</code>" in said
    assert "every λ up to" not in said
    run.store.client.restore_run(run.id)
    page = results.report(tmp_path / "page")
    assert page.is_file()
    assert (page.parent / "metrics.csv").is_file()


@pytest.mark.usefixtures("root")
def test_loops_whose_names_say_too_little_are_told_apart(tiny_config: ouroloop.LoopConfig) -> None:
    for m in (30, 31):
        ouroloop.run(tiny_config, data__num_examples=m, name="mine", show=False)
    results = ouroloop.load("mine")
    assert len({loop.run.name for loop in results.loops}) == 1
    assert results.names == [f"{loop.run.name} ({loop.run.id[:8]})" for loop in results.loops]
    assert [len(results[name]) for name in results] == [1, 1]
    assert len(results.metrics.merge(results.settings)) == len(results.metrics)


@pytest.mark.usefixtures("root")
def test_results_say_what_they_are_in_a_line(tiny_config: ouroloop.LoopConfig) -> None:
    results = ouroloop.run(tiny_config, name="mine", show=False)
    [name] = results
    assert name == results.loops[0].name
    assert len(results) == 1
    assert repr(results) == f"<StudyResults {name!r}: {name}>"
    assert repr(results.loops[0]) == f"<Loop {name!r}: 3 generations>"
    assert repr(ouroloop.load("mine")) == f"<StudyResults 'mine': {name}>"
    with pytest.raises(LookupError, match=f"{name} has no generation 4 on record; the last is 3"):
        results.samples(4)


def test_values_are_what_scripts_have_at_hand(tmp_path: Path) -> None:
    study = ouroloop.load_preset("sweep-smoke", seeds=range(2), synthetic_proportions=np.array([0.0, 0.5]))
    assert isinstance(study, ouroloop.StudyConfig)
    assert (study.seeds, study.synthetic_proportions) == ([0, 1], [0.0, 0.5])
    cycle = ouroloop.load_preset("smoke", {"cycle.kind": "incremental"}, cycle__synthetic_proportion=np.float32(0.5))
    assert isinstance(cycle, ouroloop.LoopConfig)
    loop = ouroloop.load_preset("text-smoke", seed=np.int64(7), data__path=tmp_path / "a.txt", cycle=cycle.cycle)
    assert isinstance(loop, ouroloop.LoopConfig)
    assert isinstance(loop.data, TextData)
    assert (loop.seed, loop.data.path, loop.cycle) == (7, str(tmp_path / "a.txt"), cycle.cycle)
    said = "a smile \U0001f642, \\ud83d as it stands, \u2028 and \u007f"
    assert ouroloop.load_preset("smoke", description=said).description == said
    preset = tmp_path / "mine.yaml"
    preset.write_text("base: smoke\nseed: 11\n")
    assert ouroloop.load_preset(preset) == ouroloop.load_preset("smoke", seed=11)
    with pytest.raises(ouroloop.ConfigError, match="seed: got <object object at"):
        ouroloop.load_preset("smoke", seed=object())


@pytest.mark.usefixtures("root")
def test_bad_input_is_an_error_of_one_line(tiny_config: ouroloop.LoopConfig) -> None:
    with pytest.raises(ouroloop.ConfigError, match="num_generation"):
        ouroloop.run("smoke", num_generation=3)
    with pytest.raises(ouroloop.ConfigError, match="use `ouroloop sweep"):
        ouroloop.run("sweep-smoke")
    ouroloop.run(tiny_config, show=False)
    with pytest.raises(ouroloop.ConfigError, match=r"no study or loop .pyton. has run .did you mean python"):
        ouroloop.load("pyton")
    study = ouroloop.load_preset("sweep-smoke")
    for wrong in (study, None):
        with pytest.raises(ouroloop.ConfigError, match="allowed is a preset, by name or path, or a LoopConfig"):
            ouroloop.run(wrong)  # type: ignore[arg-type]
    with pytest.raises(ouroloop.ConfigError, match="got 3, allowed is a preset, by name or path, or a LoopConfig"):
        ouroloop.estimate(3)  # type: ignore[arg-type]
    assert isinstance(ouroloop.load_preset("sweep-smoke"), ouroloop.StudyConfig)
    assert ouroloop.load_preset("smoke", {"data.max_depth": 4}).data.max_depth == 4
    with pytest.raises(AttributeError):
        _ = ouroloop.nothing


@pytest.mark.heavy
def test_a_plain_script_may_ask_for_several_workers(root: Path, tmp_path: Path) -> None:
    """A spawned process begins with the script that it comes from, and would call us again; a step in it is refused."""
    script = tmp_path / "plain.py"
    script.write_text(
        '''
from typing import Literal
import ouroloop
from ouroloop.science.curation.step import CurationStep

class Half(CurationStep):
    """Every second text."""
    name: Literal["half"] = "half"
    def keep(self, pool, given):
        return pool.where([i % 2 == 0 for i in range(len(pool))])

print("begun")
ideal = {"loop.model.kind": "empirical", "loop.train": None, "loop.num_generations": 2}
try:
    ouroloop.sweep("sweep-smoke", ideal, loop__curation__steps=["half"], name="refused", workers=2, show=False)
except ouroloop.ConfigError as error:
    print(error)
print(len(ouroloop.sweep("sweep-smoke", ideal, workers=2, show=False).names))
'''
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=True)
    begun, refused, number = done.stdout.splitlines()
    assert (begun, number) == ("begun", "3")
    assert refused.startswith("step 'half' is defined in the script or notebook itself")
    assert [run.tag("study") for run in Store.existing().find(level="study")] == ["sweep-smoke"]
