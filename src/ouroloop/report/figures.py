"""The figures, each defined once, in the grammar of graphics (altair): what is drawn from which column of its table.

A definition names its table and holds no rows. The page hands both to the browser; `svg` and `png` draw them without
one. Pictures on MLflow's runs and those of the README come from here too.

Colours are CSS variables: a page at night sets them anew, a picture gets those of the day. The reader sets two
parameters: `hidden`, the names that are not shown, and `at`, the row or generation whose values are read off.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import floor, log10
from typing import Any, cast

import altair as alt
import pandas as pd

from ouroloop.report.looks import DOTTED, PAPER, PARTS, look
from ouroloop.report.render import Spec, spec, svg

Chart = Any
"""Altair's, whose classes for layers, facets and so on have no common one to name."""

PANELS = 24
"""The most small charts in one figure; of more cells or loops, this many are drawn, evenly chosen."""

IN_LINES = "length(datum.label) > 32 ? split(datum.label, ', ') : datum.label"
"""A cell's name in one line, or, where that is long, a line for each part."""
WHOLE = {"labelLimit": 0, "labelExpr": IN_LINES}
"""For a legend: cut off, two names may look alike."""
_WIDTH = {"retention": 760, "half_life": 350, "unique": 350}
_HEIGHT = {"retention": 340, "half_life": 280, "unique": 280}


def figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, Spec]:
    """A page's figures that have something to show, by name: as wide as the page, one small chart, and no legend."""
    there = {name: define for name, define in _DEFINE.items() if name in tables and len(tables[name])}
    found = {name: define(rows(name, tables[name]), True) for name, define in there.items()}
    return {name: spec(chart) for name, chart in found.items()}


def drawings(tables: Mapping[str, pd.DataFrame], most: int = PANELS) -> dict[str, str]:
    """An SVG for each figure with something to show; of more than `most` cells or loops, that many, evenly chosen."""
    drawn = {}
    for name, define in _DEFINE.items():
        if name in tables and len(table := rows(name, tables[name])):
            few, said = fewer(name, table, "loop" if name == "depth" else "cell", most)
            drawn[name] = svg(spec(define(few)) | said, name, few)
    return drawn


def fewer(name: str, table: pd.DataFrame, key: str, most: int = PANELS) -> tuple[pd.DataFrame, Spec]:
    """The rows of at most `most` cells or loops, evenly chosen; and, where these are not all, a title that says so."""
    names = _names(table, key)
    if len(names) <= most:
        return table, {}
    said = f"{most} of {len(names)} {'loops' if key == 'loop' else 'settings'}, evenly chosen; all are in {name}.csv"
    title = {"text": said, "anchor": "start", "color": "var(--soft)", "fontSize": 12, "fontWeight": "normal"}
    return table[table[key].isin(evenly(names, most))], {"title": title}


def rows(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A figure's table, with the further columns that its definition needs."""
    if name != "half_life" or table.empty:
        return table
    known = [λ for λ in table["proportion"] if λ is not None]
    aside = max(known) + 2 * _pad(known) if known else 0.0
    places = [aside if λ is None else λ for λ in table["proportion"]]
    return table.assign(group=[_group(*pair) for pair in zip(table["cell"], table["cycle"], strict=True)], place=places)


def _pad(proportions: Sequence[float]) -> float:
    return max(0.04, (max(proportions) - min(proportions)) * 0.07)


def _group(cell: str, cycle: str) -> str:
    """What a cell is called without its λ."""
    return ", ".join(part for part in cell.split(", ") if not part.startswith("λ = ")) or cycle


def retention(table: pd.DataFrame, is_page: bool = False, is_log: bool = False) -> Chart:
    """Line: mean over seeds; band, where there are several: lowest to highest; dotted: the paper."""
    cells = _names(table, "cell")
    base = _chart("retention").transform_filter("indexof(hidden, datum.cell) < 0").encode(_generation(table))
    y = _axis("mean", "diversity kept", _scale([*table["mean"], *table["highest"]], is_log))
    line = base.encode(y, color=_color("cell", cells, table, is_page))
    band = base.transform_filter("datum.seeds > 1").mark_area(opacity=0.16)
    layers = [
        band.encode(y.field("lowest"), alt.Y2("highest:Q"), color=_color("cell", cells, table, is_page)),
        line.mark_line().encode(strokeDash=_dash("cell", cells, table, is_page)),
        _marked(line, table, "cell", cells, is_page),
        *_published(line, table, "paper", y.field("paper")),
        *_cursor(base, line, "datum.generation === at"),
    ]
    return _finish(layers, "retention", is_page)


def half_life(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A filled mark for each loop, an open triangle where half was not lost; the line joins medians."""
    names = _names(table, "group")
    known = sorted({λ for λ in table["proportion"] if λ is not None})
    aside = max(table["place"]) if len(known) < len(set(table["place"])) else None
    base = _chart("half_life").transform_filter("indexof(hidden, datum.group) < 0")
    base = base.transform_calculate(life="isValid(datum.half_life) ? datum.half_life : datum.reached")
    x = _proportions(known, aside)
    top = max(value or 0 for key in ("reached", "half_life", "paper") for value in table[key])
    y = _axis("life", "half of it gone at generation", alt.Scale(domain=[0, top * 1.04], nice=False), "d")
    point = base.encode(x, y, color=_color("group", names, table, is_page))
    medians = base.transform_filter("isValid(datum.proportion) && isValid(datum.median)").mark_line(strokeWidth=1.4)
    layers = [
        medians.encode(x, y.field("median").aggregate("min"), color=_color("group", names, table, is_page)),
        *_published(point, table, "paper", y.field("paper"), where="isValid(datum.proportion)"),
        point.transform_filter("isValid(datum.half_life)")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(shape=_shape("group", names, table, is_page)),
        point.transform_filter("!isValid(datum.half_life)").mark_point(
            shape="triangle-up", size=70, opacity=1, fill="var(--card)"
        ),
        *_cursor(None, point, "datum.id === at"),
    ]
    return _finish(layers, "half_life", is_page)


def unique(table: pd.DataFrame, is_page: bool = False, is_log: bool = True) -> Chart:
    """Distinct texts over diversity, from generation 0 at the left; dotted: the paper."""
    cells = _names(table, "cell")
    base = _chart("unique").transform_filter("indexof(hidden, datum.cell) < 0").encode(order="generation:Q")
    top = max(1.0, *table["diversity_retention"])
    scale, axis = alt.Scale(domain=[0, top], reverse=True, nice=False), alt.Axis(format="~%", tickCount=5)
    x = alt.X(field="diversity_retention", type="quantitative", scale=scale, axis=axis, title="diversity kept")
    y = _axis("unique_fraction", "distinct texts / all sampled", _scale(table["unique_fraction"], is_log))
    line = base.encode(x, y, color=_color("cell", cells, table, is_page))
    there = [x.field("paper_diversity_retention"), y.field("paper_unique_fraction")]
    layers = [
        line.mark_line(strokeWidth=1.6).encode(strokeDash=_dash("cell", cells, table, is_page)),
        _marked(line, table, "cell", cells, is_page),
        *_published(line, table, "paper_unique_fraction", *there),
        *_cursor(None, line, "datum.id === at"),
    ]
    return _finish(layers, "unique", is_page)


def composition(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A panel for each cell: shares of texts that are True, False and malformed; dotted: the paper's True."""
    base = _chart("composition")
    if is_page:
        base = base.transform_filter("datum.cell === chosen")
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%", tickCount=3)
    x = _generation(table, title=not is_page)
    y = alt.Y(field="share", type="quantitative", scale=scale, axis=axis, title=None)
    colors = alt.Scale(domain=list(PARTS), range=list(PARTS.values()))
    legend = None if is_page else alt.Legend(orient="bottom", title=None)
    areas = base.transform_fold(list(PARTS), as_=["part", "share"])
    areas = areas.transform_calculate(rank=f"indexof({list(PARTS)}, datum.part)")
    layers = [
        areas.mark_area().encode(
            x, y.stack("zero"), order="rank:O", color=alt.Color("part:N", scale=colors, legend=legend)
        ),
        *_published(base.encode(x), table, "paper_True", y.field("paper_True"), color="var(--ink)"),
        base.transform_filter("datum.generation === at").mark_rule(color="var(--ink)").encode(x),
    ]
    if is_page:
        return chosen(layers, 150)
    return _panels(layers, table, "cell", 190, 120)


def depth(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A panel for each loop: share of texts by depth, the shallowest on top; stronger colour is more."""
    levels = sorted(set(table["depth"]), key=lambda level: (level == "malformed", level.zfill(4)))
    base = _chart("depth")
    if is_page:
        base = base.transform_filter("datum.loop === chosen")
    last = max(table["generation"])
    ticks = list(range(0, last + 1, _step(last)))
    legend = (
        None if is_page else alt.Legend(title="share of texts", orient="bottom", format="%", values=[0.05, 0.25, 1])
    )
    stroke = {"stroke": "var(--card)", "strokeWidth": 0.6} if is_page else {}
    opacity = alt.Scale(type="sqrt", domain=[0, 1], range=[0.03, 1])
    cells = base.mark_rect(fill="var(--heat)", **stroke).encode(
        alt.X("generation:O", axis=alt.Axis(values=ticks, labelAngle=0, title="generation" if is_page else None)),
        alt.Y("depth:N", sort=levels, scale=alt.Scale(domain=levels), title="depth" if is_page else None),
        fillOpacity=alt.FillOpacity("share:Q", scale=opacity, legend=legend),
    )
    frame = (
        cells.transform_filter("datum.id === at")
        .mark_rect(fill=None, stroke="var(--ink)", strokeWidth=1.6, strokeOpacity=1)
        .encode(fillOpacity=alt.value(0))
    )
    if is_page:
        size = 14 if len(levels) > 12 else 26
        return chosen([cells, frame], size * len(levels))
    wide = max(2, 2 * round(120 / (last + 1)))  # whole pixels: a picture with blurred edges is ten times as large
    return _panels([cells], table, "loop", wide * (last + 1), 14 * len(levels))


def headline(tables: Mapping[str, pd.DataFrame]) -> tuple[Spec, pd.DataFrame]:
    """Retention by learner, a panel for each cell, the paper's run in each; with the rows that it draws."""
    parts = [table.assign(learner=learner) for learner, table in tables.items() if len(table)]
    ran = [known for table in parts if len(known := table.dropna(subset=["paper"]))]
    paper = [table.assign(learner=PAPER, mean=table["paper"], seeds=1) for table in ran]
    drawn = pd.concat([*parts, *paper]).drop_duplicates(["learner", "cell", "generation"])
    learners = [*tables, PAPER][: len(tables) + bool(paper)]
    colors = alt.Scale(domain=learners, range=["var(--s1)", "var(--s0)", "var(--ink)"][: len(learners)])
    legend = alt.Legend(orient="bottom", title=None, symbolType="stroke", symbolStrokeWidth=2.4, symbolOpacity=1)
    color = alt.Color("learner:N", scale=colors, legend=legend)
    dashes = alt.Scale(domain=learners, range=[[1, 0], [1, 0], DOTTED][: len(learners)])
    dash = alt.StrokeDash("learner:N", scale=dashes, legend=None)
    base = _chart("retention").encode(_generation(drawn), color=color)
    y = _axis("mean", "diversity kept", _scale([*drawn["mean"], *drawn["highest"]], False))
    band = (
        base.transform_filter("datum.seeds > 1").mark_area(opacity=0.2).encode(y.field("lowest"), alt.Y2("highest:Q"))
    )
    chart = _panels([band, base.mark_line().encode(y, strokeDash=dash)], drawn, "cell", 200, 200, wide=5)
    return spec(chart), drawn


# ---- parts ------------------------------------------------------------------------------------------------------

_WIDE = {"width": "container", "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}


def _chart(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def _names(table: pd.DataFrame, key: str) -> list[str]:
    return list(dict.fromkeys(table[key]))


def _step(last: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, last + 1) if last / step <= 7)


def _generation(table: pd.DataFrame, title: bool = True) -> alt.X:
    last = max(1, *table["generation"])
    scale = alt.Scale(domain=[0, last], nice=False)
    axis = alt.Axis(values=list(range(0, last + 1, _step(last))), format="d", grid=False)
    return alt.X("generation:Q", scale=scale, axis=axis, title="generation" if title else None)


def _axis(field: str, title: str, scale: alt.Scale, format: str = "~%") -> alt.Y:
    axis, (low, high) = alt.Axis(format=format, tickCount=6), scale.to_dict()["domain"]
    if format == "d":  # Vega would put ticks between whole numbers, and round what it writes at them
        axis = alt.Axis(format=format, values=list(range(0, floor(high) + 1, _step(floor(high)))))
    if scale.to_dict().get("type") == "log":
        axis = alt.Axis(format=format, values=[10.0**e for e in range(round(log10(low)), floor(log10(high)) + 1)])
    return alt.Y(field=field, type="quantitative", scale=scale, axis=axis, title=title)


def _scale(values: Sequence[float], is_log: bool) -> alt.Scale:
    """From 0 to 1 or a little more; if logarithmic, from the decade of the least value above 0, where 0 stands too."""
    top = max([1.0, *values])
    if not is_log:
        return alt.Scale(domain=[0, top], nice=False)
    lowest = max(1e-4, min([0.1, *(value for value in values if value > 0)]))
    return alt.Scale(type="log", domain=[10.0 ** floor(log10(lowest) + 1e-9), top], clamp=True, nice=False)


def _looks(names: Sequence[str], table: pd.DataFrame, looks: Sequence[Any], of_paper: Any) -> alt.Scale:
    """One look for each name, and one for the paper's curves where there are any."""
    has_paper = any(any(joined(table, column)[1:]) for column in table.columns if column.startswith("paper"))
    domain = [*names, PAPER] if has_paper else list(names)
    return alt.Scale(domain=domain, range=[*looks, of_paper] if has_paper else list(looks))


def _legend(is_page: bool) -> alt.Legend | None:
    if is_page:
        return None
    return alt.Legend(title=None, orient="right", symbolOpacity=1, symbolSize=70, symbolStrokeWidth=2, **WHOLE)


def _color(key: str, names: Sequence[str], table: pd.DataFrame, is_page: bool) -> alt.Color:
    colors = [look(i).color for i in range(len(names))]
    return alt.Color(f"{key}:N", scale=_looks(names, table, colors, "var(--ink)"), legend=_legend(is_page))


def _shape(key: str, names: Sequence[str], table: pd.DataFrame, is_page: bool) -> alt.Shape:
    marks = [look(i).mark for i in range(len(names))]
    return alt.Shape(f"{key}:N", scale=_looks(names, table, marks, "stroke"), legend=_legend(is_page))


def _dash(key: str, names: Sequence[str], table: pd.DataFrame, is_page: bool) -> alt.StrokeDash:
    dashes = [look(i).dash for i in range(len(names))]
    return alt.StrokeDash(f"{key}:N", scale=_looks(names, table, dashes, DOTTED), legend=_legend(is_page))


def _marked(line: alt.Chart, table: pd.DataFrame, key: str, names: Sequence[str], is_page: bool) -> alt.Chart:
    """A mark on about twelve points of a line, so that it can be told from others without colour."""
    every = max(1, -(-int(max(table["generation"])) // 12))
    marks = line.transform_filter(f"datum.generation % {every} === 0").mark_point(filled=True, size=32, opacity=1)
    return cast(alt.Chart, marks.encode(shape=_shape(key, names, table, is_page)))


def _published(
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
    is_by_proportion = "proportion" in table.columns
    by, along = ("group", "proportion") if is_by_proportion else ("cell", "generation")
    known = table.dropna(subset=[key, along]).groupby(by, sort=False)[along].nunique()
    return by, list(known.index[known > 1]), list(known.index[known == 1])


def _cursor(rule: alt.Chart | None, points: alt.Chart, where: str) -> list[alt.Chart]:
    """Marks for what is read off: a line through a generation, and rings around its points."""
    rings = points.transform_filter(where).mark_point(fill="var(--card)", size=70, strokeWidth=2.2, opacity=1)
    lines = [] if rule is None else [rule.transform_filter(where).mark_rule(color="var(--ink)", opacity=0.45)]
    return [*lines, rings]


def _proportions(known: list[float], aside: float | None) -> alt.X:
    """The axis of λ, and beside it a place for loops without one."""
    gap = (known[-1] - known[0]) * 0.07 if known else 0
    is_sparse = len(known) < 9 and all(b - a > gap for a, b in pairwise(known))
    ticks = [*(known if is_sparse else (known[:1] + known[-1:])), *([] if aside is None else [aside])]
    pad = _pad(known) if known else 0.05
    low, high = (known[0] if known else 0.0) - pad, max([*known, *([] if aside is None else [aside])]) + pad
    label = (
        "format(datum.value, '~g')"
        if aside is None
        else f"datum.value === {aside} ? 'no λ' : format(datum.value, '~g')"
    )
    axis = alt.Axis(values=ticks, labelExpr=label, grid=False, labelOverlap=True)
    scale = alt.Scale(domain=[low, high], nice=False)
    return alt.X("place:Q", scale=scale, axis=axis, title="synthetic proportion λ")


def _finish(layers: Sequence[alt.Chart], name: str, is_page: bool) -> Chart:
    return _layered(layers, **(_WIDE if is_page else {"width": _WIDTH[name]}), height=_HEIGHT[name])


def chosen(layers: Sequence[alt.Chart], height: int, *params: alt.Parameter) -> Chart:
    """A small chart of a page, for what the parameter `chosen` names."""
    return _layered(layers, alt.param("chosen", value=""), *params, **_WIDE, height=height)


def _layered(layers: Sequence[alt.Chart], *params: alt.Parameter, **properties: Any) -> Chart:
    """The layers with the reader's parameters, all at once, because each change to a chart copies it deeply."""
    both = [one.param for one in (alt.param("hidden", value=[]), alt.param("at", expr="null"), *params)]
    return alt.layer(*layers, params=both, **properties)


def _panels(
    layers: Sequence[alt.Chart], table: pd.DataFrame, key: str, width: int, height: int, wide: int = 4
) -> Chart:
    names = _names(table, key)
    chart = _layered(layers, data=alt.NamedData(name=str(layers[0].data.name)), width=width, height=height)
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


def evenly(names: Sequence[str], most: int) -> list[str]:
    """All names, or at most `most` of them, evenly chosen, the first and the last included."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


_DEFINE: dict[str, Callable[..., Chart]] = {
    "retention": retention,
    "half_life": half_life,
    "unique": unique,
    "composition": composition,
    "depth": depth,
}
