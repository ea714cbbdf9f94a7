"""Generations that a loop of another study has computed already: found by what determines them, and copied.

The figures of the paper share loops: full synthetic is incremental at λ = 1, and a loop of ten generations is the
beginning of one of fifty.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from ouroloop.config import LoopConfig
from ouroloop.origin import recorded_config
from ouroloop.track import Run, Store

_ARTIFACTS = ("samples.tsv.gz", "samples.json", "depths.json", "depths.png")


def finished_generations(store: Store, config: LoopConfig, study: str) -> dict[int, Run]:
    """By number, the finished generations of a loop outside `study` that has to have the same; of the longest one."""
    longest: dict[int, Run] = {}
    for loop in store.find(level="loop", seed=str(config.seed), temperature=f"{config.sampling.temperature:g}"):
        recorded = recorded_config(loop) if loop.tag("study") != study else None
        if recorded is None or recorded.lineage() != config.lineage():
            continue
        generations = [run for run in store.find(level="generation", parent=loop.id) if run.status == "FINISHED"]
        if len(generations) > len(longest):
            longest = {int(run.tag("generation") or 0): run for run in generations}
    return longest
