"""The figures, each defined once, in the grammar of graphics (altair): what is drawn from which column of its table.

A definition names its table and holds no rows. The page hands both to the browser; `svg` and `png` draw them without
one. Pictures on MLflow's runs and those of the README come from here too.

Colours are CSS variables: a page at night sets them anew, a picture gets those of the day. The reader sets two
parameters: `hidden`, the names that are not shown, and `at`, the row or generation whose values are read off.
"""

from collections.abc import Callable, Mapping, Sequence

import altair as alt
import pandas as pd

from ouroloop.report.layers import (
    WIDE,
    Chart,
    chart_of,
    chosen,
    color_of,
    cursor,
    dash_of,
    generation_axis,
    layered,
    marked,
    names_of,
    pad,
    panels_of,
    paper_layers,
    proportion_axis,
    shape_of,
    share_scale,
    tick_step,
    value_axis,
)
from ouroloop.report.looks import DOTTED, PAPER, PARTS
from ouroloop.report.render import Spec, spec, svg

PANELS = 24
"""The most small charts in one figure; of more cells or loops, this many are drawn, evenly chosen."""

_BY_PROPORTION = ("half_life", "kept")
_WIDTH = {"retention": 760, "kept": 480, "half_life": 350, "unique": 350}
_HEIGHT = {"retention": 340, "kept": 280, "half_life": 280, "unique": 280}


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
            few, said = table, ""
            if name not in _BY_PROPORTION:  # these have a mark for each cell or loop, and lines that join the marks
                few, said = fewer(name, table, "loop" if name == "depth" else "cell", most)
            drawn[name] = svg(spec(define(few)) | titled(said), name, few)
    return drawn


def fewer(name: str, table: pd.DataFrame, key: str, most: int = PANELS) -> tuple[pd.DataFrame, str]:
    """The rows of at most `most` cells or loops, evenly chosen; and, where these are not all, words that say so."""
    names = names_of(table, key)
    if len(names) <= most:
        return table, ""
    said = f"{most} of {len(names)} {'loops' if key == 'loop' else 'settings'}, evenly chosen; all are in {name}.csv"
    return table[table[key].isin(evenly(names, most))], said


def titled(said: str) -> Spec:
    """The part of a definition that puts these words, if there are any, over the figure."""
    title = {"text": said, "anchor": "start", "color": "var(--soft)", "fontSize": 12, "fontWeight": "normal"}
    return {"title": title} if said else {}


def evenly(names: Sequence[str], most: int) -> list[str]:
    """All names, or at most `most` of them, evenly chosen, the first and the last included."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def rows(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A figure's table, with the further columns that its definition needs."""
    if name not in _BY_PROPORTION or table.empty:
        return table
    known = [λ for λ in table["proportion"] if λ is not None]
    aside = max(known) + 2 * pad(known) if known else 0.0
    places = [aside if λ is None else λ for λ in table["proportion"]]
    return table.assign(group=[_group(*pair) for pair in zip(table["cell"], table["cycle"], strict=True)], place=places)


def _group(cell: str, cycle: str) -> str:
    """What a cell is called without its λ."""
    return ", ".join(part for part in cell.split(", ") if not part.startswith("λ = ")) or cycle


def retention(table: pd.DataFrame, is_page: bool = False, is_log: bool = False) -> Chart:
    """Line: mean over seeds; band, where there are several: lowest to highest; dotted: the paper."""
    base = chart_of("retention").transform_filter("indexof(hidden, datum.cell) < 0").encode(generation_axis(table))
    y = value_axis("mean", "diversity kept", share_scale([*table["mean"], *table["highest"]], is_log))
    line = base.encode(y, color=color_of("cell", table, is_page))
    band = base.transform_filter("datum.seeds > 1").mark_area(opacity=0.16)
    layers = [
        band.encode(y.field("lowest"), alt.Y2("highest:Q"), color=color_of("cell", table, is_page)),
        line.mark_line().encode(strokeDash=dash_of("cell", table, is_page)),
        marked(line, table, is_page),
        *paper_layers(line, table, "paper", y.field("paper")),
        *cursor(base, line, "datum.generation === at"),
    ]
    return _finish(layers, "retention", is_page)


def half_life(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A filled mark for each loop, an open triangle where half was not lost; the line joins medians."""
    base = chart_of("half_life").transform_filter("indexof(hidden, datum.group) < 0")
    base = base.transform_calculate(life="isValid(datum.half_life) ? datum.half_life : datum.reached")
    x = proportion_axis(table)
    top = max(value or 0 for key in ("reached", "half_life", "paper") for value in table[key])
    y = value_axis("life", "half of it gone at generation", alt.Scale(domain=[0, top * 1.04], nice=False), "d")
    point = base.encode(x, y, color=color_of("group", table, is_page))
    medians = base.transform_filter("isValid(datum.proportion) && isValid(datum.median)").mark_line(strokeWidth=1.4)
    layers = [
        medians.encode(x, y.field("median").aggregate("min"), color=color_of("group", table, is_page)),
        *paper_layers(point, table, "paper", y.field("paper"), where="isValid(datum.proportion)"),
        point.transform_filter("isValid(datum.half_life)")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(shape=shape_of("group", table, is_page)),
        point.transform_filter("!isValid(datum.half_life)").mark_point(
            shape="triangle-up", size=70, opacity=1, fill="var(--card)"
        ),
        *cursor(None, point, "datum.id === at"),
    ]
    return _finish(layers, "half_life", is_page)


def kept(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A mark for each cell, with the 95 % interval; the line joins those that differ in λ alone; dotted: the paper."""
    base = chart_of("kept").transform_filter("indexof(hidden, datum.group) < 0")
    known = [value for value in table["interval_high"] if value is not None]
    y = value_axis("mean", "diversity kept in the end", share_scale([*table["mean"], *known], False))
    point = base.encode(proportion_axis(table), y, color=color_of("group", table, is_page))
    line = point.transform_filter("isValid(datum.proportion)").mark_line(strokeWidth=1.4)
    interval = point.transform_filter("isValid(datum.interval_low)").mark_rule(opacity=0.5, strokeWidth=1.4)
    layers = [
        interval.encode(y.field("interval_low"), alt.Y2("interval_high:Q")),
        line.encode(strokeDash=dash_of("group", table, is_page)),
        *paper_layers(point, table, "paper", y.field("paper"), where="isValid(datum.proportion)"),
        point.mark_point(filled=True, size=70, opacity=1).encode(shape=shape_of("group", table, is_page)),
        *cursor(None, point, "datum.id === at"),
    ]
    return _finish(layers, "kept", is_page)


def unique(table: pd.DataFrame, is_page: bool = False, is_log: bool = True) -> Chart:
    """Distinct texts over diversity, from generation 0 at the left; dotted: the paper."""
    base = chart_of("unique").transform_filter("indexof(hidden, datum.cell) < 0").encode(order="generation:Q")
    top = max(1.0, *table["diversity_retention"])
    scale, axis = alt.Scale(domain=[0, top], reverse=True, nice=False), alt.Axis(format="~%", tickCount=5)
    x = alt.X(field="diversity_retention", type="quantitative", scale=scale, axis=axis, title="diversity kept")
    y = value_axis("unique_fraction", "distinct texts / all sampled", share_scale(table["unique_fraction"], is_log))
    line = base.encode(x, y, color=color_of("cell", table, is_page))
    there = [x.field("paper_diversity_retention"), y.field("paper_unique_fraction")]
    layers = [
        line.mark_line(strokeWidth=1.6).encode(strokeDash=dash_of("cell", table, is_page)),
        marked(line, table, is_page),
        *paper_layers(line, table, "paper_unique_fraction", *there),
        *cursor(None, line, "datum.id === at"),
    ]
    return _finish(layers, "unique", is_page)


def composition(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A panel for each cell: shares of texts that are True, False and malformed; dotted: the paper's True."""
    base = chart_of("composition")
    if is_page:
        base = base.transform_filter("datum.cell === chosen")
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%", tickCount=3)
    x = generation_axis(table, title=not is_page)
    y = alt.Y(field="share", type="quantitative", scale=scale, axis=axis, title=None)
    colors = alt.Scale(domain=list(PARTS), range=list(PARTS.values()))
    legend = None if is_page else alt.Legend(orient="bottom", title=None)
    areas = base.transform_fold(list(PARTS), as_=["part", "share"])
    areas = areas.transform_calculate(rank=f"indexof({list(PARTS)}, datum.part)")
    layers = [
        areas.mark_area().encode(
            x, y.stack("zero"), order="rank:O", color=alt.Color("part:N", scale=colors, legend=legend)
        ),
        *paper_layers(base.encode(x), table, "paper_True", y.field("paper_True"), color="var(--ink)"),
        base.transform_filter("datum.generation === at").mark_rule(color="var(--ink)").encode(x),
    ]
    if is_page:
        return chosen(layers, 150)
    return panels_of(layers, table, "cell", 190, 120)


def depth(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """A panel for each loop: share of texts by depth, the shallowest on top; stronger colour is more."""
    levels = sorted(set(table["depth"]), key=lambda level: (level == "malformed", level.zfill(4)))
    base = chart_of("depth")
    if is_page:
        base = base.transform_filter("datum.loop === chosen")
    last = max(table["generation"])
    ticks = list(range(0, last + 1, tick_step(last)))
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
    return panels_of([cells], table, "loop", wide * (last + 1), 14 * len(levels))


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
    base = chart_of("retention").encode(generation_axis(drawn), color=color)
    y = value_axis("mean", "diversity kept", share_scale([*drawn["mean"], *drawn["highest"]], False))
    band = (
        base.transform_filter("datum.seeds > 1").mark_area(opacity=0.2).encode(y.field("lowest"), alt.Y2("highest:Q"))
    )
    chart = panels_of([band, base.mark_line().encode(y, strokeDash=dash)], drawn, "cell", 200, 200, wide=5)
    return spec(chart), drawn


def _finish(layers: Sequence[alt.Chart], name: str, is_page: bool) -> Chart:
    return layered(layers, **(WIDE if is_page else {"width": _WIDTH[name]}), height=_HEIGHT[name])


_DEFINE: dict[str, Callable[..., Chart]] = {
    "retention": retention,
    "kept": kept,
    "half_life": half_life,
    "unique": unique,
    "composition": composition,
    "depth": depth,
}
