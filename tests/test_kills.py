"""A study whose processes are killed at random moments must end as the undisturbed study. Slow: minutes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.seeding import stream
from tests.conftest import TINY

KILLS = int(os.environ.get("OUROLOOP_TEST_KILLS", "30"))
COMMAND = [sys.executable, "-m", "ouroloop", "sweep", "study", "--workers=2"]


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    folder = tmp_path / "presets"
    (folder / "experiments").mkdir(parents=True)
    loop = TINY | {"num_generations": 12}
    study = {
        "cycles": ["incremental", "balanced", "expanding"],
        "synthetic_proportions": [0.5, 1.0],
        "seeds": [1, 2],
        "loop": loop,
    }
    (folder / "experiments" / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


def outcome(store: Store) -> dict[str, object]:
    """Every metric history but the times, and every sample, of every loop and generation."""

    def histories(run: Run) -> dict[str, list[tuple[int, float]]]:
        return {key: run.history(key) for key in run.metrics if not key.endswith(("seconds", "tokens_per_second"))}

    found: dict[str, object] = {}
    for loop in store.find(level="loop"):
        found[loop.entity.info.run_name] = histories(loop)
        for generation in store.find(level="generation", parent=loop.id):
            key = f"{loop.entity.info.run_name}/{generation.entity.info.run_name}"
            assert key not in found  # a generation has one run, however often it was begun
            found[key] = (histories(generation), generation.read_dataset("samples.tsv.gz").to_bytes())
    return found


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_killed_anywhere_and_resumed_is_the_undisturbed_study(
    presets: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = stream(int(os.environ.get("OUROLOOP_TEST_SEED", "1")), "kills")
    kills = 0
    while True:
        process = subprocess.Popen(COMMAND, cwd=presets, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while kills < KILLS and process.poll() is None:
            # workers need seconds to import torch; then each moment is as likely as any other
            time.sleep(6 + 8 * rng.random())
            victims = [process.pid, *children(process.pid)]
            number = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT][rng.integers(3)]
            try:
                os.kill(victims[rng.integers(len(victims))], number)
            except ProcessLookupError:
                continue
            kills += 1
        returncode = process.wait(timeout=600)
        while any(Path(f"/proc/{pid}").exists() for pid in workers_of("study")):
            time.sleep(0.2)  # workers whose parent was killed go on; the next command would join them
        if returncode == 0:
            break
    store = Store.open()
    disturbed = outcome(store)
    assert {run.status for run in store.find(study="study")} == {"FINISHED"}
    assert store.running() == []

    other = tmp_path / "undisturbed"
    monkeypatch.setenv("OUROLOOP_ROOT", str(other))
    subprocess.run(COMMAND, cwd=presets, check=True, capture_output=True)
    undisturbed = outcome(Store.open())
    assert len(undisturbed) == 10 * 13
    assert disturbed == undisturbed


def workers_of(study: str) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if command[1:5] == [b"-m", b"ouroloop", b"worker", study.encode()]:
                pids.append(int(entry.name))
    return pids
