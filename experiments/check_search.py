"""Does the search find what a grid with three times its trials finds, and does pruning change its answer?

    python experiments/check_search.py [WORKERS] [--loop.num_generations=4 and other overrides]

Runs three studies at smoke scale with the same seeds and the same target: `search-smoke` as it is, the same
search without pruning by `max_rise`, and a grid of every second λ of its lattice, which is three times
as many λ as the bisection takes. Exit code 1 if the answers disagree. When stopped, the same
command goes on. 20 minutes on 2 cores.
"""

import subprocess
import sys
from pathlib import Path
from statistics import mean

import yaml

from ouroloop.config import DataCycle
from ouroloop.presets import load_preset
from ouroloop.record import stores
from ouroloop.study.answer import finished_points
from ouroloop.study.config import StudyConfig
from ouroloop.study.search import Search
from ouroloop.study.task import Task
from ouroloop.study.trials import Trials

ARM = (DataCycle.INCREMENTAL, 0.8)


def run(name: str, config: StudyConfig, workers: str) -> list[Task]:
    """The loops of the finished study, through the command line."""
    folder = stores.runs_folder() / "presets"
    folder.mkdir(parents=True, exist_ok=True)
    preset = folder / f"{name}.yaml"
    preset.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    subprocess.run([sys.executable, "-m", "ouroloop", "sweep", str(preset), f"--workers={workers}"], check=True)
    trials = Trials.load(name)
    assert trials is not None
    return list(trials.tasks().values())


def main(workers: str, *changes: str) -> int:
    overrides = [change.removeprefix("--") for change in changes]
    pruned = load_preset("search-smoke", overrides, StudyConfig)
    unpruned = load_preset("search-smoke", [*overrides, "search.max_rise=null"], StudyConfig)
    lattice = pruned.search.lattice()
    as_grid = ["kind=grid", f"synthetic_proportions={lattice[1::2]}", "search={}"]
    grid = load_preset("search-smoke", [*overrides, *as_grid], StudyConfig)
    found = {
        "pruned": run("check-pruned", pruned, workers),
        "unpruned": run("check-unpruned", unpruned, workers),
        "grid": run("check-grid", grid, workers),
    }
    brackets = {}
    for name, config in (("pruned", pruned), ("unpruned", unpruned)):
        brackets[name] = Search(config, found[name]).interval(ARM)
    points = finished_points(found["grid"])
    target = pruned.search.target_retention
    # From the last λ up to which all hold to the first from which all fail: noise may leave more than one step
    failing = [p.proportion for p in points if p.mean < target]
    holding = [p.proportion for p in points if p.mean >= target]
    low = max((p for p in holding if p < min(failing, default=1.0)), default=lattice[0])
    high = min((p for p in failing if p > max(holding, default=0.0)), default=lattice[-1])
    for name, tasks in found.items():
        states = [task.state for task in tasks]
        generations = sum(task.reached for task in tasks)
        print(f"{name}: {len(states)} loops ({states.count('pruned')} ended early), {generations} generations")
    for point in points:
        print(f"  grid λ = {point.proportion:g}: {point}")
    rises = [
        max(later - earlier for i, earlier in enumerate(values) for later in values[i:])
        for task in found["grid"]
        if (values := [value for _, value in sorted(task.retention.items())])
    ]
    print(f"the largest rise of retention in a loop of the grid: {max(rises):.3f}, on average {mean(rises):.3f}")
    print(f"search {brackets['pruned']}, without pruning {brackets['unpruned']}, grid [{low:g}, {high:g}]")
    held, failed = brackets["pruned"]
    # The interval that the search states at 95 % must contain the grid's crossing
    inside = (held is None or held <= high) and (failed is None or low <= failed)
    same = brackets["pruned"] == brackets["unpruned"]
    print(f"it has the grid's crossing in it: {inside}; same without pruning: {same}")
    return 0 if inside and same else 1


if __name__ == "__main__":
    Path(stores.runs_folder()).mkdir(parents=True, exist_ok=True)
    sys.exit(main(*(sys.argv[1:] or ["2"])))
