"""A study whose processes are killed at random moments must end as the undisturbed study. Slow: minutes."""

import os
from pathlib import Path
from tempfile import gettempdir

import pytest
from experiments import check_kills

KILLS = int(os.environ.get("OUROLOOP_TEST_KILLS", "8"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize(("on", "learner"), [("local", "empirical"), ("local", "network"), ("ray", "empirical")])
def test_killed_anywhere_and_resumed_is_the_undisturbed_study(
    on: str, learner: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on == "ray":
        pytest.importorskip("ray", reason="Ray is not installed (pip install 'ouroloop[ray]')")
    monkeypatch.setenv("RAY_TMPDIR", gettempdir())  # the address of a socket has at most 107 bytes
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(check_kills, "STOPPED_SECONDS", 5.0)
    assert check_kills.main(KILLS, on, learner, seed=1) == 0
