"""Does the interval that a search states for λ* cover the truth as often as it says?

    python experiments/check_interval.py [STUDIES] [RESULTS]

Simulates whole searches on response curves that are known, with the noise of seeds and of loops, through the same code
that decides what a real search runs next. No models. Exit code 1 if in any setting fewer than 93 % of the studies
cover λ*, except for curves that are flat at the target: there each point of a path may be misjudged, and the coverage
is only reported. 500 studies of each setting take some minutes. The results are also written into the JSON file
RESULTS.

And how often is a λ said to hold a high target whose population of loops does not? There the t test is not exact: a few
loops that have collapsed among many that have not are seldom among few seeds. This is reported, too.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.presets import load_preset
from ouroloop.science.seeding import stream
from ouroloop.science.statistics import LEVEL
from ouroloop.study.config import StudyConfig
from ouroloop.study.search import Bracket, Search, verdict
from ouroloop.study.task import Task

ARM = (DataCycle.INCREMENTAL, 0.8)
TARGET = 0.5

SETTINGS = {
    "3 seeds": {"seeds": 3, "max_seeds": 3},
    "6 seeds": {"seeds": 6, "max_seeds": 6},
    "3 to 12 seeds": {"seeds": 3, "max_seeds": 12},
    "3 to 12 seeds, noisy loops": {"seeds": 3, "max_seeds": 12, "level": 0.01, "noise": 0.08},
    "3 to 12 seeds, noisy seeds": {"seeds": 3, "max_seeds": 12, "level": 0.1, "noise": 0.01},
    "flat, 3 seeds": {"seeds": 3, "max_seeds": 3, "is_flat": True},
    "flat, 3 to 12 seeds": {"seeds": 3, "max_seeds": 12, "is_flat": True},
}


def response(center: float, width: float) -> Callable[[float], float]:
    """Retention of a population of seeds: a logistic fall that passes the target at `center`."""
    return lambda point: 1 / (1 + math.exp((point - center) / width))


def simulate(
    number: int, seeds: int, max_seeds: int, level: float = 0.05, noise: float = 0.04, is_flat: bool = False
) -> tuple[bool, float, int]:
    """One study: whether its interval covers λ*, how wide it is, and how many loops it took."""
    rng = stream(number, "study")
    center, width = float(rng.uniform(0.15, 0.85)), float(rng.uniform(0.03, 0.2))
    curve, levels = response(center, width), rng.normal(0, level, 200)
    if is_flat:
        is_above = bool(rng.integers(2))
        kept = TARGET + (1e-6 if is_above else -1e-6)
        center, curve = float(is_above), lambda _: kept  # λ* lies beyond all points, or before them
    loop = load_preset("smoke", ["model.kind=empirical", "train=null"], LoopConfig)
    search = {"lowest": 0.03125, "highest": 0.96875, "precision": 0.03125, "target_retention": TARGET}
    config = StudyConfig.model_validate(
        {"kind": "search", "seeds": list(range(seeds)), "search": search | {"max_seeds": max_seeds}, "loop": loop}
    )
    tasks: list[Task] = []
    while (wanted := next(Search(config, tasks).wanted(), None)) is not None:
        point = wanted.cycle.synthetic_proportion
        assert point is not None
        task = Task(wanted, f"{point} {wanted.seed}", "done", ceiling=2.0)
        value = max(0.0, curve(point) + levels[wanted.seed] + rng.normal(0, noise))
        task.retention = {wanted.num_generations: float(value)}
        tasks.append(task)
    found: Bracket = Search(config, tasks).interval(ARM)
    low = -math.inf if found.held is None else found.held
    high = math.inf if found.failed is None else found.failed
    return low <= center < high, min(high, 1.0) - max(low, 0.0), len(tasks)


def coverage(setting: dict[str, float], studies: int) -> tuple[float, float, float]:
    """The share of studies that cover λ*, the median width of their intervals, and the median number of loops."""
    found = [simulate(number, **setting) for number in range(studies)]  # type: ignore[arg-type]
    covered, widths, loops = zip(*found, strict=True)
    return sum(covered) / studies, median(widths), median(loops)


HIGH = 0.9
SKEWED: dict[str, Callable[[np.random.Generator, int], list[float]]] = {
    "mean 0.899, losses lognormal, sd of log 0.6": lambda rng, n: _lognormal(rng, n, 0.101, 0.6),
    "mean 0.880, losses lognormal, sd of log 1.0": lambda rng, n: _lognormal(rng, n, 0.12, 1.0),
    "mean 0.880, a fifth of the loops at 0.5": lambda rng, n: _mixed(rng, n, 0.2, 0.5),
    "mean 0.888, a tenth of the loops at 0.1": lambda rng, n: _mixed(rng, n, 0.1, 0.1),
}
"""Retention of n seeds, of which the population's mean is below `HIGH`."""


def _lognormal(rng: np.random.Generator, n: int, loss: float, sd: float) -> list[float]:
    return [1 - min(1.0, loss * math.exp(sd * z - sd * sd / 2)) for z in rng.standard_normal(n)]


def _mixed(rng: np.random.Generator, n: int, share: float, fallen: float) -> list[float]:
    return [(fallen if rng.random() < share else 0.975) + 0.01 * float(rng.standard_normal()) for _ in range(n)]


def said_to_hold(draw: Callable[[np.random.Generator, int], list[float]], seeds: int, draws: int) -> float:
    """The share of draws of so many seeds that a search with no more of them takes for a λ that holds `HIGH`."""
    rng = stream(seeds, "study")
    error = (1 - LEVEL) / 2
    verdicts = [verdict([(kept, kept) for kept in draw(rng, seeds)], HIGH, error) for _ in range(draws)]
    return verdicts.count("holds") / draws


def main(studies: int, results: Path | None = None) -> int:
    rows = []
    for name, setting in SETTINGS.items():
        covered, width, loops = coverage(setting, studies)
        rows.append({"setting": name, "studies": studies, "covered": covered, "median_width": width, "loops": loops})
        print(f"{name:<28} covers {covered:.1%} of {studies}; median width {width:.3f}, {loops:g} loops", flush=True)
        if results is not None:
            results.write_text(json.dumps(rows, indent=1) + "\n")
    for name, draw in SKEWED.items():
        shares = ", ".join(f"{said_to_hold(draw, seeds, 10 * studies):.1%} with {seeds}" for seeds in (3, 6, 12))
        print(f"{name}: said to hold {HIGH} in {shares} seeds; meant: at most {(1 - LEVEL) / 2:.1%}")
    return 0 if all(row["covered"] >= 0.93 for row in rows if not row["setting"].startswith("flat")) else 1


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(int(given[0]) if given else 500, *map(Path, given[1:])))
