"""What the run of a study or of a loop says of itself: its cell, its configuration, D_0 and the software."""

import json
from collections.abc import Mapping

import yaml
from pydantic import ValidationError

from ouroloop import stores
from ouroloop.config import LoopConfig, StudyConfig, flatten
from ouroloop.cycle import Dataset, DatasetError
from ouroloop.software import software
from ouroloop.track import Run, Store


def create_study(store: Store, config: StudyConfig, name: str) -> Run:
    spanned = {"synthetic_proportion": "chosen"} if config.kind != "grid" else {}
    cells = [cell_tags(loop, name) for loop in config.loops()] or [cell_tags(config.loop, name)]
    tags = {key: ",".join(dict.fromkeys(cell[key] for cell in cells)) for key in cells[0]} | spanned
    run = store.create(name, None, {"level": "study", "place": stores.place(), **tags})
    run.log_params(flatten(config.model_copy(update={"description": ""})))
    run.describe(config.description)
    return run


def create_loop(store: Store, config: LoopConfig, name: str, study: str, parent: Run | None) -> Run:
    tags = {"level": "loop", "fingerprint": config.fingerprint(), "place": stores.place()}
    return store.create(name, parent, tags | cell_tags(config, study))


def record_origin(run: Run, config: LoopConfig, original: Dataset, metrics: Mapping[str, float]) -> None:
    """What a loop starts from: its configuration, the software, D_0 and, at step 0, D_0's measures."""
    environment = software()
    run.log_params({key: value for key, value in flatten(config).items() if key not in ("description", "keep_weights")})
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    run.log_bytes("environment.json", json.dumps(environment, indent=2).encode())
    run.log_bytes("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
    run.log_bytes("original_data.tsv.gz", original.to_bytes())
    run.log_series(
        {key: [(0, value)] for key, value in metrics.items()},
        skip_existing=True,
        note=loop_description(config),
        **(environment | {"packages": packages, "place": stores.place()}),
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
