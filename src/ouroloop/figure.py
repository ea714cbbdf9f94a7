"""A loop or a generation as a picture, for whoever browses the runs."""

from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ouroloop.config import LoopConfig
from ouroloop.measure import Sample
from ouroloop.paper import Published, published

History = Mapping[str, Sequence[tuple[int, float]]]
"""Metric key -> (generation, value), as the loop run holds it."""

# Okabe and Ito's colours, which colour-blind readers tell apart
_TRUE, _FALSE, _MALFORMED, _LINE, _PAPER = "#009E73", "#E69F00", "#999999", "#0072B2", "#D55E00"


PANEL_KEYS = (
    "diversity_retention",
    "diversity_retention_stderr",
    "correctness",
    "false_rate",
    "error_rate",
    "num_unique",
)
"""The metrics that the picture shows."""


def loop_png(history: History, config: LoopConfig) -> bytes:
    """Three panels over generations, with 95 % bands where there is a standard error.

    The bands cover the finite number of samples of this one loop, not retraining: that needs seeds.
    Where the paper ran the same cycle at the same temperature, its curve is laid over.
    """
    proportion = "" if config.cycle.synthetic_proportion is None else f" λ = {config.cycle.synthetic_proportion:g},"
    title = (
        f"{config.cycle.kind.value},{proportion} temperature {config.sampling.temperature:g}, "
        f"m = {config.data.num_examples:,}, seed {config.seed}"
    )
    figure = Figure(figsize=(13, 3.8))  # without a layout engine, which would draw all of it twice to find the same
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(left=0.035, right=0.99, bottom=0.12, top=0.84, wspace=0.2)
    diversity, composition, unique = figure.subplots(1, 3)
    _diversity(diversity, history, published(config))
    _composition(composition, history)
    generations, values = _series(history, "num_unique")
    unique.plot(generations, values, color=_LINE, marker=".")
    unique.set(yscale="log", ylim=(0.8, None), title="distinct texts among all sampled", xlabel="generation")
    for axes in (diversity, composition, unique):
        axes.grid(alpha=0.25)
        axes.set_xlim(0, max(1, *generations))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _series(history: History, key: str) -> tuple[list[int], list[float]]:
    points = sorted(history.get(key, []))
    return [generation for generation, _ in points], [value for _, value in points]


def _diversity(axes: Axes, history: History, paper: Published | None) -> None:
    generations, values = _series(history, "diversity_retention")
    errors = dict(history.get("diversity_retention_stderr", []))
    low = [value - 1.96 * errors.get(t, 0.0) for t, value in zip(generations, values, strict=True)]
    high = [value + 1.96 * errors.get(t, 0.0) for t, value in zip(generations, values, strict=True)]
    axes.fill_between(generations, low, high, color=_LINE, alpha=0.25, linewidth=0)
    axes.plot(generations, values, color=_LINE, marker=".", label="this loop")
    if paper is not None:
        shown = paper.retention[: max(generations) + 1]
        axes.plot(range(len(shown)), shown, color=_PAPER, linestyle="--", label="paper, one run at m = 10,000")
        axes.legend(frameon=False, fontsize=8)
    axes.set(ylim=(0, None), title="edit-distance diversity, portion of D_0's", xlabel="generation")


def _composition(axes: Axes, history: History) -> None:
    generations, true = _series(history, "correctness")
    parts = [true, _series(history, "false_rate")[1], _series(history, "error_rate")[1]]
    axes.stackplot(generations, parts, labels=["True", "False", "malformed"], colors=[_TRUE, _FALSE, _MALFORMED])
    axes.set(ylim=(0, 1), title="what is sampled", xlabel="generation")
    axes.legend(loc="lower left", fontsize=8)


def depths_png(sample: Sample, original: Sample, name: str) -> bytes:
    """Shares of texts by depth beside D_0's; malformed ones stand to the right."""
    ours, theirs = sample.depth_shares(), original.depth_shares()
    levels = sorted(ours.keys() | theirs.keys(), key=lambda depth: (depth is None, depth))
    figure = Figure(figsize=(5, 2.8))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for shares, label, shift, color in ((theirs, "D_0", -0.2, _MALFORMED), (ours, name, 0.2, _LINE)):
        places = [place + shift for place in range(len(levels))]
        axes.bar(places, [shares.get(depth, 0.0) for depth in levels], 0.4, label=label, color=color)
    axes.set_xticks(range(len(levels)), ["malformed" if depth is None else f"{depth}" for depth in levels])
    axes.set(ylim=(0, 1), title="depth of the expressions, share of all texts")
    axes.legend(frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
