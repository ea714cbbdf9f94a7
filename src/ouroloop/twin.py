"""Generations that another loop has computed already: found by what determines them, and copied.

The figures of the paper share loops: full synthetic is incremental at λ = 1, and a loop of ten generations is the
beginning of one of fifty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.cycle import Dataset
from ouroloop.measure import Sample
from ouroloop.origin import recorded_config
from ouroloop.software import code
from ouroloop.track import Run, Series, Store

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
    decisive = config.model_dump(mode="json", exclude={"description", "keep_weights", "num_generations"})
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
