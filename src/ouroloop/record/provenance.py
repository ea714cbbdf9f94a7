"""Which software a run was made with, and on what machine."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ouroloop.config import LoopConfig, flatten
from ouroloop.record import stores
from ouroloop.record.track import Run, Store
from ouroloop.science.cycle import Dataset, DatasetError

_PACKAGES = ("torch", "pytorch-lightning", "transformers", "mlflow", "optuna", "numpy", "rapidfuzz", "sympy")


@cache
def commit() -> str:
    return _git("rev-parse", "HEAD") or "unknown"


@cache
def processor() -> str:
    """The family of processor, and how wide it computes: another one may round otherwise."""
    fields = {}
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    widths = [width for width in ("avx512f", "avx2", "avx") if width in flags][:1]
    parts = [platform.machine(), fields.get("vendor_id", ""), fields.get("cpu family", ""), *widths]
    return " ".join(part for part in parts if part)


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


def create_loop(store: Store, config: LoopConfig, name: str, study: str, parent: Run | None) -> Run:
    tags = {"level": "loop", "fingerprint": config.fingerprint(), "root": stores.root_id()}
    return store.create(name, parent, tags | cell_tags(config, study))


def record_origin(run: Run, config: LoopConfig, original: Dataset, metrics: Mapping[str, float]) -> None:
    """What a loop starts from: its configuration, the software, D_0 and, at step 0, D_0's measures."""
    environment = software()
    run.log_params(
        {
            key: value
            for key, value in flatten(config).items()
            if not key.startswith(("description", "keep_weights", "resources"))
        }
    )
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    run.log_bytes("environment.json", json.dumps(environment, indent=2).encode())
    run.log_bytes("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
    run.log_bytes("original_data.tsv.gz", original.to_bytes())
    run.log_series(
        {key: [(0, value)] for key, value in metrics.items()},
        skip_existing=True,
        note=loop_description(config),
        **(environment | {"packages": packages, "root": stores.root_id()}),
    )


def recorded_config(run: Run) -> LoopConfig | None:
    """The configuration of a loop run; None when it was recorded under another schema, or not at all."""
    try:
        return LoopConfig.model_validate(yaml.safe_load(run.read_text("config.yaml")))
    except (DatasetError, ValidationError, yaml.YAMLError):
        return None


def loop_description(config: LoopConfig) -> str:
    proportion = "" if config.cycle.synthetic_proportion is None else f" at λ = {config.cycle.synthetic_proportion:g}"
    return (
        f"**{config.cycle.kind.value}**{proportion}, temperature {config.sampling.temperature:g}, "
        f"m = {config.data.num_examples:,}, {config.num_generations} generations, seed {config.seed}.\n\n"
        "The charts run over generations: step 0 is the original data D_0, step t is S_t, sampled from M_t. "
        "The runs below this one hold each generation's samples, training set and model."
    )


def cell_tags(config: LoopConfig, study: str) -> dict[str, str]:
    return {
        "study": study,
        "cycle": config.cycle.kind.value,
        "synthetic_proportion": config.cycle.proportion_label,
        "temperature": f"{config.sampling.temperature:g}",
        "initialisation": config.data.initialisation.value,
        "model": config.model.kind,
        "seed": str(config.seed),
    }
