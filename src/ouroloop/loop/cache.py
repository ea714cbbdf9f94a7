"""The result of a generation, found by what determines it and copied.

Loops begin alike: for one seed, those that differ only in cycle and proportion have the same D_0, hence the same
M_1; full synthetic is incremental at λ = 1; a loop of ten generations is the beginning of one of fifty. M_t and S_t
follow from the learner, D_{t-1}, the seed and t, given the same software and kind of machine; their measures depend
on D_0 too, which follows from the testbed and the seed. All of that goes into one key, and the record is the cache: a
file named by the key says which run has the result.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from ouroloop.config import LoopConfig
from ouroloop.loop.generation import CURVES, Generation
from ouroloop.record import stores
from ouroloop.record.provenance import code, libraries, packages, processor
from ouroloop.record.run import Run
from ouroloop.record.track import NoSuchRunError, Store
from ouroloop.science.dataset import Dataset, DatasetError


def key(
    config: LoopConfig, device: str, training_set: Dataset, generation: int, corpus: str = "", parent: str = ""
) -> str:
    """The key of M_t, S_t and their measures.

    `device` is the learner's, `corpus` the testbed's digest, and `parent` the key of M_{t-1} if M_t learns from it too:
    that covers all models before it. The key of M_1 leaves out how models learn from earlier ones.
    """
    if generation == 1 and config.train is not None:
        config = config.changed(train=config.train.of_first())
    given = config.identity()
    decisive: dict[str, Any] = {
        **{name: given[name] for name in ("data", "model", "train", "sampling", "seed", "curation") if name in given},
        **({"corpus": corpus} if corpus else {}),
        "training_set": training_set.digest(),
        "generation": generation,
        "exact": generation % config.exact_every == 0,
        "code": code(),
        "packages": packages(*libraries(config)),
        "device": device,
        "processor": processor(),
    }
    if parent:
        decisive["parent"] = parent
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def _entry(key: str) -> Path:
    """The file that holds the id of the run with this result. A search through many runs would take longer."""
    folder = stores.runs_folder() / "generations"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / key


@contextmanager
def holding(key: str) -> Iterator[None]:
    """Inside, whoever else on this machine wants the same generation waits: until it is on record or its maker dies."""
    lock = _entry(f"{key}.lock")
    with FileLock(lock):
        yield
    lock.unlink(missing_ok=True)  # whoever waits for it still gets it; whoever comes now finds the result


def enter(key: str, run: Run) -> None:
    """Let the finished run be found by the key from now on."""
    aside = _entry(f"{key}.{run.id}")
    aside.write_text(run.id)
    aside.replace(_entry(key))


def find(
    store: Store, key: str, asks: Run, wants_model: Callable[[dict[str, float]], bool], folder: Path
) -> Generation | None:
    """A copy of the finished generation with this key, if there is one other than the run that `asks`.

    Its model, if that is wanted, is put into the folder. The answer is also None where it is damaged or deleted, or
    lacks the model that its metrics make worth keeping: then it can be computed again.
    """
    try:
        run = store.get(_entry(key).read_text())
        is_there = run.is_active and run.status == "FINISHED" and run.tag("key") == key and run.id != asks.id
        if is_there:
            return _copy(run, folder if wants_model(run.metrics) else None)
    except (FileNotFoundError, DatasetError, NoSuchRunError):
        pass
    return None


def _copy(run: Run, folder: Path | None) -> Generation:
    """The result of that run's generation, times included; with its model, if a folder is given.

    Raises:
        DatasetError: its samples are missing or damaged, or its model was not kept or is gone.
    """
    if folder is not None:
        run.save_model(folder)
    loop = run.store.get(run.parent_id) if run.parent_id else None
    source = f"{loop.name} {run.name}" if loop else run.name
    own = {"commit": run.tag("commit") or "unknown", "code": run.tag("code") or "unknown"}
    own |= {name: said for name in ("curated", "ran_short") if (said := run.tag(name))}
    return Generation(
        run.read_dataset("samples.tsv.gz"),
        run.read_dataset("curated.tsv.gz") if run.tag("curated") else None,
        {name: value for name, value in run.metrics.items() if name not in CURVES},
        {name: run.history(name) for name in CURVES if name in run.metrics},
        own | {"copied_from": run.tag("copied_from") or run.id},
        None if folder is None else partial(shutil.copytree, folder, dirs_exist_ok=True),
        source=source,
    )
