"""Which software a run was made with, and on what machine."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "pytorch-lightning", "transformers", "mlflow", "optuna", "numpy", "rapidfuzz", "sympy")


@cache
def commit() -> str:
    return _git("rev-parse", "HEAD") or "unknown"


@cache
def code() -> str:
    """Digest of our source, the packages that compute and the machine's kind: another one may round otherwise."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    packages = [version(name) for name in ("torch", "transformers", "pytorch-lightning", "numpy", "rapidfuzz")]
    return hashlib.sha256(b"".join(sources) + repr((packages, platform.machine())).encode()).hexdigest()[:12]


def software() -> dict[str, Any]:
    """Commit, versions and machine, for the record of a loop."""
    changes = _git("status", "--porcelain")
    return {
        "commit": commit(),
        "uncommitted_changes": "unknown" if changes is None else "yes" if changes else "no",
        "ouroloop_version": version("ouroloop"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # not a checkout, or no git: the record says unknown
        return None
    return done.stdout.strip()
