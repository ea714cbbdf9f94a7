"""Cleaning must free what is old and unheld, and must not touch anything else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.record.clean import age_seconds, clean
from ouroloop.record.track import Run, Store
from tests.conftest import CommandLine

DAY = 86_400.0
OLD = time.time() - 40 * DAY


def loop(tiny: LoopConfig, name: str) -> Run:
    return run_loop(tiny.model_copy(update={"keep_weights": "all"}), Store.open(), name=name, study=name)


def freed(older_than: float = 30 * DAY, dry_run: bool = False) -> dict[str, int]:
    return {found.kind: found.count for found in clean(Store.open(), older_than, dry_run) if found.count}


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (OLD, OLD))


def test_only_what_is_old_goes_and_a_dry_run_only_says_so(tiny: LoopConfig, root: Path) -> None:
    loop(tiny, "test")
    mlruns = root / "mlruns"
    (shared,) = (path for path in (mlruns / "shared").iterdir() if path.is_dir())
    half = mlruns / "shared" / f".writing-{'0' * 32}-abc"
    half.mkdir()
    (half / "samples.tsv.gz").write_bytes(b"half")
    (mlruns / "logs").mkdir()
    log = mlruns / "logs" / "study-worker-1.log"
    log.write_text("said")
    before = files(mlruns)
    assert freed() == {}
    assert files(mlruns) == before

    make_old(shared, half, log, *mlruns.glob("locks/*.lock"))
    wanted = {"shared first generations": 1, "halves left by killed processes": 1, "worker logs": 1, "lock files": 1}
    assert freed(dry_run=True) | {"lock files": 1} == wanted
    assert files(mlruns) == before
    assert freed() | {"lock files": 1} == wanted
    assert not shared.exists()
    assert not half.exists()
    assert not log.exists()
    assert freed() == {}
    left = files(mlruns)
    assert {path for path in before - left if "shared" not in path.parts and "logs" not in path.parts} == set()
    again = run_loop(tiny.model_copy(update={"keep_weights": "all"}), Store.open(), name="test", study="test")
    assert again.status == "FINISHED"  # results are all there


def test_what_a_live_process_holds_stays(tiny: LoopConfig, root: Path) -> None:
    loop(tiny, "test")
    mlruns = root / "mlruns"
    (shared,) = (path for path in (mlruns / "shared").iterdir() if path.is_dir())
    half = mlruns / "shared" / f".writing-{shared.name}-abc"
    half.mkdir()
    (mlruns / "logs").mkdir()
    log = mlruns / "logs" / "study-worker-1.log"
    log.write_text("said")
    code = (
        "import sys\nfrom filelock import FileLock\nfrom ouroloop.record import locks\n"
        f"with FileLock({str(shared) + '.lock'!r}), locks.alone('study', 'loop'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == "held\n"
        make_old(shared, half, log, *mlruns.rglob("*.lock"))
        assert freed().keys() <= {"lock files"}
        assert shared.is_dir()
        assert half.is_dir()
        assert log.is_file()
        assert (mlruns / "locks" / "study-loop.lock").is_file()
    finally:
        holder.communicate("")
    make_old(shared, half, log, *mlruns.rglob("*.lock"))
    assert freed() | {"lock files": 1} == {
        "shared first generations": 1, "halves left by killed processes": 1, "worker logs": 1, "lock files": 1
    }  # fmt: skip


def test_artifacts_of_deleted_runs_go_unless_a_model_is_registered(tiny: LoopConfig, root: Path) -> None:
    gone, kept = loop(tiny, "gone"), loop(tiny, "kept")
    store, mlruns = Store.open(), root / "mlruns"
    (first, *_) = store.find(level="generation", parent=gone.id, generation="1")
    store.client.create_registered_model("ouroloop-probe")
    store.client.create_model_version("ouroloop-probe", first.entity.info.artifact_uri, run_id=first.id)
    before = files(mlruns / "artifacts")
    assert freed(0) .get("artifacts of deleted runs") is None  # fmt: skip
    store.client.delete_run(gone.id)  # as the UI does: its generations are not deleted with it
    assert freed().get("artifacts of deleted runs") is None  # it has not ended long ago
    time.sleep(0.01)
    assert freed(0)["artifacts of deleted runs"] == 1 + 2 * 2  # the loop, two generations and their models
    left = files(mlruns / "artifacts")
    for run in [kept, *store.find(level="generation", parent=kept.id), first]:
        folder = Path(run.entity.info.artifact_uri.removeprefix("file://"))
        assert {path for path in before if path.is_relative_to(folder)} <= left
    assert not Path(gone.entity.info.artifact_uri.removeprefix("file://")).exists()


def test_the_command_says_what_it_frees(ouroloop: CommandLine, root: Path) -> None:
    done = ouroloop("clean", "--older-than=30d", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.endswith("0.0 MB  would be freed\n")
    assert "0 shared first generations" in done.stdout
    refused = ouroloop("clean", "--older-than=30")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "as in 30d" in refused.stderr
    assert ouroloop("clean").returncode == 2


def test_ages() -> None:
    assert [age_seconds(text) for text in ("0m", "2h", "30d", "1w")] == [0, 7_200, 30 * DAY, 7 * DAY]
    for wrong in ("", "d", "-1d", "1.5d", "30 d", "1y"):
        with pytest.raises(ConfigError, match="cannot read the age"):
            age_seconds(wrong)
