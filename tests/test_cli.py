"""The command line as a person types it: real stores, real signals, exit codes and one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import PreTrainedModel

from ouroloop.config import SamplingConfig
from ouroloop.learner.network import sampling as sampling
from ouroloop.record.track import Store
from ouroloop.study.status import status_table
from tests.conftest import REPOSITORY, TINY, CommandLine


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A working directory with a tiny loop and a tiny study as presets."""
    folder = tmp_path / "elsewhere"
    (folder / "experiments").mkdir(parents=True)
    study = {"synthetic_proportions": [0.0, 1.0], "seeds": [5], "loop": {"base": "tiny"}}
    (folder / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "experiments" / "tiny-study.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no-such-preset"], "no preset 'no-such-preset'"),
        (["sweep", "no-such-preset"], "no preset 'no-such-preset'"),
        (
            ["run", "smoke", "--cycle.knid=balanced"],
            "unknown key 'cycle.knid'; allowed here: kind, synthetic_proportion",
        ),
        (
            ["run", "smoke", "--cycle.kind=incremental", "--cycle.synthetic_proportion=1.5"],
            "got 1.5, allowed is less than",
        ),
        (["run", "smoke", "--data.num_examples=0"], "data.num_examples: got 0"),
        (["run", "smoke", "--data.num_examples=50000"], "must be at most 44,315"),
        (["run", "smoke", "balanced"], "unknown argument 'balanced'"),
        (["run", "smoke", "--verbose"], "unknown argument '--verbose'"),
        (["sweep", "sweep-smoke", "--synthetic_proportions=[0, 1.5]"], "synthetic_proportions.1: got 1.5"),
        (["run", "smoke", "--dry-run", "--model.model_type=no-such"], "model 'no-such'"),
        (["run", "smoke", "--model.model_type=bert"], "bert"),
        (["run", "smoke", "--model.options.activation_function=nope"], "nope"),
        (["sweep", "sweep-smoke", "--workers=0"], "'0' is not a whole number above 0"),
        (["register", "a'b"], 'no study or preset "a\'b" has run'),
        (["register", "a'b\""], "a name may have ' or \" in it, not both"),
        (["run", "smoke", "--train.precision=16-mixed", "--train.muon_learning_rate=0.01"], "choose bf16-mixed"),
        (["walk"], "invalid choice: 'walk'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(ouroloop: CommandLine, arguments: list[str], message: str) -> None:
    done = ouroloop(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_read_only_folder_ends_with_2(ouroloop: CommandLine, root: Path) -> None:
    (root / "mlruns").chmod(0o555)
    try:
        done = ouroloop("run", "smoke")
    finally:
        (root / "mlruns").chmod(0o755)
    assert done.returncode == 2
    assert f"cannot write to {root / 'mlruns'}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_corrupt_preset_ends_with_2(ouroloop: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.yaml"
    path.write_text("seed: 1\ndata: {num_examples: [}\n")
    done = ouroloop("run", str(path))
    assert (done.returncode, done.stderr) == (2, f"ouroloop: {path} is not valid YAML, line 2\n")


def test_help_imports_no_machinery() -> None:
    code = (
        "import sys; from ouroloop.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'mlflow', 'optuna', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "\n"
    assert all(command in done.stdout for command in ("run", "sweep", "status", "ui"))


@pytest.mark.usefixtures("root")
def test_status_imports_neither_torch_nor_mlflow(collapsing_root: Path) -> None:
    code = (
        "import sys; from ouroloop.cli import main; main(['status'])\n"
        "sys.exit(' '.join({'torch', 'mlflow', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    environment = os.environ | {"OUROLOOP_ROOT": str(collapsing_root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "collapsing: 4 done" in done.stdout
    assert done.stderr == "\n"


def test_dry_run_shows_everything_and_runs_nothing(ouroloop: CommandLine, root: Path) -> None:
    small = ["--train.batch_size=2", "--sampling.batch_size=64"]
    done = ouroloop("run", "paper", "--dry-run", "--seed=9", *small)
    assert done.returncode == 0
    assert "seed = 9" in done.stdout
    assert "data.num_examples = 10000" in done.stdout
    assert "10,6" in done.stdout.splitlines()[-2]
    assert "a kept model 43.0" in done.stdout.splitlines()[-1]  # 4 bytes for each parameter, positions included
    assert Store.open().find(level="loop") == []


def figures() -> list[Any]:
    """Those with a network time real steps of it, at the paper's scale for half a minute."""
    names = sorted(path.stem for path in (REPOSITORY / "experiments").glob("fig*.yaml"))
    return [pytest.param(name, marks=[] if name == "fig5-ideal" else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("preset", figures())
def test_every_figure_can_be_run(ouroloop: CommandLine, preset: str) -> None:
    done = ouroloop("sweep", preset, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert " loops of " in done.stdout


def test_a_study_of_the_ideal_learner(ouroloop: CommandLine, presets: Path) -> None:
    """Through sweep, status, report and resume; there is no network to wait for and none to record."""
    study = {"base": "tiny-study", "loop": {"model": {"kind": "empirical"}, "train": None}}
    (presets / "experiments" / "tiny-ideal.yaml").write_text(yaml.safe_dump(study))
    first = ouroloop("sweep", "tiny-ideal", cwd=presets)
    assert first.returncode == 0, first.stderr
    loops = Store.open().find(level="loop", study="tiny-ideal")
    assert [loop.status for loop in loops] == ["FINISHED"] * 2
    assert {loop.tag("model") for loop in loops} == {"empirical"}
    again = ouroloop("sweep", "tiny-ideal", cwd=presets)
    assert again.returncode == 0
    assert len(Store.open().find(level="loop", study="tiny-ideal")) == 2
    assert "2 done" in ouroloop("status", "tiny-ideal", cwd=presets).stdout
    assert ouroloop("report", "tiny-ideal", cwd=presets).returncode == 0


def test_a_real_process_runs_a_loop_and_the_same_command_reports_it(
    ouroloop: CommandLine, presets: Path, root: Path
) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny"]
    first = subprocess.run(command, cwd=presets, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "generation   3/3" in first.stdout
    again = ouroloop("run", "tiny", cwd=presets)
    assert again.stdout.count("from the record") == 3
    store = Store.open()
    assert len(store.find(level="loop", study="tiny")) == 1
    assert ouroloop("run", "tiny", "--new", cwd=presets).returncode == 0
    assert len(store.find(level="loop", study="tiny")) == 2


def test_the_status_fits_a_terminal_of_80_columns() -> None:
    """The longest name that a figure has, and an error, which is wrapped and not cut."""
    name = "incremental-0.25-empirical-T0.8-s1"
    loop = {"loop": name, "state": "runs", "generation": 50, "num_generations": 50, "error": None, "worker": None}
    loops = [loop | {"diversity_retention": [1.0] * 50}, loop | {"diversity_retention": [], "error": "no room " * 9}]
    record = {"study": "fig5-t1-ideal", "kind": "grid", "loops": loops, "seconds_left": 61.0}
    console = Console(width=80, file=StringIO(), force_terminal=False)
    console.print(status_table([record, record]))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "…" not in shown
    assert shown.count(name) == 4
    assert shown.count("fig5-t1-ideal") == 4  # above its loops, and below the table with their number
    assert "fig5-t1-ideal: 2 runs; about 1:01 left" in shown
    assert shown.count("room") == 18
    assert max(map(len, shown.splitlines())) <= 80


def test_sweep_with_two_workers_and_the_same_command_again(ouroloop: CommandLine, presets: Path) -> None:
    done = ouroloop("sweep", "tiny-study", "--workers=2", cwd=presets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "incremental-0-T0.8-s5" in done.stdout
    assert "generation   3/3" in done.stdout  # progress of the workers, though this is no terminal
    store = Store.open()
    (study,) = store.find(level="study", study="tiny-study")
    assert study.status == "FINISHED"
    loops = store.find(level="loop", parent=study.id)
    assert {run.tag("synthetic_proportion") for run in loops} == {"0", "1"}
    assert all(len(store.find(level="generation", parent=run.id)) == 3 for run in loops)
    path = store.client.download_artifacts(study.id, "results.json")
    assert [row[1] for row in json.loads(Path(path).read_text())["data"]] == ["0", "1"]

    assert "tiny-study: 2 done" in ouroloop("status", cwd=presets).stdout
    (record,) = json.loads(ouroloop("status", "tiny-study", "--json", cwd=presets).stdout)
    assert [(loop["state"], loop["generation"]) for loop in record["loops"]] == [("done", 3)] * 2
    assert ouroloop("status", "other", cwd=presets).returncode == 2
    refused = ouroloop("sweep", "tiny-study", "--loop.train.num_steps=13", cwd=presets)
    assert refused.returncode == 2
    assert "loop.train.num_steps (12 before, 13 now)" in refused.stderr
    extended = ouroloop("sweep", "tiny-study", "--synthetic_proportions=[0.0, 0.5, 1.0]", cwd=presets)
    assert extended.returncode == 0, extended.stderr
    assert len(Store.open().find(level="loop", study="tiny-study")) == 3


def test_a_loop_that_fails_is_failed_and_the_others_go_on(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sampling.sample_with_nats

    def explode(
        model: PreTrainedModel, count: int, config: SamplingConfig, *rest: Any
    ) -> tuple[list[str], list[float]]:
        if config.temperature == 1:
            raise FloatingPointError("diverged")
        return real(model, count, config, *rest)

    monkeypatch.setattr(sampling, "sample_with_nats", explode)
    arguments = ["sweep", "tiny-study", "--temperatures=[0.8, 1.0]", "--synthetic_proportions=[0.5]"]
    done = ouroloop(*arguments, cwd=presets)
    assert done.returncode == 1
    assert "incremental-0.5-T1-s5 failed: FloatingPointError: diverged" in done.stdout
    store = Store.open()
    assert {run.tag("temperature"): run.status for run in store.find(level="loop")} == {
        "0.8": "FINISHED",
        "1": "FAILED",
    }
    assert "0 failed" in done.stdout
    assert "100.0%   0.0%" not in done.stdout  # D_0 is all correct, and is nobody's result
    assert [run.status for run in store.find(level="study")] == ["FAILED"]
    (record,) = json.loads(ouroloop("status", "tiny-study", "--json", cwd=presets).stdout)
    assert [loop["error"] for loop in record["loops"]] == [None, "FloatingPointError: diverged"]
    monkeypatch.setattr(sampling, "sample_with_nats", real)
    assert ouroloop(*arguments, cwd=presets).returncode == 0  # the same command runs just what failed
    assert {run.status for run in Store.open().find(study="tiny-study")} == {"FINISHED"}


_IDEAL = ["--model.kind=empirical", "--train=null"]  # whose process has no torch to import


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, []), (signal.SIGTERM, _IDEAL)])
def test_a_signal_closes_the_runs_and_the_same_command_goes_on(
    presets: Path, root: Path, number: int, options: list[str]
) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny", "--num_generations=60", *options]
    process = subprocess.Popen(command, cwd=presets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "generation   2/60" in line:
            break
    time.sleep(0.1)
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=30) == 128 + number, rest
    process.stdout.close()
    store = Store.open()
    (run,) = store.find(level="loop", study="tiny")
    children = store.find(level="generation", parent=run.id)
    assert run.status == "KILLED"
    assert {child.status for child in children} <= {"FINISHED", "KILLED"}
    assert not store.running()


def test_a_killed_process_leaves_nothing_running_after_the_next_start(ouroloop: CommandLine, presets: Path) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny", "--num_generations=60", *_IDEAL]
    process = subprocess.Popen(command, cwd=presets, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "generation   2/60" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(Store.open().running()) >= 1
    assert ouroloop("run", "tiny", cwd=presets).returncode == 0  # another loop: this one is not resumed
    assert Store.open().running() == []


def test_the_papers_model_takes_real_steps_on_a_cpu(ouroloop: CommandLine) -> None:
    small = "--num_generations=1 --data.num_examples=24 --train.num_steps=3 --train.validate_every=3"
    done = ouroloop("run", "paper", *small.split(), "--train.batch_size=8")
    assert done.returncode == 0, done.stderr
    (generation,) = Store.open().find(level="generation", study="paper")
    assert generation.metrics["unique_fraction"] * 24 == generation.metrics["num_unique"]
    assert [step for step, _ in generation.history("train_loss_nats_per_token")] == [1, 2, 3]


def test_a_study_is_described_by_its_cells(ouroloop: CommandLine) -> None:
    done = ouroloop("sweep", "sweep-smoke", "--dry-run", cwd=REPOSITORY)
    assert done.returncode == 0
    assert "3 loops of 8 generations" in done.stdout
