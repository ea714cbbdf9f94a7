"""Generations that a loop of another study has computed already: found by what determines them, and copied.

The figures of the paper share loops: full synthetic is incremental at λ = 1, and a loop of ten generations is the
beginning of one of fifty.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.cycle import Dataset
from ouroloop.measure import Sample
from ouroloop.origin import recorded_config
from ouroloop.track import Run, Series, Store

CURVES = ("train_loss_nats_per_token", "validation_loss_nats")
"""Metrics of a generation that have optimizer steps for steps."""


def finished_generations(store: Store, config: LoopConfig, study: str) -> dict[int, Run]:
    """By number, the finished generations of the longest loop outside `study` that has the same ones."""
    longest: dict[int, Run] = {}
    for loop in store.find(level="loop", seed=str(config.seed), temperature=f"{config.sampling.temperature:g}"):
        recorded = recorded_config(loop) if loop.tag("study") != study else None
        if recorded is None or _decisive(recorded) != _decisive(config):
            continue
        generations = [run for run in store.find(level="generation", parent=loop.id) if run.status == "FINISHED"]
        if len(generations) > len(longest):
            longest = {int(run.tag("generation") or 0): run for run in generations}
    return longest


def _decisive(config: LoopConfig) -> dict[str, Any]:
    """What each single generation depends on: not on how many come after it, nor on a cycle's other name."""
    decisive = config.model_dump(mode="json", exclude={"description", "keep_weights", "num_generations"})
    if config.cycle == CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1.0):
        decisive["cycle"] = CycleConfig(kind=DataCycle.FULL_SYNTHETIC).model_dump(mode="json")
    return decisive


def copy_generation(twin: Run, run: Run, number: int) -> tuple[Dataset, Series, Series]:
    """S_t, the curves and the measures of a generation; all that it left but its training set is now also `run`'s.

    Raises:
        DatasetError: an artifact of it is missing or damaged, or its model is gone.
    """
    samples = twin.read_dataset("samples.tsv.gz")
    run.log_bytes("depths.png", twin.read_bytes("depths.png"))
    run.log_bytes("samples.tsv.gz", samples.to_bytes())
    run.log_samples(Sample.of(samples.texts))
    if twin.model_id is not None:
        with TemporaryDirectory() as folder:
            model = twin.download_model(Path(folder))
            run.log_model(f"M_{number:02d}", model, number, tags={"generation": str(number)})
    run.log_tags(**{key: value for key in ("stage", "commit") if (value := twin.tag(key))}, copied_from=twin.id)
    run.describe(twin.note)
    measures = {key: [(number, value)] for key, value in twin.metrics.items() if key not in CURVES}
    return samples, {key: twin.history(key) for key in CURVES if key in twin.metrics}, measures
