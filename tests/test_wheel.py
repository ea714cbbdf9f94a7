"""What is installed works where there is no checkout: the presets come with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_IDEAL = ["--model.kind=empirical", "--train=null"]


def call(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # builds, for which pip fetches the build backend
def test_an_installed_wheel_runs_a_preset_in_an_empty_folder(tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    call(*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(REPOSITORY), cwd=empty)
    (wheel,) = tmp_path.glob("ouroloop-*.whl")
    call(*pip, "install", "--no-deps", f"--target={installed}", str(wheel), cwd=empty)
    shipped = {path.name for path in (installed / "ouroloop" / "experiments").iterdir()}
    assert shipped == {path.name for path in (REPOSITORY / "experiments").glob("*.yaml")}

    def ouroloop(*arguments: str) -> str:
        return call(sys.executable, "-m", "ouroloop", *arguments, cwd=empty, PYTHONPATH=str(installed))

    where = call(
        sys.executable, "-c", "import ouroloop; print(ouroloop.__file__)", cwd=empty, PYTHONPATH=str(installed)
    )
    assert Path(where.strip()).is_relative_to(installed)
    assert "generation   3/3" in ouroloop("run", "smoke", *_IDEAL)
    assert "smoke-full_synthetic-empirical" in ouroloop("status")
    assert {path.name for path in empty.iterdir()} == {"mlruns"}
