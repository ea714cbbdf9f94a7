"""How many λ does a sampler need until it has λ* between two neighbours of the lattice?

    python experiments/compare_samplers.py

Bisection (ours) against Optuna's TPE, GP and random samplers on falling curves of known crossing, 31 λ, each
with the objective that suits it: closeness of the mean retention to the target. A sampler is done when it has
tried the last λ that holds and the first that fails; it is not charged for choosing a λ again, and is
cut off after 31 different λ. Runs no models; takes a minute.
"""

import math
import warnings
from collections.abc import Callable
from statistics import mean

import numpy as np
import optuna

from ouroloop.science.seeding import stream
from ouroloop.study.search import open_points

POINTS = [step / 32 for step in range(1, 32)]
TARGET = 0.75
CURVES = 20
MAX_ASKED = 60


def curve(number: int) -> Callable[[float], float]:
    """A logistic fall with the noise of a mean over three seeds, made monotone: one crossing, known."""
    rng = stream(number, "curve")
    middle, width = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.3)
    noisy = [1 / (1 + math.exp((point - middle) / width)) + rng.normal(0, 0.03) for point in POINTS]
    falling = dict(zip(POINTS, np.sort(noisy)[::-1].tolist(), strict=True))
    return lambda point: falling[point]


def needed(tried: list[float], held: Callable[[float], bool]) -> bool:
    last = max((p for p in POINTS if held(p)), default=None)
    first = min((p for p in POINTS if not held(p)), default=None)
    return all(point is None or point in tried for point in (last, first))


def bisection(value: Callable[[float], float]) -> int:
    known: dict[float, bool] = {}
    while (point := next(open_points(POINTS, known.get), None)) is not None:
        known[point] = value(point) >= TARGET
    return len(known)


def with_sampler(sampler: optuna.samplers.BaseSampler, value: Callable[[float], float]) -> int:
    study = optuna.create_study(sampler=sampler)
    tried: list[float] = []
    for _ in range(MAX_ASKED):
        if needed(tried, lambda point: value(point) >= TARGET):
            break
        trial = study.ask()
        point = trial.suggest_float("synthetic_proportion", POINTS[0], POINTS[-1], step=POINTS[0])
        study.tell(trial, abs(value(point) - TARGET))
        if point not in tried:
            tried.append(point)
    return len(tried) if needed(tried, lambda point: value(point) >= TARGET) else len(POINTS)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    samplers: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "TPE": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=3, multivariate=True),
        "GP": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=3, deterministic_objective=True),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    }
    show("bisection", [bisection(curve(number)) for number in range(CURVES)])
    for name, build in samplers.items():
        show(name, [with_sampler(build(number), curve(number)) for number in range(CURVES)])


def show(name: str, found: list[int]) -> None:
    print(f"{name:<10} {mean(found):5.1f} λ on average, at most {max(found)}, of {len(POINTS)}", flush=True)


if __name__ == "__main__":
    main()
