"""What came of a study: its answer in words, its table, and Optuna's plots, all on the study run."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from statistics import mean, stdev
from typing import Any

import matplotlib
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from ouroloop.config import StudyConfig
from ouroloop.record.track import Run, Store
from ouroloop.science.cycle import fresh_share
from ouroloop.science.metrics import RETENTION, half_life
from ouroloop.study.queue import Queue
from ouroloop.study.search import Arm, Search
from ouroloop.study.status import last_metrics, loop_of, newest_loops
from ouroloop.testbed.logic.grammar import TruthLabel


@dataclass(frozen=True)
class Point:
    """What the finished loops of one setting kept of D_0's diversity at the last generation."""

    arm: Arm
    truth_label: TruthLabel
    proportion: float | None
    fresh_share: float
    retention: dict[int, float] = field(default_factory=dict)
    """By seed."""

    @property
    def mean(self) -> float:
        return mean(self.retention.values())

    def __str__(self) -> str:
        values = list(self.retention.values())
        error = f" ± {stdev(values) / math.sqrt(len(values)):.1%}" if len(values) > 1 else ""
        spread = f" ({min(values):.1%} to {max(values):.1%})" if len(values) > 1 else ""
        return f"{self.mean:.1%}{error}{spread}, {len(values)} seed{'s' * (len(values) > 1)}"


def finished_points(queue: Queue) -> list[Point]:
    """The points of a study in order of cycle, temperature and λ; only loops that reached their last generation."""
    found: dict[tuple[Arm, TruthLabel, float | None], Point] = {}
    for trial in queue.latest():
        if trial.state is TrialState.COMPLETE:
            loop = loop_of(trial)
            arm = (loop.cycle.kind, loop.sampling.temperature)
            setting = (arm, loop.data.truth_label, loop.cycle.synthetic_proportion)
            point = found.setdefault(setting, Point(*setting, fresh_share(loop.cycle, loop.data.num_examples)))
            point.retention[loop.seed] = trial.values[0]
    return sorted(found.values(), key=lambda point: (*point.arm, point.truth_label, point.proportion or 0.0))


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none keeps as much with less fresh data, or more with as little."""

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.mean >= other.mean and one.fresh_share <= other.fresh_share
        return no_worse and (one.mean > other.mean or one.fresh_share < other.fresh_share)

    best = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(best, key=lambda point: point.fresh_share)


def answer(config: StudyConfig, queue: Queue) -> list[str]:
    """What the study says, a line for each finding.

    ± is one standard error over the seeds; in brackets is their range.
    """
    points = finished_points(queue)
    match config.kind:
        case "search":
            return [line for arm in config.arms() for line in _critical(config, queue, points, arm)]
        case "pareto":
            return [
                f"{point.fresh_share:.1%} fresh keeps {point}: {_named(point.arm)}, λ = {point.proportion:g}"
                for point in front(points)
            ]
    starts = product(config.arms(), dict.fromkeys(config.truth_labels))
    return [line for arm, start in starts if (line := _safe(config, points, arm, start))]


def _named(arm: Arm) -> str:
    return f"{arm[0].value}, T = {arm[1]:g}"


def _critical(config: StudyConfig, queue: Queue, points: Sequence[Point], arm: Arm) -> list[str]:
    search = Search(config, queue.trials())
    held, failed = search.bracket(arm)
    at = {point.proportion: point for point in points if point.arm == arm}
    is_open = next(search.open_points(arm), None) is not None
    wanted = f"keeps {config.search.target_retention:.1%} at t = {config.loop.num_generations}"
    if held is None and failed is None:
        return [f"{_named(arm)}: λ* is open: no point is decided yet"]
    below = f"below {search.points[0]:g}, the lowest" if held is None else f"at least {held:g}"
    above = f"not known to end: {search.points[-1]:g} is the highest" if failed is None else f"below {failed:g}"
    lines = [f"{_named(arm)}: λ*, the largest λ that {wanted}, is {'still open, ' * is_open}{below} and {above}"]
    for name, proportion in (("held", held), ("failed", failed)):
        if proportion is not None:
            kept = f"{at[proportion]}" if proportion in at else "decided before any loop ended"
            lines.append(f"  λ = {proportion:g} {name}: {kept}")
    odd = [
        point.proportion
        for point in at.values()
        if point.proportion is not None and _contradicts(point, config, held, failed)
    ]
    if odd:
        lines.append(f"  not monotone: off the path, λ = {', '.join(f'{p:g}' for p in odd)} came out the other way")
    return lines


def _contradicts(point: Point, config: StudyConfig, held: float | None, failed: float | None) -> bool:
    assert point.proportion is not None
    if len(point.retention) < len(set(config.seeds)):
        return False
    is_high = point.mean >= config.search.target_retention
    above = failed is not None and point.proportion > failed
    below = held is not None and point.proportion < held
    return (above and is_high) or (below and not is_high)


def _safe(config: StudyConfig, points: Sequence[Point], arm: Arm, start: TruthLabel) -> str | None:
    """The largest λ of a grid up to which every λ stays above the stage of decline, with every seed."""
    proportions = sorted(p for p in config.proportions(arm[0]) if p is not None)
    at = {p.proportion: p for p in points if (p.arm, p.truth_label) == (arm, start)}
    if not proportions or not at:
        return None
    limit, held, broke = config.loop.stages.onset, None, None
    for proportion in proportions:
        point = at.get(proportion)
        if point is None or len(point.retention) < len(set(config.seeds)):
            broke = f"λ = {proportion:g} has not come to its end with every seed"
            break
        if min(point.retention.values()) < limit:
            broke = f"λ = {proportion:g} does not: {point}"
            break
        held = point
    named = _named(arm) if len(config.truth_labels) == 1 else f"{_named(arm)}, {start.value}"
    wanted = f"at least {limit:.0%} of D_0's diversity at t = {config.loop.num_generations}"
    if held is None:
        return f"{named}: no λ is known to keep {wanted}: {broke}"
    return f"{named}: every λ up to {held.proportion:g} keeps {wanted}: {held}" + (f"; {broke}" if broke else "")


def record_results(run: Run, store: Store, config: StudyConfig, queue: Queue) -> None:
    """The answer, the table of loops that the MLflow UI shows, and Optuna's plots, on the study run."""
    columns = ["cycle", "synthetic_proportion", "temperature", "seed", "status", "generations", "correctness",
               "error_rate", RETENTION, "num_unique", "half_life", "minutes"]  # fmt: skip
    rows: list[list[Any]] = []
    for loop in newest_loops(store, queue.study.study_name):
        seconds = sum(value for _, value in loop.history("generation_seconds"))
        metrics = last_metrics(loop)
        last = [metrics.get(key, "") for key in ("correctness", "error_rate", RETENTION, "num_unique")]
        tags = [loop.tag(key) for key in ("cycle", "synthetic_proportion", "temperature", "seed")]
        life = half_life(dict(loop.history(RETENTION)))
        rows.append([*tags, loop.status, loop.reached, *last, "" if life is None else life, round(seconds / 60, 2)])
    run.log_tables(results=(columns, rows))
    run.log_bytes("answer.json", json.dumps(_as_record(config, queue), indent=2).encode())
    for name, picture in study_plots(queue, config).items():
        run.log_bytes(f"{name}.png", picture)


def _as_record(config: StudyConfig, queue: Queue) -> dict[str, Any]:
    """The same for programs: the points with their seeds, and what the kind of study makes of them."""

    def record(point: Point) -> dict[str, Any]:
        return {"cycle": point.arm[0].value, "temperature": point.arm[1], "truth_label": point.truth_label.value,
                "synthetic_proportion": point.proportion, "fresh_share": point.fresh_share,
                "mean_retention": point.mean, "retention_by_seed": point.retention}  # fmt: skip

    points = finished_points(queue)
    found: dict[str, Any] = {
        "kind": config.kind,
        "answer": answer(config, queue),
        "points": [record(point) for point in points],
    }
    if config.kind == "search":
        search = Search(config, queue.trials())
        found["brackets"] = [
            {"cycle": arm[0].value, "temperature": arm[1], **search.bracket(arm)._asdict()} for arm in config.arms()
        ]
    if config.kind == "pareto":
        found["front"] = [record(point) for point in front(points)]
    return found


def study_plots(queue: Queue, config: StudyConfig) -> dict[str, bytes]:
    """Optuna's plots of a study as PNG, by name; none while no loop is complete."""
    complete = queue.trials(TrialState.COMPLETE)
    if not complete:
        return {}
    values = [trial.params for trial in complete]
    varied = [name for name in values[0] if len({chosen.get(name) for chosen in values}) > 1]
    wanted: dict[str, Any] = {}
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if config.kind == "pareto":
            wanted["pareto_front"] = plots.plot_pareto_front(queue.study, target_names=[RETENTION, "fresh_share"])
        else:
            wanted["history"] = plots.plot_optimization_history(queue.study, target_name=RETENTION)
            wanted["generations"] = plots.plot_intermediate_values(queue.study)
        if varied:
            wanted["slice"] = plots.plot_slice(
                queue.study, params=varied, target=lambda trial: trial.values[0], target_name=RETENTION
            )
        return {name: _png(axes) for name, axes in wanted.items()}


def _png(axes: Any) -> bytes:
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    figure: Figure = first.figure
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    matplotlib.pyplot.close(figure)
    return buffer.getvalue()
