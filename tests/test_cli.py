"""The command line as a person types it: real stores, real signals, exit codes and one-line errors."""

import json
import os
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from ouroloop.config import LoopConfig, SamplingConfig
from ouroloop.console import LoopView, fitted
from ouroloop.learner.base import Samples
from ouroloop.learner.network import sampling as sampling
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.study.status import fitted_status, status_table
from ouroloop.testbed.base import Tokenizer
from tests.conftest import IDEAL_LOOP, REPOSITORY, TINY, CommandLine, copy_store

GPT2 = ["--model.model_type=gpt2"]
_IDEAL = ["--model.kind=empirical", "--train=null"]  # whose process has no torch to import


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
        (["run", "no-such-preset"], "no preset 'no-such-preset'; there are: "),
        (["run", "smok"], "no preset 'smok' (did you mean smoke?); there are: "),
        (["sweep", "no-such-preset"], "no preset 'no-such-preset'; there are: "),
        (["config", "smok"], "no preset 'smok' (did you mean smoke?); there are: "),
        (["run", "sweep-smoke"], "sweep-smoke is a study: use `ouroloop sweep sweep-smoke`"),
        (["run", "sweep-smoke", "--seeds=[1]"], "sweep-smoke is a study: use `ouroloop sweep sweep-smoke`"),
        (["sweep", "smoke", "--model.kind=empirical"], "smoke is a loop: use `ouroloop run smoke`"),
        (["run", "smoke", "--seeds=[1]"], "unknown key 'seeds' (did you mean seed?)"),
        (["run", "smoke", "--T=1"], "unknown option '--T' (did you mean --sampling.temperature?)"),
        (["run", "smoke", "--lambda=0.5"], "(did you mean --cycle.synthetic_proportion?)"),
        (["sweep", "sweep-smoke", "--λ=[0.5]"], "(did you mean --synthetic_proportions?)"),
        (["sweep", "sweep-smoke", "--m=50"], "(did you mean --loop.data.num_examples?)"),
        (["sweep", "sweep-smoke", "--on=slurm"], "Invalid value for '--on': 'slurm' is not one of 'local', 'ray'"),
        (["run", "smoke", "train.targets=soft"], "got 'train.targets=soft', allowed is --train.targets=soft"),
        (
            ["run", "smoke", "--curation.steps=[weihted]"],
            "got 'weihted' (did you mean weighted?), allowed is archived, ",
        ),
        (["run", "smoke", "--curation.steps=[{name:unique}]"], "{name: …} with its fields, a space after each colon"),
        (["run", "smoke", "--curation.steps=unique"], "got 'unique', allowed is a list, each text, or keys and values"),
        (
            ["run", "smoke", "--cycle.knid=balanced"],
            "unknown option '--cycle.knid' (did you mean --cycle.kind?); allowed here: kind, synthetic_proportion",
        ),
        (["run", "smoke", "--cycle.synthetic_propotion=0.5"], "(did you mean --cycle.synthetic_proportion?)"),
        (["run", "smoke", "--cycle.synthetic_propotion", "0.5"], "(did you mean --cycle.synthetic_proportion?)"),
        (["sweep", "sweep-smoke", "--loop.trian.num_steps=5"], "(did you mean --loop.train.num_steps?)"),
        (["run", "smoke", "--seed=abc"], "seed: got 'abc', allowed is a whole number from 0 to 2147483647"),
        (["run", "smoke", "--seed", "-3"], "seed: got -3, allowed is a whole number from 0 to 2147483647"),
        (["run", "smoke", "--seed"], "--seed needs a value: --seed=VALUE"),
        (["run", "smoke", "--seed", "--new"], "--seed needs a value: --seed=VALUE"),
        (
            ["run", "smoke", "--cycle.kind=incremental", "--cycle.synthetic_proportion=1.5"],
            "got 1.5, allowed is a number from 0 to 1",
        ),
        (["run", "smoke", "--data.num_examples=0"], "data.num_examples: got 0, allowed is a whole number from 2 to"),
        (["run", "smoke", "--data.num_examples=50000"], "must be at most 44,315"),
        (["run", "smoke", "balanced"], "unexpected extra argument(s) (balanced); see ouroloop run --help"),
        (
            ["run", "smoke", "--verbose"],
            "unknown option '--verbose'; allowed here: --help, --dry-run, --new, --name, descr",
        ),
        (["run", "smoke", "--dryrun"], "unknown option '--dryrun' (did you mean --dry-run?)"),
        (["run", "smoke", "-x"], "No such option: -x; see ouroloop run --help"),
        (["run", "smoke", "--new=yes"], "'--new' does not take a value"),
        (["sweep", "sweep-smoke", "--synthetic_proportions=[0, 1.5]"], "synthetic_proportions.1: got 1.5"),
        (["run", "smoke", "--dry-run", "--model.model_type=gtp2"], "model 'gtp2' is unknown to transformers (did you"),
        (["run", "smoke", "--model.model_type=bert"], "model 'bert' is not causal"),
        (["run", "smoke", "--model.model_type=gpt_neo"], "model 'gpt_neo': "),
        (["run", "smoke", "--model.model_type=mamba2"], "model 'mamba2': "),
        (["run", "smoke", *GPT2, "--model.options.activation_function=nope"], "nope"),
        (["run", "smoke", *GPT2, "--model.options.activation_functoin=relu"], "(did you mean activation_function?)"),
        (["run", "smoke", *GPT2, "--model.options.initializer_range=1"], "'initializer_range' expected float, got int"),
        (["run", "smoke", *GPT2, "--model.options.n_inner=-5"], "negative dimension -5"),
        (["run", "smoke", *GPT2, "--model.options.to_dict=1"], "model.options: gpt2 has no option 'to_dict'"),
        (["sweep", "sweep-smoke", "--workers=0"], "'0' is not a whole number from 1 to 999999999"),
        (["register", "a'b"], 'no study or loop "a\'b" has run'),
        (["report", "nothing"], "no study or loop 'nothing' has run"),
        (["status", "nothing"], "no study 'nothing'; there are: none"),
        (["status", "--jsno"], "unknown option '--jsno' (did you mean --json?); allowed here: --help, --json"),
        (["compare", "a", "b", "c"], "compare takes a study or two models, not 3 names"),
        (["run", "smoke", "--train.precision=16-mixed", "--train.muon_learning_rate=0.01"], "choose bf16-mixed"),
        (["run", "smoke", "--train.num_teachers=3"], "need soft targets"),
        (["run", "smoke", "--train.extrapolation=0.5"], "choose start=previous"),
        (["clean"], "Missing option '--older-than'; see ouroloop clean --help"),
        (["run"], "Missing argument 'PRESET'; see ouroloop run --help"),
        (["walk"], "no command 'walk'; there are: run, sweep, leaderboard, config, "),
        (["swep"], "no command 'swep' (did you mean sweep?); there are: "),
        (["--verson"], "--version"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(ouroloop: CommandLine, arguments: list[str], message: str) -> None:
    done = ouroloop(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("ouroloop: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can do what is asked")
@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        ("--train.accelerator=gpu", "this machine cannot train with train.accelerator="),
        ("--train.accelerator=mps", "this machine cannot train with train.accelerator="),
        ("--train.strategy=fsdp", "train.muon_learning_rate needs whole matrices, which train.strategy=fsdp splits"),
        (
            "--train.strategy=fsdp --train.muon_learning_rate=null",
            "train.strategy=fsdp splits a model across devices: train.devices must be at least 2",
        ),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_what_needs_another_machine_is_refused_before_anything_is_recorded(
    ouroloop: CommandLine, option: str, refusal: str, dry_run: list[str]
) -> None:
    of_loop, of_study = option.split(), option.replace("train.", "loop.train.").split()
    for command in (["run", "smoke", *of_loop], ["sweep", "sweep-smoke", *of_study]):
        done = ouroloop(*command, *dry_run)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert refusal in done.stderr
    assert Store.open().find() == []


def test_an_override_may_be_one_word_or_two(ouroloop: CommandLine) -> None:
    ideal = ["--model.kind=empirical", "--train", "null"]
    apart = ouroloop("run", "--seed", "3", "smoke", "--cycle.kind", "incremental", "--dry-run", *ideal,
                     "--cycle.synthetic_proportion", "0.25", "--description", "a: b")  # fmt: skip
    together = ouroloop("run", "smoke", "--dry-run", "--seed=3", "--cycle.kind=incremental", *ideal,
                        "--cycle.synthetic_proportion=0.25", "--description=a: b")  # fmt: skip
    assert (apart.returncode, apart.stderr) == (0, "")
    assert apart.stdout.startswith("description = a: b\nseed = 3\n")
    assert "\ntrain = null\n" in apart.stdout  # as it is typed
    assert "cycle.synthetic_proportion = 0.25\n" in apart.stdout
    shown = [done.stdout.split("\nno network")[0] for done in (apart, together)]
    assert shown[0] == shown[1]


def test_a_read_only_folder_ends_with_2(ouroloop: CommandLine, root: Path) -> None:
    (root / "mlruns").chmod(0o555)
    try:
        done = ouroloop("run", "smoke")
    finally:
        (root / "mlruns").chmod(0o755)
    assert done.returncode == 2
    assert f"cannot write to {root / 'mlruns'}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_report_into_what_is_no_folder_ends_with_2(ouroloop: CommandLine, collapsing: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = ouroloop("report", "collapsing", f"--folder={tmp_path / 'taken'}")
    assert (done.returncode, done.stderr) == (2, f"ouroloop: cannot write to {tmp_path / 'taken'}: File exists\n")


def test_a_corrupt_preset_ends_with_2(ouroloop: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.yaml"
    path.write_text("seed: 1\ndata: {num_examples: [}\n")
    done = ouroloop("run", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"ouroloop: {path} is not valid YAML, line 2: ")
    assert done.stderr.count("\n") == 1


def python(code: str, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


_LARGE = {"torch", "mlflow", "optuna", "transformers", "matplotlib", "scipy", "sympy"}
_UNKNOWN = ["run x", "sweep x", "config x", "sample x", "sample models:/x@onset", "sample runs:/x", "compare x y",
            "compare x", "register x", "report x", "status x", "rnu", "run smoke --sede=3"]  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("commands", "kept_out", "code"),
    [
        (["--help", "", "--version"], {"pydantic", "numpy", "rich"}, None),
        (["run --help", "sweep --help"], {"numpy", "rich"}, 0),
        (["config fig5", "config"], set(), 0),
        (_UNKNOWN, set(), 2),
    ],
)
@pytest.mark.usefixtures("root")
def test_help_and_unknown_names_are_answered_before_anything_large_is_imported(
    commands: list[str], kept_out: set[str], code: int | None
) -> None:
    """Imports are what could cost help more than half a second, and a name that is not there more than three."""
    script = (
        "import sys; from ouroloop.cli import main\n"
        f"codes = [main(command.split()) for command in {commands}]\n"
        f"print(codes, sorted({kept_out | _LARGE} & sys.modules.keys()), sep=' loaded ', file=sys.stderr)"
    )
    codes, _, loaded = python(script).stderr.splitlines()[-1].partition(" loaded ")
    assert loaded == "[]"
    if code is not None:
        assert codes == str([code] * len(commands))


def test_help_lists_commands_and_presets(ouroloop: CommandLine) -> None:
    bare, asked = ouroloop(), ouroloop("--help")
    assert (bare.returncode, bare.stderr, bare.stdout) == (0, "", asked.stdout)
    commands = ("run", "sweep", "config", "status", "report", "register", "sample", "compare", "clean", "ui")
    assert all(f"\n  {command} " in bare.stdout for command in commands)
    run, sweep = (" ".join(ouroloop(command, "--help").stdout.split()) for command in ("run", "sweep"))
    assert "smoke Three quick generations that show every part at work. " in run
    assert "sweep-smoke" not in run
    assert "sweep-smoke A whole study in under two minutes" in sweep
    leaderboard = " ".join(ouroloop("leaderboard", "--help").stdout.split())
    assert "leaderboard What stops the collapse" in leaderboard
    assert "sweep-smoke" not in leaderboard
    assert "text-methods" not in leaderboard, "what is true there is not known"


def test_the_leaderboard_is_run_where_it_is_asked_to(ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run_study(*arguments: object) -> int:
        asked.extend(arguments[3:])
        return 1

    monkeypatch.setattr("ouroloop.study.driver.run_study", run_study)
    options = ["--on=ray", "--address=10.0.0.1:6379", "--workers=3", "--seeds=[999]"]
    assert ouroloop("leaderboard", "--learner=empirical", *options).returncode == 1
    assert asked == [3, "ray", "10.0.0.1:6379"]


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_shell_completes_commands_presets_and_studies(collapsing_root: Path) -> None:
    def completed(words: str) -> list[str]:
        environment = {"_OUROLOOP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "from ouroloop.cli import main; raise SystemExit(main([]))"
        return python(code, OUROLOOP_ROOT=str(collapsing_root), **environment).stdout.split()

    assert completed("ouroloop sw") == ["sweep"]
    assert completed("ouroloop run sm") == ["smoke"]
    assert completed("ouroloop sweep search-") == ["search-laptop", "search-smoke"]
    for command in ("register", "report", "status"):
        assert completed(f"ouroloop {command} c") == ["collapsing"]
    script = python("from ouroloop.cli import main; main(['--show-completion'])", SHELL="/bin/bash")
    assert "_ouroloop_completion" in script.stdout or "not supported" in script.stderr  # depends on the shell above us


def test_config_prints_every_field(ouroloop: CommandLine) -> None:
    def rows(*preset: str) -> dict[str, list[str]]:
        done = ouroloop("config", *preset)
        assert (done.returncode, done.stderr) == (0, "")
        header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert header == ["key", "value", "default", "unit", "what it is"]
        return {key: rest for key, *rest in lines}

    defaults = rows()
    assert defaults["num_generations"][:3] == ["required", "required", "generations"]
    assert defaults["sampling.temperature"][:3] == ["0.8", "0.8", "ratio"]
    smoke = rows("smoke")
    of_other_kinds = {"data.path", "data.text_column", "data.block_tokens", "data.compared_tokens", "data.num_held_out"}
    assert defaults.keys() - smoke.keys() >= of_other_kinds
    assert {key.partition(".")[0] for key in defaults.keys() - smoke.keys()} <= {"data", "model"}
    assert smoke.keys() <= defaults.keys()
    assert smoke["num_generations"][:3] == ["3", "required", "generations"]
    assert yaml.safe_load(smoke["model.options"][0]) == {"hidden_act": "relu", "use_parallel_residual": False}
    assert all(row[3] for row in smoke.values())
    of_steps = {key for key in smoke if key.startswith("curation.steps.")}
    assert smoke["curation.steps.weighted.candidates"][:3] == ["2.0", "2.0", "multiples of m"]
    assert {key.split(".")[2] for key in of_steps} >= {"archived", "edited", "original_buffer", "verified"}
    study = rows("fig5-ideal")
    assert of_steps == {key.removeprefix("loop.") for key in study if key.startswith("loop.curation.steps.")}
    assert study["seeds"][:2] == ["[1, 2, 3]", "[0]"]
    assert study["loop.model.kind"][0] == "empirical"
    assert study["loop.train"][0] == "null"
    assert "loop.model.num_layers" not in study
    assert "search.target_retention" in study


def test_config_on_a_terminal_fits_it(ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    shown = re.sub("\x1b\\[[0-9;]*m", "", ouroloop("config", "smoke").stdout)
    assert "num_generations = 3 generations  default required" in shown
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.slow
def test_other_encodings_get_replacement_characters(presets: Path, root: Path) -> None:
    code = f"from ouroloop.cli import main; raise SystemExit(main(['run', 'tiny', *{_IDEAL}]))"
    done = python(code, presets, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "diversity kept  ?" in done.stdout


@pytest.mark.heavy
@pytest.mark.parametrize(("arguments", "buffered"), [("config", ""), ("config", "1"), ("--help", "1")])
def test_nobody_reads_on_and_it_ends_quietly(arguments: str, buffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ouroloop", *arguments.split()],
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (128 + signal.SIGPIPE, 1)  # typer's own, before a command is called


def test_readers_of_an_empty_folder_create_nothing(
    ouroloop: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "nothing"
    root.mkdir()
    monkeypatch.setenv("OUROLOOP_ROOT", str(root))
    assert json.loads(ouroloop("status", "--json").stdout) == []
    assert ouroloop("leaderboard", "--show", cwd=root).returncode == 0
    for arguments in (
        "status x", "report x", "register x", "compare x", "sample models:/x@y", "clean --older-than=1d --dry-run",
        "clean --older-than=abc", "ui", "ui --port=80000", "leaderboard fig5 --show",
        "run smoke --train.accelerator=tpu",
    ):  # fmt: skip
        assert ouroloop(*arguments.split(), cwd=root).returncode == 2, arguments
    assert list(root.iterdir()) == []


@pytest.mark.heavy
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


@pytest.mark.slow
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


@pytest.mark.heavy
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


@pytest.mark.slow
def test_a_real_process_runs_a_loop_and_the_same_command_reports_it(
    ouroloop: CommandLine, presets: Path, root: Path
) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny"]
    first = subprocess.run(command, cwd=presets, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "generation   3/3" in first.stdout
    again = ouroloop("run", "tiny", cwd=presets)
    assert "already complete" in again.stdout
    assert again.stdout.count("on record") == 3
    store = Store.open()
    assert len(store.find(level="loop", study="tiny")) == 1
    assert ouroloop("run", "tiny", "--new", cwd=presets).returncode == 0
    assert len(store.find(level="loop", study="tiny")) == 2


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), force_terminal=False)
    console.print(fitted(table, console))
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_figures_stay_whole_in_a_narrow_pipe(tiny: LoopConfig, width: int) -> None:
    view = LoopView(Console(quiet=True))
    view.loop_started(tiny, "tiny-full_synthetic-T0.8-s5")
    measures = {"correctness": 1.0, "false_rate": 1.0, "error_rate": 1.0, "diversity_retention": 1.0}
    rest = {"num_unique": 10_000.0, "validation_nats": 20.25, "generation_seconds": 1234.5}
    view.generation_finished(50, measures | rest, source="")
    (row,) = [line for line in printed(view.table(), width) if " 50 " in line]
    figures = ["50", "100.0%", "100.0%", "100.0%", "100.0%", "10,000", "20.25", "1234.5"]
    shown = re.findall(r"[^ │]+", row)
    assert shown == figures[: len(shown)]
    assert len(shown) >= {200: 8, 80: 8, 60: 6, 40: 4, 20: 1}[width]
    left_out = [str(column.header) for column in view.table().columns][len(shown) :]
    said = " ".join(printed(view.table(), width)).partition("Too narrow for: ")[2]
    assert " ".join(said.split()).startswith(", ".join(left_out))


def test_what_stands_under_a_table_stays_there_when_it_gets_narrow(tiny: LoopConfig) -> None:
    view = LoopView(Console(quiet=True))
    view.loop_started(tiny, "tiny")
    assert "diversity kept" in " ".join(printed(view.table(), 20))


def test_the_bar_of_a_training_knows_its_members_and_its_length(tiny: LoopConfig) -> None:
    """Of three members with twelve steps each, and from M_2 on, which starts at M_1, five."""
    view = LoopView(Console(quiet=True))
    train = {"start": "previous", "num_tuning_steps": 5}
    view.loop_started(tiny.changed(model={"num_members": 3}, train=train), "members")
    for generation, total in ((1, 36), (2, 15)):
        view.generation_started(generation)
        view.phase_started("train")
        assert view._progress.tasks[-1].total == total


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_a_status_in_a_narrow_pipe(width: int) -> None:
    name = "incremental-0.25-empirical-T0.8-s1"
    loop = {"loop": name, "state": "runs", "generation": 50, "num_generations": 50, "error": None, "worker": None}
    record = {"study": "fig5-t1-ideal", "kind": "grid", "loops": [loop | {"diversity_retention": [1.0] * 50}]}
    lines = printed(status_table([record | {"seconds_left": 61.0}]), width)
    (row,) = [line for line in lines if "50/50" in line]
    assert "100.0%" in row
    assert ("████" in row) == (width > 40)
    column = "".join(line.split("runs")[0].strip() for line in lines[lines.index(row) :][: 34 if width < 80 else 1])
    assert "".join(re.findall("[-a-zA-Z0-9.]", column)).startswith(name)


def test_why_a_study_cannot_be_read_is_said() -> None:
    record = {"study": "mine[/x]", "kind": "unknown", "loops": [], "seconds_left": None, "error": "of another version"}
    assert printed(status_table([record]), 80)[-1].strip() == "mine[/x]: of another version"


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


def test_loops_that_are_shown_as_one_row_look_as_rows() -> None:
    loop = {"loop": "a[1]", "state": "runs", "generation": 7, "num_generations": 50, "error": None, "worker": "here:7"}
    loops = [
        loop | {"diversity_retention": [1.0]},
        loop | {"loop": "b", "diversity_retention": [], "error": "no\nroom"},
    ]
    record = {"study": "study", "kind": "grid", "loops": loops, "seconds_left": None}
    studies = [record, record | {"loops": []}, record]
    assert printed(fitted_status(studies, Console(width=200)), 200) == printed(status_table(studies), 200)
    assert len(status_table(studies, as_one=True).rows) == 5


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_loop_that_fails_is_failed_and_the_others_go_on(
    ouroloop: CommandLine, presets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sampling.sample

    def explode(
        model: PreTrainedModel, tokenizer: Tokenizer, count: int, config: SamplingConfig, *rest: Any
    ) -> Samples:
        if config.temperature == 1:
            raise FloatingPointError("diverged")
        return real(model, tokenizer, count, config, *rest)

    monkeypatch.setattr(sampling, "sample", explode)
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
    monkeypatch.setattr(sampling, "sample", real)
    assert ouroloop(*arguments, cwd=presets).returncode == 0  # the same command runs just what failed
    assert {run.status for run in Store.open().find(study="tiny-study")} == {"FINISHED"}


@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGINT, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, _IDEAL, marks=pytest.mark.heavy),
    ],
)
def test_a_signal_closes_the_runs_and_the_same_command_goes_on(
    presets: Path, root: Path, number: int, options: list[str]
) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny", "--num_generations=20", *options]
    process = subprocess.Popen(command, cwd=presets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "generation   2/20" in line:
            break
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
    _goes_on(command, presets, run)


def _goes_on(command: list[str], folder: Path, stopped: Run) -> None:
    again = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "on record" in again.stdout, "it does not start over"
    (run,) = Store.open().find(level="loop", study="tiny", fingerprint=stopped.tag("fingerprint"))
    assert (run.id, run.status, run.reached) == (stopped.id, "FINISHED", 20)
    assert [step for step, _ in run.history("correctness")] == list(range(21))


@pytest.mark.heavy
def test_a_killed_process_leaves_nothing_running_after_the_next_start_and_its_loop_goes_on(
    ouroloop: CommandLine, presets: Path
) -> None:
    command = [sys.executable, "-m", "ouroloop", "run", "tiny", "--num_generations=20", *_IDEAL]
    process = subprocess.Popen(command, cwd=presets, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "generation   2/20" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    store = Store.open()
    (killed,) = store.find(level="loop", study="tiny")
    assert killed.id in {run.id for run in store.running()}
    assert ouroloop("run", "tiny", cwd=presets).returncode == 0  # another loop: this one is not resumed
    assert Store.open().running() == []
    _goes_on(command, presets, killed)


@pytest.mark.slow
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


@pytest.mark.heavy
def test_a_folder_with_brackets_in_its_name(
    ouroloop: CommandLine, presets: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep ended in a traceback, after all was done, over the path of its report."""
    root = tmp_path / "x[" / "red]"
    copy_store(empty_store, root)
    monkeypatch.setenv("OUROLOOP_ROOT", str(root))
    study = {"synthetic_proportions": [1.0], "seeds": [5], "loop": IDEAL_LOOP}
    (presets / "experiments" / "tiny-study.yaml").write_text(yaml.safe_dump(study))
    done = ouroloop("sweep", "tiny-study", cwd=presets)
    assert done.returncode == 0, done.stderr
    assert f"Report: {root}" in done.stdout
