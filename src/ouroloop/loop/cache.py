"""M_1 and S_1, computed once for all loops that begin alike.

For one seed, loops that differ in cycle and proportion have the same D_0, hence the same first
generation: their arms are paired, and need not pay for it again. A product is addressed by what
determines it, written aside and renamed into place, so that no half of it is ever read; a process that
wants what another one is computing waits for it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.learner.network.model import load_model, save_model
from ouroloop.learner.network.train import Training
from ouroloop.loop.generation import Product
from ouroloop.record import stores
from ouroloop.record.provenance import code, recorded_config
from ouroloop.record.track import Run, Series, Store
from ouroloop.science.cycle import Dataset, DatasetError, Source
from ouroloop.science.metrics import Sample

# What a loop may differ in and still have the same M_1 and S_1
_NOT_YET_RELEVANT = {"description", "num_generations", "cycle", "stages", "exact_every", "keep_weights", "resources"}


def first_generation(config: LoopConfig, training_set: Dataset, compute: Callable[[], Product]) -> tuple[Product, bool]:
    """The product of generation 1, and whether an earlier loop that began alike had computed it."""
    relevant = config.model_dump(mode="json", exclude=_NOT_YET_RELEVANT)
    relevant |= {"training_set": training_set.digest(), "code": code()}
    key = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:32]
    folder = stores.runs_folder() / "shared" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if folder.is_dir():
            try:
                product = _read(folder)
                os.utime(folder)  # when it was last used, for `ouroloop clean`
                return product, True
            except (OSError, ValueError, KeyError, TypeError):  # damaged: it can be computed again
                shutil.rmtree(folder)
        product = compute()
        _write(product, folder, config)
        return product, False


def _write(product: Product, folder: Path, config: LoopConfig) -> None:
    assert product.model is not None
    assert product.training is not None
    aside = Path(mkdtemp(prefix=f".writing-{folder.name}-", dir=folder.parent))
    save_model(product.model, aside / "model", config.sampling)
    weights = (aside / "model" / "model.safetensors").read_bytes()
    record = {
        "training": asdict(product.training),
        "nats": product.nats,
        "seconds": product.seconds,
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    (aside / "samples.tsv.gz").write_bytes(Dataset.of(product.texts, Source.SAMPLED, 1).to_bytes())
    (aside / "record.json").write_text(json.dumps(record))
    aside.rename(folder)


def _read(folder: Path) -> Product:
    record = json.loads((folder / "record.json").read_text())
    weights = (folder / "model" / "model.safetensors").read_bytes()
    if hashlib.sha256(weights).hexdigest() != record["weights"]:
        raise DatasetError(f"the weights in {folder} are not those that were written")
    training = record["training"]
    training["validation_losses"] = [(step, nats) for step, nats in training["validation_losses"]]
    texts = list(Dataset.read(folder / "samples.tsv.gz").texts)
    return Product(load_model(folder / "model"), Training(**training), texts, record["nats"], record["seconds"])


CURVES = ("train_loss_nats_per_token", "validation_loss_nats")
"""Metrics of a generation that have optimizer steps for steps."""


@dataclass(frozen=True)
class GenerationRecord:
    """What a generation comes to, computed or copied."""

    samples: Dataset
    """S_t."""
    sample: Sample
    """The same, reduced to distinct texts."""
    stage: str | None
    curves: Series
    measures: Mapping[str, float]
    note: str
    tags: Mapping[str, str]
    model: Path | None
    """The folder with M_t, if its weights are to be kept."""
    seconds_elsewhere: float = 0.0
    """How much longer it took another loop, which trained and sampled for this one too."""


def finished_generations(store: Store, config: LoopConfig, own: Run) -> dict[int, Run]:
    """By number, the finished generations of the longest other loop that has the same ones, by the same software."""
    longest: dict[int, Run] = {}
    for loop in store.find(level="loop", seed=str(config.seed), temperature=f"{config.sampling.temperature:g}"):
        recorded = recorded_config(loop) if loop.id != own.id else None
        if recorded is None or _decisive(recorded) != _decisive(config):
            continue
        found = store.find(level="generation", parent=loop.id)
        generations = {
            int(run.tag("generation") or 0): run
            for run in found
            if run.status == "FINISHED" and run.tag("code") == code()
        }
        if len(generations) > len(longest):
            longest = generations
    return longest


def _decisive(config: LoopConfig) -> dict[str, Any]:
    """What each single generation depends on: not on how many come after it, nor on a cycle's other name."""
    decisive = config.model_dump(mode="json", exclude={"description", "keep_weights", "num_generations", "resources"})
    if config.cycle == CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1.0):
        decisive["cycle"] = CycleConfig(kind=DataCycle.FULL_SYNTHETIC).model_dump(mode="json")
    return decisive


def read_record(twin: Run, model_folder: Path | None) -> GenerationRecord:
    """What another loop's generation came to; its model is put into the folder, if one is given.

    Raises:
        DatasetError: its samples are missing or damaged, or its model is gone.
    """
    samples = twin.read_dataset("samples.tsv.gz")
    return GenerationRecord(
        samples,
        Sample.of(samples.texts),
        twin.tag("stage"),
        curves={key: twin.history(key) for key in CURVES if key in twin.metrics},
        measures={key: value for key, value in twin.metrics.items() if key not in CURVES},
        note=twin.note,
        tags={"commit": twin.tag("commit") or "unknown", "code": code(), "copied_from": twin.id},
        model=None if model_folder is None else twin.download_model(model_folder),
    )
