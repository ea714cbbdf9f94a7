"""The finding in three sentences: how much diversity is left, when half of it was gone, what became of truth."""

from collections.abc import Sequence

from ouroloop.outcome import FIXED_SHARE, Interval, Loop, Outcome, interval
from ouroloop.status import RETENTION


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
