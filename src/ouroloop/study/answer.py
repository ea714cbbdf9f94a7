"""What came of a study: its answer in words and its table, on the study run."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import mean
from typing import Any

from ouroloop.record.history import Curves, history
from ouroloop.record.run import Run
from ouroloop.science.cycle import fresh_share
from ouroloop.science.metrics import RETENTION, half_life
from ouroloop.science.statistics import UNBOUNDED, Bounds, bounds_of_kept, interval, most_kept
from ouroloop.study.config import StudyConfig
from ouroloop.study.search import Arm, Search
from ouroloop.study.status import last_metrics, reached
from ouroloop.study.task import Task


@dataclass(frozen=True)
class Point:
    """What the finished loops of one setting kept of D_0's diversity at the last generation."""

    arm: Arm
    truth_label: str | None
    """None where the data has none."""
    proportion: float | None
    fresh_share: float
    by_seed: dict[int, float] = field(default_factory=dict)
    ever_kept: list[float] = field(default_factory=list)
    """What its loops kept at any generation."""

    @property
    def mean(self) -> float:
        return mean(self.by_seed.values())

    def __str__(self) -> str:
        values = list(self.by_seed.values())
        by_seed = f"{min(values):.1%} to {max(values):.1%} by seed" if len(values) > 1 else ""
        return f"{_mean(values, by_seed, bounds_of_kept(values, most_kept(self.ever_kept)))}, {_seeds(len(values))}"


def _mean(values: Sequence[float], said: str = "", bounds: Bounds = UNBOUNDED) -> str:
    """The mean in words; in brackets what else is said of the values, and the interval where they differ."""
    found = interval(values, bounds)
    known = found.low is not None and found.high is not None
    limits = f"95% interval {found.low:.1%} to {found.high:.1%}" if known else ""
    beside = "; ".join(filter(None, [said, limits]))
    return f"{found.mean:.1%}" + (f" ({beside})" if beside else "")


def finished_points(config: StudyConfig, tasks: Iterable[Task]) -> list[Point]:
    """The points of a study in order of cycle, temperature and λ; only loops that reached their last generation.

    None where methods are compared: loops of one point would differ in them, and the board is what comes of those.
    """
    if config.methods:
        return []
    found: dict[tuple[Arm, str | None, float | None], Point] = {}
    for task in tasks:
        if task.value is not None:
            loop = task.loop
            arm = (loop.cycle.kind, loop.sampling.temperature)
            setting = (arm, loop.data.tags.get("truth_label"), loop.cycle.synthetic_proportion)
            point = found.setdefault(setting, Point(*setting, fresh_share(loop.cycle, loop.data.num_examples)))
            point.by_seed[loop.seed] = task.value
            point.ever_kept.extend(task.retention.values())
    return sorted(found.values(), key=lambda point: (*point.arm, point.truth_label or "", point.proportion or 0.0))


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none keeps as much with less fresh data, or more with as little."""

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.mean >= other.mean and one.fresh_share <= other.fresh_share
        return no_worse and (one.mean > other.mean or one.fresh_share < other.fresh_share)

    best = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(best, key=lambda point: point.fresh_share)


def answer(config: StudyConfig, tasks: Sequence[Task], loops: Iterable[Run] = ()) -> list[str]:
    """What the study says, a line for each finding, and beside it what the record of its loops adds on text."""
    points = finished_points(config, tasks)
    match config.kind:
        case "search":
            search = Search(config, tasks)
            lines = [line for arm in config.arms() for line in _critical(search, points, arm)]
        case "pareto":
            lines = [
                f"{point.fresh_share:.1%} fresh keeps {point}: {_named(point.arm)}, λ = {point.proportion:g}"
                for point in front(points)
            ]
        case "grid":
            each = product(config.arms(), config.each_truth_label())
            lines = [line for arm, label in each if (line := _safe(config, points, arm, label))]
    return lines + _beside(config, loops)


def _beside(config: StudyConfig, loops: Iterable[Run]) -> list[str]:
    """What the answer does not see where nothing decides whether a text is good: the testbed's own measures by λ."""
    testbed, last = config.loop.data.testbed, config.loop.num_generations
    if testbed.composition or config.methods:
        return []
    found: dict[str, dict[float, list[Curves]]] = defaultdict(lambda: defaultdict(list))
    for loop in loops:
        proportion = loop.value("synthetic_proportion")  # balanced has none
        if loop.status == "FINISHED" and proportion is not None:
            arm = f"{loop.tag('cycle')}, T = {loop.tag('temperature')}"
            found[arm][proportion].append(history(loop, list(testbed.headline.values())))
    lines = []
    for arm, by_proportion in found.items():
        lines.append(f"{arm}: texts that fall apart keep their edit distances too, so read beside it, at t = {last}:")
        for word, key in testbed.headline.items():
            first = _at(1, key, [one for curves in by_proportion.values() for one in curves])
            ends = {λ: _at(last, key, curves) for λ, curves in sorted(by_proportion.items())}
            said = [f"{mean(values):.3f} at λ = {λ:g}" for λ, values in ends.items() if values]
            if said and first:
                lines.append(f"  {word}: {', '.join(said)}; M_1's is {mean(first):.3f}")
    return lines


def _at(generation: int, key: str, curves: Iterable[Curves]) -> list[float]:
    return [one[key][generation] for one in curves if generation in one[key]]


def _named(arm: Arm) -> str:
    return f"{arm[0].value}, T = {arm[1]:g}"


def _critical(search: Search, points: Sequence[Point], arm: Arm) -> list[str]:
    config, (held, failed) = search.config, search.interval(arm)
    at = {point.proportion: point for point in points if point.arm == arm and point.proportion is not None}
    asked = f"{_named(arm)}: λ*, the largest λ that keeps {config.search.target_retention:.1%} at t = "
    asked += f"{config.loop.num_generations},"
    if held is None and failed is None and search.open_points(arm):
        return [f"{asked} is open: no point is decided yet"]
    lines = [f"{asked} {_interval(search, at, arm)}"]
    neighbours = _neighbours(search, at, arm)
    lines += [f"  λ = {point:g}: {search.verdict(arm, point) or 'open'}, {at[point]}" for point in neighbours]
    if len(neighbours) == 2:  # loops of one seed share D_0 and M_1, so what they are like cancels out of the difference
        here, there = (at[point].by_seed for point in neighbours)
        if paired := [here[seed] - there[seed] for seed in here if seed in there]:
            lines.append(f"  difference between the two, over the same {_seeds(len(paired))}: {_mean(paired)}")
    odd = [point for point in at.values() if _contradicts(point, config, held, failed)]
    if odd:
        shown = ", ".join(f"{point.proportion:g}" for point in odd)
        lines.append(f"  not monotone: λ = {shown}, off the path of the search, came out the other way")
    return lines


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _interval(search: Search, at: dict[float, Point], arm: Arm) -> str:
    """Where λ* lies, in words: at 95 % if there are several seeds, to the next lattice point if that is told apart."""
    held, failed = search.interval(arm)
    counts = [len(at[end].by_seed) for end in (held, failed) if end in at]
    counts = counts or [len(point.by_seed) for point in at.values()] or [0]
    with_seeds = f"with {_seeds(counts[0]) if len(set(counts)) == 1 else f'{min(counts)} to {max(counts)} seeds'}"
    low = f"below {search.points[0]:g}, the lowest" if held is None else f"{held:g}"
    high = f"not bounded above: {search.points[-1]:g} is the highest" if failed is None else f"{failed:g}"
    is_open = "still open, " if search.open_points(arm) else ""
    estimate = search.estimate(arm)
    about = "" if estimate is None else f"about {estimate:.3g}, "
    if len(search.config.seed_batches()[-1]) == 1:
        found = (
            f"between {low} and {high}"
            if held is not None and failed is not None
            else f"{low if held is None else high}"
        )
        return f"is {is_open}{found} with the one seed that was run, which says nothing about others"
    undecided = [point for point in search.points if search.verdict(arm, point) == "undecided"]
    if held is None and failed is None:
        return f"is {is_open}{about}not separable {with_seeds} from any λ tried"
    if undecided and not is_open:
        where = f"between {low} and {high}"
        if held is None or failed is None:
            where = f"below {high}" if held is None else f"at least {low} and {high}"
        return f"is {about}not separable {with_seeds}: {where} (95 % interval)"
    if held is None or failed is None:
        return f"is {is_open}{low if held is None else f'at least {low} and {high}'} (95 %, {with_seeds})"
    return f"is {is_open}{about}between {low} and {high} (95 % interval, {with_seeds})"


def _neighbours(search: Search, at: dict[float, Point], arm: Arm) -> list[float]:
    """The tried points next to λ* on either side: by its estimate, else by its interval."""
    estimate, (held, failed) = search.estimate(arm), search.interval(arm)
    if estimate is None:
        return [point for point in (held, failed) if point in at]
    below = [point for point in sorted(at) if point <= estimate]
    above = [point for point in sorted(at) if point > estimate]
    return below[-1:] + above[:1]


def _contradicts(point: Point, config: StudyConfig, held: float | None, failed: float | None) -> bool:
    assert point.proportion is not None
    if len(point.by_seed) < len(set(config.seeds)):
        return False
    is_high = point.mean >= config.search.target_retention
    above = failed is not None and point.proportion > failed
    below = held is not None and point.proportion < held
    return (above and is_high) or (below and not is_high)


def _safe(config: StudyConfig, points: Sequence[Point], arm: Arm, label: str | None) -> str | None:
    """The largest λ of a grid up to which every λ stays above the stage of decline, with every seed.

    None where stages rest on another measure than retention.
    """
    proportions = sorted(p for p in config.proportions(arm[0]) if p is not None)
    at = {p.proportion: p for p in points if (p.arm, p.truth_label) == (arm, label)}
    if not proportions or not at or config.loop.stages.measure != RETENTION:
        return None
    limit, held, broke = config.loop.stages.onset, None, None
    for proportion in proportions:
        point = at.get(proportion)
        if point is None or len(point.by_seed) < len(set(config.seeds)):
            broke = f"λ = {proportion:g} has not finished with every seed"
            break
        if min(point.by_seed.values()) < limit:
            broke = f"λ = {proportion:g} does not: {point}"
            break
        held = point
    named = _named(arm) if label is None or len(config.each_truth_label()) == 1 else f"{_named(arm)}, {label}"
    wanted = f"at least {limit:.0%} of D_0's diversity at t = {config.loop.num_generations}"
    if held is None:
        return f"{named}: no λ is known to keep {wanted}: {broke}"
    return f"{named}: every λ up to {held.proportion:g} keeps {wanted}: {held}" + (f"; {broke}" if broke else "")


def record_results(run: Run, loops: Sequence[Run], config: StudyConfig, tasks: Sequence[Task]) -> None:
    """The answer and the table of loops that the MLflow UI shows, on the study run."""
    shown = (*config.loop.data.testbed.headline.values(), RETENTION, "num_unique")
    columns = ["cycle", "synthetic_proportion", "temperature", "seed", "status", "generations", *shown, "half_life",
               "minutes"]  # fmt: skip
    rows: list[list[Any]] = []
    for loop in loops:
        found = history(loop, ["generation_seconds", RETENTION])
        seconds = sum(found["generation_seconds"].values())
        metrics = last_metrics(loop)
        last = [metrics.get(key, "") for key in shown]
        tags = [loop.tag(key) for key in ("cycle", "synthetic_proportion", "temperature", "seed")]
        life = half_life(found[RETENTION])
        rows.append([*tags, loop.status, reached(loop), *last, "" if life is None else life, round(seconds / 60, 2)])
    run.log_tables({"results": (columns, rows)})
    run.log_bytes("answer.json", json.dumps(_as_record(config, tasks, loops), indent=2).encode())


def _as_record(config: StudyConfig, tasks: Sequence[Task], loops: Sequence[Run]) -> dict[str, Any]:
    """The answer for programs: the points with their seeds, and what the kind of study makes of them."""

    def record(point: Point) -> dict[str, Any]:
        label = {} if point.truth_label is None else {"truth_label": point.truth_label}
        return {"cycle": point.arm[0].value, "temperature": point.arm[1], **label,
                "synthetic_proportion": point.proportion, "fresh_share": point.fresh_share,
                "mean_retention": point.mean, "retention_by_seed": point.by_seed}  # fmt: skip

    points = finished_points(config, tasks)
    found: dict[str, Any] = {
        "kind": config.kind,
        "answer": answer(config, tasks, loops),
        "points": [record(point) for point in points],
        "loops": [loop.id for loop in loops if loop.status == "FINISHED"],
    }
    if config.kind == "search":
        search = Search(config, tasks)
        found["brackets"] = [
            {"cycle": arm[0].value, "temperature": arm[1], "estimate": search.estimate(arm), "confidence": 0.95,
             **search.interval(arm)._asdict()}
            for arm in config.arms()
        ]  # fmt: skip
    if config.kind == "pareto":
        found["front"] = [record(point) for point in front(points)]
    return found
