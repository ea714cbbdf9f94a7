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
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from tests.conftest import CommandLine, copy_store

DAY = 86_400.0
OLD = time.time() - 40 * DAY


def loop(tiny: LoopConfig, name: str) -> Run:
    return run_loop(tiny.changed(keep_weights="all"), Store.open(), name=name, study=name)


def freed(older_than: float = 30 * DAY, dry_run: bool = False) -> dict[str, int]:
    return {found.kind: found.count for found in clean(Store.open(), older_than, dry_run) if found.count}


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (OLD, OLD))


@pytest.fixture
def leftovers(root: Path) -> list[Path]:
    """What a killed process and version 0.1 left: a lock, a worker's log, a first generation and half of one."""
    mlruns = root / "mlruns"
    (mlruns / "logs").mkdir()
    lock, log = mlruns / "generations" / f"{'0' * 32}.lock", mlruns / "logs" / "study-worker-1.log"
    lock.parent.mkdir()
    lock.touch()
    log.write_text("said")
    shared = [mlruns / "shared" / name for name in ("a" * 32, f".writing-{'b' * 32}-c")]
    for folder in shared:
        folder.mkdir(parents=True)
        (folder / "samples.tsv.gz").write_bytes(b"half")
    return [lock, log, *shared]


ALL = {"locks of killed processes": 1, "worker logs": 1, "first generations of version 0.1": 2}


@pytest.mark.heavy
def test_only_what_is_old_goes_and_a_dry_run_only_says_so(tiny: LoopConfig, root: Path, leftovers: list[Path]) -> None:
    loop(tiny, "test")
    mlruns = root / "mlruns"
    before = files(mlruns)
    assert freed() == {}
    make_old(*leftovers, *mlruns.rglob("*.lock"), *mlruns.glob("generations/*"))
    assert freed(dry_run=True) == ALL
    assert files(mlruns) == before
    assert freed() == ALL
    assert not any(path.exists() for path in leftovers)
    assert freed() == {}
    assert files(mlruns) == before - {file for path in leftovers for file in (path, path / "samples.tsv.gz")}
    again = run_loop(tiny.changed(keep_weights="all"), Store.open(), name="test", study="test")
    assert again.status == "FINISHED"  # results are all there


@pytest.mark.slow
def test_what_a_live_process_holds_stays(root: Path, leftovers: list[Path]) -> None:
    lock, log, *_ = leftovers
    code = (
        "import sys\nfrom filelock import FileLock\nfrom ouroloop.record.locks import StudyLock\n"
        f"driver = StudyLock('study')\nassert driver.acquire()\nwith FileLock({str(lock)!r}):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        make_old(*leftovers)
        assert freed().keys() == {"first generations of version 0.1"}
        assert lock.is_file()
        assert log.is_file()
    finally:
        holder.communicate("")
    make_old(lock, log)
    assert freed() == {"locks of killed processes": 1, "worker logs": 1}


@pytest.mark.heavy
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


def test_a_root_whose_name_a_uri_must_quote_is_cleaned_too(
    tiny: LoopConfig, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = tmp_path / "Mein Ordner größe? 100%25"
    copy_store(empty_store, quoted)
    monkeypatch.setenv("OUROLOOP_ROOT", str(quoted))
    gone = run_loop(tiny.changed(model={"kind": "empirical"}, train=None), Store.open(), name="gone", study="gone")
    Store.open().client.delete_run(gone.id)
    time.sleep(0.01)
    assert freed(0)["artifacts of deleted runs"] == 1 + tiny.num_generations
    assert not list((quoted / "mlruns" / "artifacts").rglob("*.gz"))


def test_the_command_says_what_it_frees(ouroloop: CommandLine, root: Path) -> None:
    done = ouroloop("clean", "--older-than=30d", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.endswith("0.0 MB  would be freed\n")
    assert "0 artifacts of deleted runs" in done.stdout
    refused = ouroloop("clean", "--older-than=30")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "as in 30d" in refused.stderr
    assert ouroloop("clean").returncode == 2


def test_ages() -> None:
    assert [age_seconds(text) for text in ("0m", "2h", "30d", "1w")] == [0, 7_200, 30 * DAY, 7 * DAY]
    for wrong in ("", "d", "-1d", "1.5d", "30 d", "1y"):
        with pytest.raises(ConfigError, match="cannot read the age"):
            age_seconds(wrong)
