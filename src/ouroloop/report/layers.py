"""What the figures are made of: axes, legends, marks, the paper's curves, and charts of several layers or panels."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import floor, log10
from typing import Any, cast

import altair as alt
import pandas as pd

from ouroloop.report.looks import DOTTED, PAPER, look

Chart = Any
"""Altair's, whose classes for layers, facets and so on have no common one to name."""

IN_LINES = "length(datum.label) > 32 ? split(datum.label, ', ') : datum.label"
"""A cell's name in one line, or, where that is long, a line for each part."""
WHOLE = {"labelLimit": 0, "labelExpr": IN_LINES}
"""For a legend: cut off, two names may look alike."""

WIDE = {"width": "container", "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}


def chart_of(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def names_of(table: pd.DataFrame, key: str) -> list[str]:
    return list(dict.fromkeys(table[key]))


def tick_step(last: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, last + 1) if last / step <= 7)


def generation_axis(table: pd.DataFrame, title: bool = True) -> alt.X:
    last = max(1, *table["generation"])
    scale = alt.Scale(domain=[0, last], nice=False)
    axis = alt.Axis(values=list(range(0, last + 1, tick_step(last))), format="d", grid=False)
    return alt.X("generation:Q", scale=scale, axis=axis, title="generation" if title else None)


def value_axis(field: str, title: str, scale: alt.Scale, format: str = "~%") -> alt.Y:
    axis, (low, high) = alt.Axis(format=format, tickCount=6), scale.to_dict()["domain"]
    if format == "d":  # Vega would put ticks between whole numbers, and round what it writes at them
        axis = alt.Axis(format=format, values=list(range(0, floor(high) + 1, tick_step(floor(high)))))
    if scale.to_dict().get("type") == "log":
        axis = alt.Axis(format=format, values=[10.0**e for e in range(round(log10(low)), floor(log10(high)) + 1)])
    return alt.Y(field=field, type="quantitative", scale=scale, axis=axis, title=title)


def share_scale(values: Sequence[float], is_log: bool) -> alt.Scale:
    """From 0 to 1 or a little more; if logarithmic, from the decade of the least value above 0, where 0 stands too."""
    top = max([1.0, *values])
    if not is_log:
        return alt.Scale(domain=[0, top], nice=False)
    lowest = max(1e-4, min([0.1, *(value for value in values if value > 0)]))
    return alt.Scale(type="log", domain=[10.0 ** floor(log10(lowest) + 1e-9), top], clamp=True, nice=False)


_LEGEND = {"title": None, "orient": "right", "symbolOpacity": 1, "symbolSize": 70, "symbolStrokeWidth": 2, **WHOLE}


def _by_look(
    channel: Any,
    kind: str,
    of_paper: Any,
    key: str,
    table: pd.DataFrame,
    is_page: bool,
    **place: Any,
) -> Any:
    """A channel: a look for each name, and one for the paper's curves where there are any; a page has no legend."""
    names = names_of(table, key)
    has_paper = any(any(joined(table, column)[1:]) for column in table.columns if column.startswith("paper"))
    looks = [getattr(look(i), kind) for i in range(len(names))]
    domain, shown = ([*names, PAPER], [*looks, of_paper]) if has_paper else (names, looks)
    legend = None if is_page else alt.Legend(**_LEGEND | place)
    return channel(f"{key}:N", scale=alt.Scale(domain=domain, range=shown), legend=legend)


color_of = partial(_by_look, alt.Color, "color", "var(--ink)")
shape_of = partial(_by_look, alt.Shape, "mark", "stroke")
dash_of = partial(_by_look, alt.StrokeDash, "dash", DOTTED)


def marked(line: alt.Chart, table: pd.DataFrame, is_page: bool) -> alt.Chart:
    """A mark on about twelve points of a line, so that it can be told from others without colour."""
    every = max(1, -(-int(max(table["generation"])) // 12))
    marks = line.transform_filter(f"datum.generation % {every} === 0").mark_point(filled=True, size=32, opacity=1)
    return cast(alt.Chart, marks.encode(shape=shape_of("cell", table, is_page)))


def paper_layers(
    base: alt.Chart, table: pd.DataFrame, key: str, *places: Any, where: str = "true", **mark: Any
) -> list[alt.Chart]:
    """The paper's dotted curve, where there is one; a dash where it is a single point."""
    by, curves, points = joined(table, key)
    shown = base.transform_filter(f"isValid(datum.{key}) && {where} && indexof(hidden, '{PAPER}') < 0")
    shown = shown.encode(*places)
    alone = shown.transform_filter(alt.FieldOneOfPredicate(field=by, oneOf=points))
    return [
        *([shown.mark_line(strokeDash=DOTTED, strokeWidth=1.9, strokeCap="round", **mark)] if curves else []),
        *([alone.mark_point(shape="stroke", size=300, strokeWidth=1.9, opacity=1, **mark)] if points else []),
    ]


def joined(table: pd.DataFrame, key: str) -> tuple[str, list[str], list[str]]:
    """The column that has a line for each of its values, those with two points of `key` or more, and those with one."""
    along = next(key for key in ("proportion", "generation") if key in table.columns)
    by = "cell" if along == "generation" else "group"
    known = table.dropna(subset=[key, along]).groupby(by, sort=False)[along].nunique()
    return by, list(known.index[known > 1]), list(known.index[known == 1])


def cursor(rule: alt.Chart | None, points: alt.Chart, where: str) -> list[alt.Chart]:
    """Marks for what is read off: a line through a generation, and rings around its points."""
    rings = points.transform_filter(where).mark_point(fill="var(--card)", size=70, strokeWidth=2.2, opacity=1)
    lines = [] if rule is None else [rule.transform_filter(where).mark_rule(color="var(--ink)", opacity=0.45)]
    return [*lines, rings]


def pad(proportions: Sequence[float]) -> float:
    return max(0.04, (max(proportions) - min(proportions)) * 0.07)


def proportion_axis(table: pd.DataFrame) -> alt.X:
    """The axis of λ, and beside it a place for loops without one."""
    known = sorted({λ for λ in table["proportion"] if λ is not None})
    aside = max(table["place"]) if len(known) < len(set(table["place"])) else None
    gap = (known[-1] - known[0]) * 0.07 if known else 0
    is_sparse = len(known) < 9 and all(b - a > gap for a, b in pairwise(known))
    ticks = [*(known if is_sparse else (known[:1] + known[-1:])), *([] if aside is None else [aside])]
    margin = pad(known) if known else 0.05
    low = (known[0] if known else 0.0) - margin
    high = max([*known, *([] if aside is None else [aside])]) + margin
    label = (
        "format(datum.value, '~g')"
        if aside is None
        else f"datum.value === {aside} ? 'no λ' : format(datum.value, '~g')"
    )
    axis = alt.Axis(values=ticks, labelExpr=label, grid=False, labelOverlap=True)
    scale = alt.Scale(domain=[low, high], nice=False)
    return alt.X("place:Q", scale=scale, axis=axis, title="synthetic proportion λ")


def chosen(layers: Sequence[alt.Chart], height: int, *params: alt.Parameter) -> Chart:
    """A small chart of a page, for what the parameter `chosen` names."""
    return layered(layers, alt.param("chosen", value=""), *params, **WIDE, height=height)


def layered(layers: Sequence[alt.Chart], *params: alt.Parameter, **properties: Any) -> Chart:
    """The layers with the reader's parameters, all at once, because each change to a chart copies it deeply."""
    both = [one.param for one in (alt.param("hidden", value=[]), alt.param("at", expr="null"), *params)]
    return alt.layer(*layers, params=both, **properties)


def panels_of(
    layers: Sequence[alt.Chart], table: pd.DataFrame, key: str, width: int, height: int, wide: int = 4
) -> Chart:
    names = names_of(table, key)
    chart = layered(layers, data=alt.NamedData(name=str(layers[0].data.name)), width=width, height=height)
    for layer in chart.layer:
        layer.data = alt.Undefined
    header = alt.Header(labelFontSize=12, labelColor="var(--ink)", labelLimit=width, labelExpr=IN_LINES)
    return faceted(chart, alt.Facet(f"{key}:N", sort=names, title=None, header=header), len(names), wide)


def faceted(chart: Chart, facet: alt.Facet, count: int, columns: int) -> Chart:
    """`count` small charts in rows.

    A shared axis stands below the last row, even where a column has no chart there: then each chart has its own.
    """
    found = chart.facet(facet, columns=min(columns, count))
    return found.resolve_axis(x="independent") if count > columns and count % columns else found
