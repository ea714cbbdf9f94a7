"""What the run of a study or of a loop says of itself: its tags, configuration, D_0, software and machine."""

import hashlib
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from pydantic import ValidationError

from ouroloop import __version__
from ouroloop.config import NO_PART, LoopConfig, PretrainedModelConfig, flatten
from ouroloop.record import stores
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.science.dataset import Dataset, DatasetError, Source
from ouroloop.science.likeness import LIBRARIES

_PACKAGES = ("torch", "pytorch-lightning", "transformers", "mlflow", "optuna", "numpy", "rapidfuzz", "sympy")
_DECISIVE = ("config", "testbed", "science", "learner", "loop")
_FILTERS = Lock()  # of warnings: they are the process's, and a study's loops are read by several threads


version = cache(metadata.version)  # each call reads a file, nine of them for a loop


@cache
def commit() -> str:
    """The commit of the checkout that tracks this file; one that merely contains it (in .venv, say) is another's."""
    is_ours = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    return (is_ours and _git("rev-parse", "HEAD")) or "unknown"


@cache
def processor(device: str = "cpu") -> str:
    """The kind of processor, its vector width, and the GPU if the learner uses one: another may round differently.

    `device` is the learner's.
    """
    fields: dict[str, str] = {}
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    widths = [width for width in ("avx512f", "avx2", "avx") if width in flags][:1]
    kind = [fields[key] for key in ("vendor_id", "cpu family", "model") if key in fields] or [platform.processor()]
    host = " ".join([platform.machine(), *kind, *widths])
    return host if device == "cpu" else f"{host}, {device}"


@cache
def code() -> str:
    """Digest of that part of our source which determines results: a word in a report is not in it."""
    package = Path(__file__).parent.parent
    sources = sorted(path for name in _DECISIVE for path in (package / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


@cache
def packages(*more: str) -> dict[str, str]:
    """Versions of the libraries that compute in every loop, and of `more`."""
    always = ("torch", "transformers", "pytorch-lightning", "numpy", "rapidfuzz")
    return {name: version(name) for name in (*always, *more)}


def libraries(config: LoopConfig) -> Iterator[str]:
    """The libraries that compute in this loop but not in every one."""
    if isinstance(config.model, PretrainedModelConfig) or (config.train and config.data.kind == "text"):
        yield "tokenizers"  # its tokens are the model's own, or learnt from D_0
    if isinstance(config.model, PretrainedModelConfig) and config.model.lora_rank is not None:
        yield "peft"
    if config.data.feature_model is not None:
        yield from LIBRARIES


def software(device: str, *more: str) -> dict[str, Any]:
    """Commit, versions and machine, for the record of a loop."""
    changes = _git("status", "--porcelain") if commit() != "unknown" else None
    return {
        "commit": commit(),
        "uncommitted_changes": "unknown" if changes is None else "yes" if changes else "no",
        "ouroloop_version": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "processor": processor(device),
        "packages": {name: version(name) for name in (*_PACKAGES, *more)},
    }


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # not a checkout, or no git: the record says unknown
        return None
    return done.stdout.strip()


def create_loop(
    store: Store, config: LoopConfig, name: str, study: str, parent: Run | None, corpus_digest: str = ""
) -> Run:
    tags = {"level": "loop", "fingerprint": config.fingerprint(), "root": stores.root_id()}
    if corpus_digest:
        tags["corpus_digest"] = corpus_digest
    return store.create(name, parent, tags | loop_tags(config, study))


def record_origin(
    run: Run,
    config: LoopConfig,
    device: str,
    original: Dataset,
    metrics: Mapping[str, float],
    prompts: Sequence[str] = (),
) -> None:
    """Record what a loop starts from: its configuration, the software, D_0 and, at step 0, D_0's measures.

    `prompts` are what the texts of every S_t continue, in their order. `device` is the learner's. A loop keeps the name
    of the processor that it began on.
    """
    environment = software(device, *libraries(config))
    began_on = run.tag("processor") or environment["processor"]
    # A setting that decides nothing may have changed since, and MLflow takes no second value
    known = run.entity.data.params
    run.log_params(
        {
            key: value
            for key, value in flatten(config).items()
            if key not in known and key.partition(".")[0] not in NO_PART
        }
    )
    listed = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    configuration = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    files = {
        "environment.json": json.dumps(environment, indent=2).encode(),
        "config.yaml": configuration.encode(),
        "original_data.tsv.gz": original.to_bytes(),
    }
    given = {"prompts.tsv.gz": Dataset.of(prompts, Source.FRESH, 0).to_bytes()} if prompts else {}
    run.log_files(files | given)
    run.log_series(
        {key: [(0, value)] for key, value in metrics.items()},
        skip_existing=True,
        note=loop_description(config),
        **(environment | {"packages": listed, "root": stores.root_id(), "processor": began_on}),
    )


def recorded_config(run: Run) -> LoopConfig | None:
    """The configuration of a loop run; None when it was recorded under another schema, or not at all."""
    try:
        given = yaml.safe_load(run.read_text("config.yaml"))
        with _FILTERS, warnings.catch_warnings(action="ignore", category=FutureWarning):  # names of before
            return LoopConfig.model_validate(given)
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


def loop_tags(config: LoopConfig, study: str) -> dict[str, str]:
    return {
        "study": study,
        "cycle": config.cycle.kind.value,
        "synthetic_proportion": config.cycle.proportion_label,
        "temperature": f"{config.sampling.temperature:g}",
        **config.data.tags,
        "model": config.model.kind,
        "seed": str(config.seed),
    }
