"""The Python face: what the commands do, without a shell, a checkout, or an import that takes seconds."""

import math
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

import ouroloop
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
    stages = {run.tag("stage") for run in loop.loops[0].generations}
    for stage in stages:
        assert stage is not None
        assert loop.model(stage).generation is not None
    with pytest.raises(LookupError, match="no weights of 77"):
        loop.model(77)


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
    page = results.report(tmp_path / "page")
    assert page.is_file()
    assert (page.parent / "metrics.csv").is_file()


@pytest.mark.usefixtures("root")
def test_bad_input_is_an_error_of_one_line(tiny_config: ouroloop.LoopConfig) -> None:
    with pytest.raises(ouroloop.ConfigError, match="num_generation"):
        ouroloop.run("smoke", num_generation=3)
    with pytest.raises(ouroloop.ConfigError, match="use `ouroloop sweep"):
        ouroloop.run("sweep-smoke")
    ouroloop.run(tiny_config, show=False)
    with pytest.raises(ouroloop.ConfigError, match="no study or loop"):
        ouroloop.load("never")
    assert isinstance(ouroloop.load_preset("sweep-smoke"), ouroloop.StudyConfig)
    assert ouroloop.load_preset("smoke", {"data.max_depth": 4}).data.max_depth == 4
    with pytest.raises(AttributeError):
        _ = ouroloop.nothing
