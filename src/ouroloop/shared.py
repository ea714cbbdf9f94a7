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
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

from ouroloop import stores
from ouroloop.config import LoopConfig
from ouroloop.cycle import Dataset, DatasetError, Source
from ouroloop.generation import Product
from ouroloop.model import load_model, save_model
from ouroloop.software import code
from ouroloop.train import Training

# What a loop may differ in and still have the same M_1 and S_1
_NOT_YET_RELEVANT = {"description", "num_generations", "cycle", "stages", "exact_every", "keep_weights"}


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
