"""The command `leaderboard`: what it runs of a study, what stays on record, and what stays in the file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ouroloop as python
from ouroloop.study import driver
from tests.conftest import CommandLine

METHODS: dict[str, Any] = {
    "baseline": {},
    "unique": {"changes": {"curation": {"steps": ["unique"]}}, "cycles": ["full_synthetic"]},
    "verified": {"changes": {"curation": {"steps": ["verified"]}}},
}
BOARD = {
    "cycles": ["full_synthetic", "incremental"],
    "synthetic_proportions": {"incremental": [0.5]},
    "seeds": [1],
    "loop": {"num_generations": 2, "data": {"num_examples": 20}, "model": {"kind": "empirical"}},
    "methods": METHODS,
}


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "board.yaml"
    path.write_text(json.dumps(BOARD))
    return str(path)


def _loops(file: Path) -> set[tuple[str, str]]:
    return {(one["method"], one["cycle"]) for one in json.loads(file.read_text())["loops"]}


def _on_record() -> set[tuple[str, str]]:
    table = python.load("board").board
    return {(row["method"], row["cycle"]) for row in table.to_dict("records") if row["seeds"]}


@pytest.mark.heavy
def test_a_part_that_is_run_leaves_the_study_whole(ouroloop: CommandLine, root: Path, preset: str) -> None:
    assert ouroloop("leaderboard", preset, "--method=verified", cwd=root).returncode == 0
    assert ouroloop("leaderboard", preset, "--method=unique", cwd=root).returncode == 0
    both = {(name, cycle) for name in ("baseline", "verified", "keep M_1") for cycle in BOARD["cycles"]}  # type: ignore[attr-defined]
    assert _on_record() == {(name, f"{cycle}-0.5" * (cycle == "incremental") or cycle) for name, cycle in both} | {
        ("unique", "full_synthetic")
    }
    (study,) = json.loads(ouroloop("status", "board", "--json").stdout)
    names = [loop["loop"] for loop in study["loops"]]
    assert [loop["state"] for loop in study["loops"]] == ["done"] * 5, "none waits that was not asked for"
    assert sum(name.endswith("-verified-s1") for name in names) == 2


@pytest.mark.heavy
def test_what_reached_the_file_while_loops_ran_stays_in_it(
    ouroloop: CommandLine, root: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another clone's loops come by `git pull`, and a board takes days."""
    here, file = ("leaderboard", preset, f"--folder={root}"), root / "board.json"
    assert ouroloop(*here, "--method=verified").returncode == 0
    pulled = file.read_bytes()
    file.unlink()
    run = driver.run_study

    def run_while_another_pulls(*arguments: Any) -> int:
        failed = run(*arguments)
        file.write_bytes(pulled)
        return failed

    monkeypatch.setenv("OUROLOOP_ROOT", str(root / "another"))
    monkeypatch.setattr(driver, "run_study", run_while_another_pulls)
    done = ouroloop(*here, "--method=unique")
    assert done.returncode == 0
    assert "no longer in it" not in done.stdout
    assert _loops(file) == {
        *((name, cycle) for name in ("baseline", "verified") for cycle in ("full_synthetic", "incremental-0.5")),
        ("unique", "full_synthetic"),
    }


@pytest.mark.heavy
def test_a_part_of_a_trial_leaves_the_rest_of_it_in_the_file(ouroloop: CommandLine, root: Path, preset: str) -> None:
    trial = ("leaderboard", preset, "--loop.num_generations=3", f"--folder={root}")
    said = [ouroloop(*trial, f"--method={name}").stdout for name in ("verified", "unique")]
    assert "no longer in it" not in said[1]
    assert {"verified", "unique", "baseline"} == {method for method, _ in _loops(root / "board.json")}
    more = ouroloop(*trial, "--method=verified", "--seeds=[1,2]", "--show").stdout
    studies = [re.findall(r"kept as study (\S+)\.", text) for text in (*said, more)]
    assert studies[0] == studies[1] == studies[2] != [], "more seeds extend it"
    assert more.count("missing from") == 2
    assert "2 of 4" in more


def test_a_method_that_has_none_of_the_cycles_is_one_line(ouroloop: CommandLine, root: Path, preset: str) -> None:
    done = ouroloop("leaderboard", preset, "--show", "--method=unique", "--cycles=[incremental]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ouroloop: nothing to run with incremental: 'unique' only with full_synthetic\n"


def test_methods_of_which_none_applies_are_one_line(ouroloop: CommandLine, root: Path, tmp_path: Path) -> None:
    soft = {"soft": {"changes": {"train": {"targets": "soft"}}}, "verified": METHODS["verified"]}
    path = tmp_path / "soft.yaml"
    path.write_text(json.dumps(BOARD | {"methods": soft}))
    done = ouroloop("leaderboard", str(path), "--show", "--method=soft")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "none of its methods applies" in done.stderr
