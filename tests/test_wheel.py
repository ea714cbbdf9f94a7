"""Installed from its wheel into an empty folder, with no checkout anywhere near, the program has all that it needs."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a virtual environment with the wheel; the libraries are those that this test runs with."""
    folder = tmp_path_factory.mktemp("installed")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *build, str(REPOSITORY)], check=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    bin_folder = folder / "venv" / "bin"
    python = str(bin_folder / "python")
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    # Its own .pth files are not read from there, so that an editable installation is not seen
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    [wheel] = folder.glob("*.whl")
    subprocess.run([python, *install, str(wheel)], check=True)
    return bin_folder


def ouroloop(bin_folder: Path, empty: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = ("OUROLOOP_ROOT", "MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [str(bin_folder / "ouroloop"), *arguments]
    return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)


def test_its_presets_run_in_an_empty_folder(bin_folder: Path, tmp_path: Path) -> None:
    where = [str(bin_folder / "python"), "-c", "import ouroloop; print(ouroloop.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(bin_folder.parent))
    done = ouroloop(bin_folder, tmp_path, "run", "smoke")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}
    shipped = {path.name for path in (Path(found.strip()).parent / "experiments").iterdir()}
    assert shipped == {path.name for path in (REPOSITORY / "experiments").glob("*.yaml")}
    report = ouroloop(bin_folder, tmp_path, "report", "smoke")
    assert Path(report.stdout.strip()).is_file(), report.stderr


@pytest.mark.parametrize("command", [["status"], ["report", "smoke"], ["compare", "smoke"], ["register", "smoke"]])
def test_readers_create_nothing(bin_folder: Path, tmp_path: Path, command: list[str]) -> None:
    ouroloop(bin_folder, tmp_path, *command)
    assert list(tmp_path.iterdir()) == []


def test_a_preset_of_the_folder_comes_first(bin_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "smoke.yaml").write_text("base: laptop\nseed: 77\n")
    assert "seed" in (shown := ouroloop(bin_folder, tmp_path, "config", "smoke").stdout)
    assert any("seed" in line and "77" in line for line in shown.splitlines())
