"""Each target of the Makefile is the command that CONTRIBUTING and README say it is."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def told(*target: str) -> str:
    """What `make` would run, were everything installed."""
    return run("make", "--dry-run", "--old-file=.venv/.installed", *target)


def run(*command: str) -> str:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # the tests' own make
    done = subprocess.run(command, cwd=REPOSITORY, env=alone, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("sweep", "ouroloop sweep sweep-smoke --workers=1"),
        ("sweep STUDY=x WORKERS=2", "ouroloop sweep x --workers=2"),
        ("run PRESET=y ARGS=--seed=3", "ouroloop run y --seed=3"),
        ("ui PORT=7", "ouroloop ui --port=7"),
        ("status", "ouroloop status"),
        ("register STUDY=x", "ouroloop register x"),
        ("report STUDY=x", "ouroloop report x"),
        ("leaderboard LEARNER=empirical", "ouroloop leaderboard --learner=empirical --workers=1"),
        ("bench ARGS=--quick", "experiments/bench.py --quick"),
        ("bench ARGS=--gpu", "experiments/bench_gpu.py --gpu"),
        ("bench ARGS=--workers", "experiments/bench_workers.py"),
    ],
)
def test_a_target_is_its_command(target: str, command: str) -> None:
    assert any(line.rstrip().endswith(command) for line in told(*target.split()).splitlines())


def test_without_a_target_all_of_them_are_listed() -> None:
    said = run("make")
    phony = next(line for line in (REPOSITORY / "Makefile").read_text().splitlines() if line.startswith(".PHONY"))
    assert {line.split()[1] for line in said.splitlines()} == set(phony.split()[1:])


def test_clean_removes_caches_alone() -> None:
    removed = told("clean")
    assert "rm -rf .ruff_cache" in removed
    assert "mlruns" not in removed
    assert ".venv" not in removed
