"""What a study says in numbers, each with its seeds and interval: the same loops give the same bytes.

A measure *warns* at the first generation after t = 1 at which it has surely left what it was at t = 1 by a
tenth: a falling one when the upper end of its 95 % interval is below 0.9 of it, a rising one when the lower
end is above 1.1. Its lead is how many generations before retention was below 0.9 that was.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ouroloop.outcome import Loop, Outcome, interval
from ouroloop.status import RETENTION

_FALLING = ("coverage", "coverage_depth_1_3", *(f"coverage_depth_{d}" for d in range(1, 8)), "coverage_tail_50",
            "coverage_tail_10", "unique_fraction", "grammar_membership")  # fmt: skip
_RISING = ("kl_forward_nats", "kl_forward_t1_nats", "kl_reverse_nats", "depth_tv")
_MARGIN = 0.1


def findings_json(outcome: Outcome) -> str:
    """The findings as text: no times, no ids, keys in a fixed order."""
    content = {
        "study": outcome.name,
        "cells": [_cell(*item) for item in outcome.cells.items()],
        "order": _order(outcome),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: str, loops: Sequence[Loop]) -> dict[str, Any]:
    last = min(loop.reached for loop in loops)
    fixed = {loop.seed: left._asdict() for loop in loops if (left := loop.fixed)}
    return {
        "cell": cell,
        "seeds": [loop.seed for loop in loops],
        "generation": last,
        "retention": _over_seeds({loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in loops}),
        "half_life": _over_seeds({loop.seed: loop.half_life for loop in loops}),
        "fixed_on_one_text": {
            "loops": len(fixed),
            "on_one_that_is_not_true": sum(left["verdict"] != "True" for left in fixed.values()),
            "by_seed": fixed,
        },
        "lead_before_retention_below_0.9": _leads(loops),
    }


def _over_seeds(values: Mapping[str, float | None]) -> dict[str, Any]:
    """By seed, with mean and 95 % interval when every seed has a value: leaving one out would be no mean."""
    known = [float(value) for value in values.values() if value is not None]
    found: dict[str, Any] = {"by_seed": {seed: _rounded(value) for seed, value in values.items()}}
    if len(known) == len(values):
        mean, low, high, n = interval(known)
        found |= {"mean": _rounded(mean), "low": _rounded(low), "high": _rounded(high), "n": n}
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _leads(loops: Sequence[Loop]) -> dict[str, Any]:
    """Generations by measure, the longest mean first; nothing of a measure that no seed saw cross with retention."""
    leads: dict[str, dict[str, Any]] = {}
    for key in (*_FALLING, *_RISING):
        by_seed: dict[str, float | None] = {}
        for loop in loops:
            retention, warning = _fell(loop, RETENTION, 1.0), _warned(loop, key)
            by_seed[loop.seed] = None if retention is None or warning is None else retention - warning
        if any(lead is not None for lead in by_seed.values()):
            leads[key] = _over_seeds(by_seed)
    means = {key: lead["mean"] for key, lead in leads.items() if "mean" in lead}
    return dict(sorted(leads.items(), key=lambda item: -means.get(item[0], float("-inf"))))


def _warned(loop: Loop, key: str) -> int | None:
    at_first = loop.history.get(key, {}).get(1)
    if at_first is None:
        return None
    return _fell(loop, key, at_first) if key in _FALLING else _rose(loop, key, at_first)


def _fell(loop: Loop, key: str, reference: float) -> int | None:
    return _crossed(loop, key, lambda value, half: value + half < (1 - _MARGIN) * reference)


def _rose(loop: Loop, key: str, reference: float) -> int | None:
    return _crossed(loop, key, lambda value, half: value - half > (1 + _MARGIN) * reference)


def _crossed(loop: Loop, key: str, is_beyond: Callable[[float, float], bool]) -> int | None:
    values, errors = loop.history.get(key, {}), loop.history.get(f"{key}_stderr", {})
    beyond = (t for t in sorted(values) if t > 1 and is_beyond(values[t], 1.96 * errors.get(t, 0.0)))
    return next(beyond, None)


def _order(outcome: Outcome) -> dict[str, Any]:
    """The cells by retention at the last generation that all reached, most first, and in how many seeds it holds."""
    last = min((loop.reached for loops in outcome.cells.values() for loop in loops), default=0)
    kept: dict[str, dict[str, float]] = {}
    for cell, loops in outcome.cells.items():
        at_last = {loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in loops}
        if known := {seed: value for seed, value in at_last.items() if value is not None}:
            kept[cell] = known
    by_mean = sorted(kept, key=lambda cell: -sum(kept[cell].values()) / len(kept[cell]))
    shared = set.intersection(*(set(values) for values in kept.values())) if kept else set()
    agree = sum(sorted(kept, key=lambda cell: -kept[cell][seed]) == by_mean for seed in shared)
    return {"generation": last, "most_retention_first": by_mean, "seeds": len(shared), "seeds_in_this_order": agree}
