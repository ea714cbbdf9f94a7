"""A disk that fills up during a write must cost what was being written, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ouroloop.record.run import Run
from ouroloop.record.track import Store
from tests.conftest import TINY, CommandLine, copy_store


@pytest.fixture
def small_disk(root: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """`mlruns/` as a file system of its own, with room for the store and so many KB: a few generations."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root on Linux may mount a small file system")
    mlruns = root / "mlruns"
    database = (mlruns / "mlflow.db").read_bytes()
    command = ["mount", "-t", "tmpfs", "-o", f"size={len(database) // 1024 + request.param}k", "tmpfs", str(mlruns)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount a file system")
    try:
        (mlruns / "mlflow.db").write_bytes(database)
        yield mlruns
    finally:
        subprocess.run(["umount", "--lazy", str(mlruns)], check=True)


def outcome(loop: Run) -> list[object]:
    found: list[object] = [
        loop.history(key) for key in sorted(loop.metrics) if not key.endswith(("seconds", "tokens_per_second"))
    ]
    generations = loop.store.find(level="generation", parent=loop.id)
    return found + [
        run.read_dataset("samples.tsv.gz").to_bytes()
        for run in sorted(generations, key=lambda run: run.entity.info.run_name)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "small_disk"), [("run", 1_900), ("sweep", 2_100)], indirect=["small_disk"])
def test_a_full_disk_is_one_line_and_with_room_the_same_command_finishes(
    ouroloop: CommandLine,
    small_disk: Path,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    folder = tmp_path / "elsewhere"
    (folder / "experiments").mkdir(parents=True)
    loop = TINY | {"num_generations": 12}
    study = {"synthetic_proportions": [1.0], "seeds": [5], "loop": {"base": "run"}}
    (folder / "experiments" / "run.yaml").write_text(yaml.safe_dump(loop))
    (folder / "experiments" / "sweep.yaml").write_text(yaml.safe_dump(study))

    full = ouroloop(command, command, cwd=folder)
    assert full.returncode == 2, full.stdout
    assert f"no room left in {small_disk}: the disk is full" in full.stderr
    assert full.stderr.endswith("; make some, and the same command picks up where it left off\n")
    assert "Traceback" not in full.stderr
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    (before,) = Store.open().find(level="loop", study=command)
    finished = [run for run in before.store.find(level="generation", parent=before.id) if run.status == "FINISHED"]
    assert 0 < len(finished) < 12
    resumed = ouroloop(command, command, cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    (after,) = Store.open().find(level="loop", study=command)
    assert after.id == before.id
    assert after.status == "FINISHED"
    assert Store.open().running() == []
    disturbed = outcome(after)

    copy_store(empty_store, tmp_path / "undisturbed")
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path / "undisturbed"))
    assert ouroloop(command, command, cwd=folder).returncode == 0
    (undisturbed,) = Store.open().find(level="loop", study=command)
    assert disturbed == outcome(undisturbed)
