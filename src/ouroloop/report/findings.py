"""The finding in three sentences: how much diversity is left, when half of it was gone, what became of truth."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ouroloop.report.results import FIXED_SHARE, Loop, Results, kept_at, last_generation, retention_bounds
from ouroloop.science.metrics import RETENTION
from ouroloop.science.statistics import UNBOUNDED, Bounds, Interval, Survival, crossing, interval, survival
from ouroloop.testbed.base import as_words


def headline(results: Results) -> list[str]:
    """Three sentences with their numbers, seeds and intervals; fewer where something was not measured."""
    if not results.cells:
        return ["No generation has been measured yet, so there is nothing to say."]
    kept = {cell: end for cell, loops in results.cells.items() if (end := _at_end(loops))}
    if not kept:
        return [_scope(results), "Diversity retention could not be computed: D_0 has no diversity.", _became(results)]
    most, least = max(kept, key=lambda cell: kept[cell][1].mean), min(kept, key=lambda cell: kept[cell][1].mean)
    sentence = f"{_scope(results)}: after {kept[least][0]} generations "
    sentence += f"{kept[least][1].mean:.1%} of D_0's diversity is left"
    if most == least:
        sentence += _uncertainty(kept[least][1])
    else:
        later = "" if kept[most][0] == kept[least][0] else f" after {kept[most][0]}"
        sentence += (
            f" at {least}{_uncertainty(kept[least][1])}, and {kept[most][1].mean:.1%}{later} at {most}"
            f"{_uncertainty(kept[most][1])}"
        )
    return [f"{sentence}.", _halving(results), _became(results, least)]


def progress(results: Results) -> str:
    """How many loops are in which state, and which have tags that cannot be read; empty when all is as it should be."""
    states = [loop.run.status.lower() for loop in results.loops]
    said = [f"{loop.name}: {loop.problem}" for loop in results.loops if loop.problem]
    if set(states) != {"finished"}:
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        said.insert(0, states[0] if len(states) == 1 else counts)
    return "; ".join(said)


def _scope(results: Results) -> str:
    measured = [loop for loops in results.cells.values() for loop in loops]
    seeds = {len(loops) for loops in results.cells.values()}
    if len(measured) == 1:
        return f"One loop ({next(iter(results.cells))}), one seed, so no interval over seeds"
    per_cell = "one seed each, so no intervals" if seeds == {1} else f"{_range(sorted(seeds))} seeds each"
    if len(results.cells) == 1:
        return f"{len(measured)} loops ({next(iter(results.cells))}), {len(measured)} seeds"
    return f"{len(measured)} loops, {len(results.cells)} settings with {per_cell}"


def _at_end(loops: Sequence[Loop]) -> tuple[int, Interval] | None:
    last = last_generation(loops)
    kept = kept_at(loops, last)
    return None if kept is None else (last, kept)


def _mean(loops: Sequence[Loop], key: str, generation: int) -> float | None:
    """Over the loops that measured it there."""
    values = [own[generation] for loop in loops if generation in (own := loop.history.get(key, {}))]
    return sum(values) / len(values) if values else None


def _uncertainty(kept: Interval) -> str:
    """In brackets; nothing for one seed, which the first words of the sentence say."""
    if kept.num_seeds < 2:
        return ""
    if kept.low is None or kept.high is None:
        return f" (in all {kept.num_seeds} seeds)"
    return f" (95% interval {kept.low:.1%} to {kept.high:.1%}, n = {kept.num_seeds} seeds)"


def half_lives(loops: Sequence[Loop]) -> Survival | None:
    """When half of D_0's diversity is gone, by the loops that measured it; those that did not come so far count too."""
    measured = [loop for loop in loops if loop.history.get(RETENTION)]
    lives, reached = [loop.half_life for loop in measured], [loop.reached for loop in measured]
    return survival(lives, reached) if measured else None


def _halving(results: Results) -> str:
    lives = {cell: found for cell, loops in results.cells.items() if (found := half_lives(loops))}
    halved = {cell: found for cell, found in lives.items() if found.num_events}
    if not halved:
        reached = sorted(loop.reached for loops in results.cells.values() for loop in loops)
        return f"No loop has lost half of it in {_range(reached)} generations."
    soonest = min(halved, key=lambda cell: halved[cell].restricted_mean.mean)
    own = [loop.half_life for loop in results.cells[soonest] if loop.half_life]
    some, every = halved[soonest].num_events, halved[soonest].restricted_mean.num_seeds
    word, at = ("", "") if len(lives) == 1 else ("soonest, ", f" at {soonest}")
    portion = "" if every == 1 else f", in all {every} seeds" if some == every else f", in {some} of {every} seeds"
    sentence = f"Half of it was gone {word}at generation {_range(sorted(own))}{at}{portion}"
    if every > 1 and (median := halved[soonest].median) is not None:
        sentence += f" (median {median})"
    if safe := [cell for cell in lives if cell not in halved]:
        sentence += f"; no loop lost half at {', '.join(safe)}"
    return f"{sentence}."


def _became(results: Results, cell: str | None = None) -> str:
    """What became of truth in a cell; of what the testbed names first, where nothing is true or false."""
    cell = cell or next(iter(results.cells))
    return _truth(results, cell) if results.testbed.composition else _named_first(results, cell)


def _named_first(results: Results, cell: str) -> str:
    loops = results.cells[cell]
    at, last = "" if len(results.cells) == 1 else f" at {cell}", last_generation(loops)
    said = []
    for word, key in results.testbed.headline.items():
        first, end = _mean(loops, key, 1), _mean(loops, key, last)
        if first is not None and end is not None:
            unit = " nats per token" if key.endswith("nats_per_token") else ""
            said.append(f"{word} went from {as_words(key, first)} to {as_words(key, end)}{unit}")
    if not said:
        return f"Nothing else{at} was measured{_fixed(results)}."
    what = " and ".join(said)
    return f"{what[0].upper()}{what[1:]}{at}, from generation 1 to {last}{_fixed(results)}."


def _truth(results: Results, cell: str) -> str:
    loops = results.cells[cell]
    at, last = "" if len(results.cells) == 1 else f" at {cell}", last_generation(loops)
    first, end, malformed = (
        _mean(loops, *where) for where in (("correctness", 1), ("correctness", last), ("error_rate", last))
    )
    if first is None or end is None:
        return f"The share of True texts{at} was not measured{_fixed(results)}."
    course = f"went from {first:.1%} at generation 1 to {end:.1%} at {last}"
    if f"{first:.1%}" == f"{end:.1%}":
        course = f"is {end:.1%} at generation {last}, as at 1"
    sentence = f"The share of True texts{at} {course}"
    if malformed is not None:
        sentence += f", with {malformed:.1%} malformed"
    return f"{sentence}{_fixed(results)}."


def _fixed(results: Results) -> str:
    """How many loops wrote one and the same text in the end, and whether it was a True one."""
    loops = [loop for own in results.cells.values() for loop in own]
    fixed = [text for loop in loops if (text := loop.fixed)]
    if not fixed:
        return ""
    if not results.testbed.composition:
        whose = "in the end" if len(loops) == 1 else f"{len(fixed)} of {len(loops)} loops ended with"
        return f"; {whose} one text {'makes' if len(loops) == 1 else 'making'} up {FIXED_SHARE:.0%} or more"
    others = sum(text.said["verdict"] != "True" for text in fixed)
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
            "coverage_tail_10", "unique_fraction", "grammar_membership", *(f"distinct_{n}" for n in range(1, 5)),
            "ngram_entropy_nats", "vocabulary_coverage", "rare_token_coverage")  # fmt: skip
_RISING = ("kl_forward_nats", "kl_forward_t1_nats", "kl_reverse_nats", "depth_tv", "heldout_nats_per_token",
           "heldout_t1_nats_per_token", "self_bleu", "compression_ratio", "repetition", "verbatim_share")  # fmt: skip
_MARGIN = 0.1
_SLOPE_GENERATIONS = 20


def findings_json(results: Results) -> str:
    """The findings as text: no times, no ids, keys in a fixed order. What the keys mean is in docs/findings.md."""
    content = {
        "study": results.name,
        "cells": [_cell(*item) for item in results.cells.items()],
        "order": _order(results),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: str, loops: Sequence[Loop]) -> dict[str, Any]:
    last = last_generation(loops)
    judged = bool(loops[0].testbed.composition)
    fixed = {loop.seed: left.as_record() for loop in loops if (left := loop.fixed)}
    kept = {loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in loops}
    return {
        "cell": cell,
        "seeds": [loop.seed for loop in loops],
        "generation": last,
        "retention": _over_seeds(kept, retention_bounds(loops)),
        "retention_slope": _slope(loops, last),
        "half_life": _half_life(loops),
        "fixed_on_one_text": {
            "loops": len(fixed),
            **(
                {"on_one_that_is_not_true": sum(left["verdict"] != "True" for left in fixed.values())} if judged else {}
            ),
            "by_seed": fixed,
        },
        "lead_before_retention_fell_by_a_tenth": _leads(loops),
    }


def _slope(loops: Sequence[Loop], last: int) -> dict[str, Any]:
    """Of retention, a generation, by least squares over the last of them: whether the loss goes on or has ended.

    Nothing for loops that are shorter. An extrapolation of it is one: a loss that slows down has not stopped.
    """
    if last <= _SLOPE_GENERATIONS:
        return {}
    times = range(last - _SLOPE_GENERATIONS, last + 1)
    curves = {loop.seed: [loop.history.get(RETENTION, {}).get(t) for t in times] for loop in loops}
    slopes = {
        seed: None if None in curve else float(np.polyfit(times, np.array(curve), 1)[0])
        for seed, curve in curves.items()
    }
    return {"from": times[0], "to": last, **_over_seeds(slopes)}


def _half_life(loops: Sequence[Loop]) -> dict[str, Any]:
    """By seed, null where half was not lost; the median and the mean up to a horizon count those loops too."""
    found: dict[str, Any] = {"by_seed": {loop.seed: loop.half_life for loop in loops}}
    lives = half_lives(loops)
    if lives is None:
        return found
    mean, low, high, n = lives.restricted_mean
    restricted = {
        "horizon": lives.horizon,
        "mean": _rounded(mean),
        "low": _rounded(low),
        "high": _rounded(high),
        "n": n,
    }
    median = {"median": lives.median, "median_low": lives.median_low, "median_high": lives.median_high}
    return found | {"lost_half": lives.num_events, **median, "mean_up_to_horizon": restricted}


def _over_seeds(values: Mapping[str, float | None], bounds: Bounds = UNBOUNDED) -> dict[str, Any]:
    """By seed, with mean and 95 % interval when every seed has a value: leaving one out would be no mean."""
    known = [float(value) for value in values.values() if value is not None]
    found: dict[str, Any] = {"by_seed": {seed: _rounded(value) for seed, value in values.items()}}
    if len(known) == len(values):
        mean, low, high, n = interval(known, bounds)
        found |= {"mean": _rounded(mean), "low": _rounded(low), "high": _rounded(high), "n": n}
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _leads(loops: Sequence[Loop]) -> dict[str, Any]:
    """Generations from a measure's moving a tenth of what it was at t = 1 until retention had fallen by a tenth of it.

    By measure, the longest mean first; nothing of a measure that no seed saw cross with retention. `says` is what a
    crossing is: of a band over all generations at once, or of the point estimate where a measure has no error.
    """
    leads: dict[str, dict[str, Any]] = {}
    fell = {loop.seed: _crossed(loop, RETENTION, 1 - _MARGIN)[0] for loop in loops}
    for key in (*_FALLING, *_RISING):
        crossed = {loop.seed: _crossed(loop, key, 1 - _MARGIN if key in _FALLING else 1 + _MARGIN) for loop in loops}
        by_seed: dict[str, float | None] = {}
        for seed, (warned, _) in crossed.items():
            later = fell[seed]
            by_seed[seed] = None if later is None or warned is None else later - warned
        if any(lead is not None for lead in by_seed.values()):
            is_banded = all(banded for _, banded in crossed.values())
            leads[key] = {"says": "simultaneous 95 % band" if is_banded else "point estimate", **_over_seeds(by_seed)}
    means = {key: lead["mean"] for key, lead in leads.items() if "mean" in lead}
    return dict(sorted(leads.items(), key=lambda item: -means.get(item[0], float("-inf"))))


def _crossed(loop: Loop, key: str, factor: float) -> tuple[int | None, bool]:
    return crossing(loop.history.get(key, {}), loop.history.get(f"{key}_stderr", {}), factor)


def _order(results: Results) -> dict[str, Any]:
    """The cells by retention at the last generation that all came to, most first, and in how many seeds it holds."""
    last = min(map(last_generation, results.cells.values()), default=0)
    kept: dict[str, dict[str, float]] = {}
    for cell, loops in results.cells.items():
        at_last = {loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in loops}
        if known := {seed: value for seed, value in at_last.items() if value is not None}:
            kept[cell] = known
    by_mean = sorted(kept, key=lambda cell: -sum(kept[cell].values()) / len(kept[cell]))
    shared = set.intersection(*(set(values) for values in kept.values())) if kept else set()
    agree = sum(sorted(kept, key=lambda cell: -kept[cell][seed]) == by_mean for seed in shared)
    return {"generation": last, "most_retention_first": by_mean, "seeds": len(shared), "seeds_in_this_order": agree}
