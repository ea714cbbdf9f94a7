"""The finding in three sentences: how much diversity is left, when half of it was gone, what became of truth."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ouroloop.report.results import FIXED_SHARE, Interval, Loop, Outcome, interval
from ouroloop.study.trials import RETENTION


def headline(outcome: Outcome) -> list[str]:
    """Three sentences with their numbers, seeds and intervals; fewer where something was not measured."""
    if not outcome.cells:
        return ["No generation has been measured yet, so there is nothing to say."]
    kept = {cell: end for cell, loops in outcome.cells.items() if (end := _at_end(loops, RETENTION))}
    if not kept:
        return [_scope(outcome), "Diversity retention could not be computed: D_0 has no diversity.", _truth(outcome)]
    most, least = max(kept, key=lambda cell: kept[cell][1].mean), min(kept, key=lambda cell: kept[cell][1].mean)
    sentence = f"{_scope(outcome)}: after {kept[least][0]} generations "
    sentence += f"{kept[least][1].mean:.1%} of D_0's diversity is left"
    if most == least:
        sentence += _uncertainty(kept[least][1])
    else:
        later = "" if kept[most][0] == kept[least][0] else f" after {kept[most][0]}"
        sentence += (
            f" at {least}{_uncertainty(kept[least][1])}, and {kept[most][1].mean:.1%}{later} at {most}"
            f"{_uncertainty(kept[most][1])}"
        )
    return [f"{sentence}.", _halving(outcome), _truth(outcome, least)]


def progress(outcome: Outcome) -> str:
    """How many loops are in which state; empty when all are finished."""
    states = [loop.run.status.lower() for loop in outcome.loops]
    if set(states) == {"finished"}:
        return ""
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def _scope(outcome: Outcome) -> str:
    measured = [loop for loops in outcome.cells.values() for loop in loops]
    seeds = {len(loops) for loops in outcome.cells.values()}
    if len(measured) == 1:
        return f"One loop ({next(iter(outcome.cells))}), one seed, so no interval over seeds"
    per_cell = "one seed each, so no intervals" if seeds == {1} else f"{_range(sorted(seeds))} seeds each"
    if len(outcome.cells) == 1:
        return f"{len(measured)} loops ({next(iter(outcome.cells))}), {len(measured)} seeds"
    return f"{len(measured)} loops, {len(outcome.cells)} settings with {per_cell}"


def _at_end(loops: Sequence[Loop], key: str) -> tuple[int, Interval] | None:
    """The last generation of a cell, and the mean of those of its loops that came so far."""
    last = max(loop.reached for loop in loops)
    values = [value for loop in loops if isinstance(value := loop.at(key, last), float)]
    return (last, interval(values)) if values else None


def _uncertainty(kept: Interval) -> str:
    """In brackets; nothing for one seed, which the first words of the sentence say."""
    if kept.low is None or kept.high is None:
        return ""
    return f" (95% interval {max(0.0, kept.low):.1%} to {kept.high:.1%}, n = {kept.num_seeds} seeds)"


def _halving(outcome: Outcome) -> str:
    lives = {
        cell: [(loop.half_life, loop.reached) for loop in loops if RETENTION in loop.history]
        for cell, loops in outcome.cells.items()
    }
    halved = {cell: [life for life, _ in own if life] for cell, own in lives.items() if any(life for life, _ in own)}
    if not halved:
        fewest = min(reached for own in lives.values() for _, reached in own)
        return f"No loop has lost half of it, over {fewest} generations or more."
    word = "" if len(lives) == 1 else "soonest, "
    soonest = min(halved, key=lambda cell: sum(halved[cell]) / len(halved[cell]))
    at = "" if len(lives) == 1 else f" at {soonest}"
    some, every = len(halved[soonest]), len(lives[soonest])
    portion = "" if every == 1 else f", in all {every} seeds" if some == every else f", in {some} of {every} seeds"
    sentence = f"Half of it was gone {word}at generation {_range(sorted(halved[soonest]))}{at}{portion}"
    safe = [cell for cell, own in lives.items() if own and cell not in halved]
    if safe:
        sentence += f"; no loop lost half at {', '.join(safe)}"
    return f"{sentence}."


def _truth(outcome: Outcome, cell: str | None = None) -> str:
    cell = cell or next(iter(outcome.cells))
    loops = outcome.cells[cell]
    at = "" if len(outcome.cells) == 1 else f" at {cell}"
    first = [value for loop in loops if isinstance(value := loop.at("correctness", 1), float)]
    end, malformed = _at_end(loops, "correctness"), _at_end(loops, "error_rate")
    assert end is not None
    sentence = (
        f"The share of True texts{at} went from {sum(first) / len(first):.1%} at generation 1 "
        f"to {end[1].mean:.1%} at {end[0]}"
    )
    if malformed:
        sentence += f", with {malformed[1].mean:.1%} malformed"
    return f"{sentence}{_fixed(outcome)}."


def _fixed(outcome: Outcome) -> str:
    """How many loops wrote one and the same text in the end, and whether it was a True one."""
    loops = [loop for own in outcome.cells.values() for loop in own]
    fixed = [text for loop in loops if (text := loop.fixed)]
    others = sum(text.verdict != "True" for text in fixed)
    if not fixed:
        return ""
    if len(loops) == 1:
        kind = "one that is not True" if others else "a True one"
        return f"; in the end one text makes up {FIXED_SHARE:.0%} or more, {kind}"
    return (
        f"; {len(fixed)} of {len(loops)} loops ended with one text making up {FIXED_SHARE:.0%} or more, "
        f"{others} of them with one that is not True"
    )


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


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
