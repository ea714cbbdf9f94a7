"""The finding in three sentences: how much diversity is left, when half of it was gone, what became of truth."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

import numpy as np

from ouroloop.report.results import (
    FIXED_SHARE,
    End,
    Loop,
    Results,
    counted_at,
    end_of,
    halving,
    kept_at,
    most_of,
)
from ouroloop.science.metrics import RETENTION
from ouroloop.science.statistics import UNBOUNDED, Bounds, Interval, bounds_of_kept, crossing, interval
from ouroloop.testbed.base import as_words


def summary(results: Results) -> list[str]:
    """Three sentences with their numbers, seeds and intervals; fewer where something was not measured."""
    if not results.cells:
        return ["No generation has been measured yet, so there is nothing to say."]
    last, kept, behind = at_end(results)
    if not kept:
        return [_scope(results), "Diversity retention could not be computed: D_0 has no diversity.", _became(results)]
    most, least = max(kept, key=lambda cell: kept[cell].mean), min(kept, key=lambda cell: kept[cell].mean)
    unsure = {cell: _uncertainty(kept[cell], len(results.cells[cell])) for cell in (most, least)}
    sentence = f"{_scope(results)}: after {last} generation{'s' * (last > 1)} {kept[least].mean:.1%} of D_0's diversity"
    if len(results.cells) == 1:
        sentence += f" is left{unsure[least]}"
    else:
        sentence += f" is left at {least}{unsure[least]}"
    if most != least:
        sentence += f", and {kept[most].mean:.1%} at {most}{unsure[most]}"
    if behind:
        sentence += f"; {'; '.join(behind)} {'has' if len(behind) == 1 else 'have'} not come so far"
    return [f"{sentence}.", _halving(results), _became(results, least)]


def at_end(results: Results) -> tuple[int, dict[str, Interval], list[str]]:
    """The latest end of a cell, what each cell that ends there keeps, and the cells that end earlier.

    At an earlier generation more is left of any cell, so the latter are not compared.
    """
    ends = {cell: end_of(loops).generation for cell, loops in results.cells.items()}
    kept = {cell: found for cell, loops in results.cells.items() if (found := kept_at(loops, ends[cell]))}
    last = max((ends[cell] for cell in kept), default=0)
    there = {cell: found for cell, found in kept.items() if ends[cell] == last}
    return last, there, [cell for cell in kept if cell not in there]


def progress(results: Results) -> str:
    """How many loops are in which state, and which have tags that cannot be read; empty when all is as it should be."""
    states = [loop.state for loop in results.loops]
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


def _uncertainty(kept: Interval, num_loops: int) -> str:
    """In brackets; empty for a lone loop, of which the first words of the sentence tell."""
    if num_loops == 1:
        return ""
    if kept.low is None or kept.high is None:
        return f" ({_in_seeds(kept.num_seeds, num_loops)})"
    return f" (95% interval {kept.low:.1%} to {kept.high:.1%}, n = {_seeds(kept.num_seeds, num_loops)})"


def _seeds(n: int, num_loops: int) -> str:
    return f"{n} seeds" if n == num_loops else f"{n} of {num_loops} seeds"


def _in_seeds(n: int, num_loops: int) -> str:
    return f"in {'all ' if n == num_loops else ''}{_seeds(n, num_loops)}"


def _by_seed(values: Sequence[float], show: Callable[[float], str], num_loops: int) -> str:
    """The lowest and the highest, in brackets; empty for a lone loop."""
    if num_loops == 1:
        return ""
    low, high = show(min(values)), show(max(values))
    if low == high:
        return f" ({_in_seeds(len(values), num_loops)})"
    return f" ({low} to {high} among {_seeds(len(values), num_loops)})"


def _halving(results: Results) -> str:
    """When half was gone in the cell with the earliest median, or in the cells that share it.

    A median does not depend on how far loops came. Where no cell has one, the cell whose loop was first counts.
    """
    measured = {cell: [loop for loop in own if loop.history.get(RETENTION)] for cell, own in results.cells.items()}
    lives = {cell: [life for loop in own if (life := loop.half_life)] for cell, own in measured.items() if own}
    halved = [cell for cell in lives if lives[cell]]
    if not halved:
        reached = sorted(loop.reached for loops in results.cells.values() for loop in loops)
        return f"No loop has lost half of it in {_range(reached)} generations."
    medians = {cell: found.median for cell in halved if (found := halving(measured[cell])) and found.median}
    when = {cell: (medians.get(cell, inf), 0 if cell in medians else min(lives[cell])) for cell in halved}
    soonest = [cell for cell in halved if when[cell] == min(when.values())]
    own = sorted(life for cell in soonest for life in lives[cell])
    every = sum(len(measured[cell]) for cell in soonest)
    word, at = ("", "") if len(lives) == 1 else ("soonest, ", f" at {_listed(soonest, ' and ')}")
    portion = "" if every == 1 else f", {_in_seeds(len(own), every)}"
    if len(soonest) > 1:
        portion = f", in {len(own)} of {every} loops"
    sentence = f"Half of it was gone {word}at generation {_range(own)}{at}{portion}"
    if every > 1 and soonest[0] in medians:
        sentence += f" (median {medians[soonest[0]]})"
    if safe := [cell for cell in lives if cell not in halved]:
        sentence += f"; no loop lost half at {_listed(safe, ', ')}"
    return f"{sentence}."


def _listed(cells: Sequence[str], separator: str) -> str:
    """Names with a comma in them, as those of several settings have, are kept apart by more than one."""
    return ("; " if any("," in cell for cell in cells) else separator).join(cells)


def _became(results: Results, cell: str | None = None) -> str:
    """What became of truth in a cell; where nothing is true or false, of what the testbed names first."""
    cell = cell or next(iter(results.cells))
    return _truth(results, cell) if results.testbed.composition else _named_first(results, cell)


def _named_first(results: Results, cell: str) -> str:
    loops, end = results.cells[cell], end_of(results.cells[cell])
    at, last = "" if len(results.cells) == 1 else f" at {cell}", end.generation
    said = []
    for word, key in results.testbed.headline.items():
        if course := _course(end, key):
            show = partial(as_words, key)
            first, final = (show(float(np.mean(values))) for values in course)
            unit = " nats per token" if key.endswith("nats_per_token") else ""
            said.append(f"{word} went from {first} to {final}{unit}{_by_seed(course[1], show, len(loops))}")
    if not said:
        return f"Nothing else{at} was measured{_fixed(results)}."
    what = " and ".join(said)
    return f"{what[0].upper()}{what[1:]}{at}, from generation 1 to {last}{_fixed(results)}."


def _truth(results: Results, cell: str) -> str:
    loops, end = results.cells[cell], end_of(results.cells[cell])
    at, last = "" if len(results.cells) == 1 else f" at {cell}", end.generation
    true, malformed = (_course(end, key) for key in ("correctness", "error_rate"))
    if not true:
        return f"The share of True texts{at} was not measured{_fixed(results)}."
    first, final = (f"{np.mean(values):.1%}" for values in true)
    course = (
        f"is {final} at generation {last}{', as at 1' if last > 1 else ''}"
        if first == final
        else f"went from {first} at generation 1 to {final} at {last}"
    )
    sentence = f"The share of True texts{at} {course}{_by_seed(true[1], '{:.1%}'.format, len(loops))}"
    if malformed:
        sentence += f", with {np.mean(malformed[1]):.1%} malformed"
    return f"{sentence}{_fixed(results)}."


def _course(end: End, key: str) -> tuple[list[float], list[float]] | None:
    """Values at generation 1 and at the end, of the same loops: those that reached the end and measured it at both."""
    ends = [(own.get(1), own.get(end.generation)) for loop in end.loops for own in [loop.history.get(key, {})]]
    both = [(first, final) for first, final in ends if first is not None and final is not None]
    return ([first for first, _ in both], [final for _, final in both]) if both else None


def _fixed(results: Results) -> str:
    """How many loops ended with one and the same text, and whether it was a True one."""
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
    """The findings as text: no times, no ids, keys in a fixed order. What the keys mean is in docs/studies.md."""
    content = {
        "study": results.name,
        "cells": [_cell(*item) for item in results.cells.items()],
        "order": _order(results),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: str, loops: Sequence[Loop]) -> dict[str, Any]:
    last, counted = end_of(loops)
    seeds = [loop.seed for loop in counted]
    judged = bool(loops[0].testbed.composition)
    fixed = {loop.seed: left.as_record() for loop in loops if (left := loop.fixed)}
    kept = {loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in loops}
    bounds = bounds_of_kept((value for value in kept.values() if value is not None), most_of(loops))
    return {
        "cell": cell,
        "seeds": [loop.seed for loop in loops],
        "generation": last,
        "retention": _over_seeds(kept, seeds, bounds),
        "retention_slope": _slope(loops, last, seeds),
        "half_life": _half_life(loops),
        "fixed_on_one_text": {
            "loops": len(fixed),
            **(
                {"on_one_that_is_not_true": sum(left["verdict"] != "True" for left in fixed.values())} if judged else {}
            ),
            "by_seed": fixed,
        },
        "lead_before_retention_fell_by_a_tenth": _leads(loops, seeds),
    }


def _slope(loops: Sequence[Loop], last: int, seeds: Collection[str]) -> dict[str, Any]:
    """Change of retention a generation, by least squares over the last of them: whether the loss goes on or has ended.

    Empty for loops that are shorter. To draw it on is to extrapolate: a loss that slows down has not stopped.
    """
    if last <= _SLOPE_GENERATIONS:
        return {}
    times = range(last - _SLOPE_GENERATIONS, last + 1)
    curves = {loop.seed: [loop.history.get(RETENTION, {}).get(t) for t in times] for loop in loops}
    slopes = {
        seed: None if None in curve else float(np.polyfit(times, np.array(curve), 1)[0])
        for seed, curve in curves.items()
    }
    return {"from": times[0], "to": last, **_over_seeds(slopes, seeds)}


def _half_life(loops: Sequence[Loop]) -> dict[str, Any]:
    """Half-lives by seed, null where half was not lost.

    The median and the mean up to a horizon count those loops too, and are absent where a search ended one of them.
    """
    found: dict[str, Any] = {"by_seed": {loop.seed: loop.half_life for loop in loops}}
    lives = halving(loops)
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


def _over_seeds(
    values: Mapping[str, float | None], seeds: Collection[str], bounds: Bounds = UNBOUNDED
) -> dict[str, Any]:
    """Values by seed; if all of `seeds` have one, with mean and 95 % interval: without one of them it is no mean."""
    known = [float(value) for seed, value in values.items() if value is not None and seed in seeds]
    found: dict[str, Any] = {"by_seed": {seed: _rounded(value) for seed, value in values.items()}}
    if known and len(known) == len(seeds):
        mean, low, high, n = interval(known, bounds)
        found |= {"mean": _rounded(mean), "low": _rounded(low), "high": _rounded(high), "n": n}
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _leads(loops: Sequence[Loop], seeds: Collection[str]) -> dict[str, Any]:
    """How many generations before retention a measure had moved by a tenth of what it was at t = 1.

    By measure, the longest mean first, without those of which no seed saw both cross. `says` tells what crosses: a band
    over all generations at once, or the point estimate where a measure has no error.
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
            leads[key] = {
                "says": "simultaneous 95 % band" if is_banded else "point estimate",
                **_over_seeds(by_seed, seeds),
            }
    means = {key: lead["mean"] for key, lead in leads.items() if "mean" in lead}
    return dict(sorted(leads.items(), key=lambda item: -means.get(item[0], float("-inf"))))


def _crossed(loop: Loop, key: str, factor: float) -> tuple[int | None, bool]:
    return crossing(loop.history.get(key, {}), loop.history.get(f"{key}_stderr", {}), factor)


def _order(results: Results) -> dict[str, Any]:
    """The cells that ended last by what they keep there, most first, and in how many seeds that order holds."""
    last, there, _ = at_end(results)
    by_mean = sorted(there, key=lambda cell: -there[cell].mean)
    kept: dict[str, dict[str, float]] = {}
    for cell in there:
        at_last = {
            loop.seed: loop.history.get(RETENTION, {}).get(last) for loop in counted_at(results.cells[cell], last)
        }
        kept[cell] = {seed: value for seed, value in at_last.items() if value is not None}
    shared = set.intersection(*(set(values) for values in kept.values())) if kept else set()
    agree = sum(sorted(kept, key=lambda cell: -kept[cell][seed]) == by_mean for seed in shared)
    return {"generation": last, "most_retention_first": by_mean, "seeds": len(shared), "seeds_in_this_order": agree}
