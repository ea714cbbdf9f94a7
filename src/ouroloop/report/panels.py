"""The figure of a testbed's own measures: a small chart for each, on its own scale, real text beside the models."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ouroloop.report.figures import fewer, titled
from ouroloop.report.layers import Chart, chart_of, chosen, color_of, dash_of, faceted, names_of, shape_of, tick_step
from ouroloop.report.looks import DOTTED
from ouroloop.report.render import spec, svg

_WIDTH, _HEIGHT = 190, 130


def drawing(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Its SVG by its name, where there is something to show; of very many cells, some, evenly chosen."""
    table = tables.get("measures")
    if table is None or table.empty:
        return {}
    few, said = fewer("measures", table, "cell")
    return {"measures": svg(spec(measures(few)) | titled(said), "measures", few)}


def measures(table: pd.DataFrame, is_page: bool = False) -> Chart:
    """Line: mean over seeds; band: lowest to highest; dotted: D_0 itself; dashed: one half of it beside the other."""
    source = alt.Chart()
    if is_page:
        source = chart_of("measures").transform_filter("datum.measure === chosen")
    titles = names_of(table, "title")
    of_cell: dict[str, Any] = {"key": "cell", "table": table, "is_page": is_page}
    of_cell |= {"orient": "bottom", "columns": 4, "symbolSize": 100}
    last = max(1, *table["generation"])
    axis = alt.Axis(format="d", grid=False, values=list(range(1, last + 1, tick_step(last))))
    base = (source.transform_filter("indexof(hidden, datum.cell) < 0") if is_page else source).encode(
        alt.X("generation:Q").scale(domain=[1, last] if last > 1 else [0, 2], nice=False).axis(axis).title(None),
        color=color_of(**of_cell),
    )
    # The page sets the range of the chosen measure: a chart in which all is hidden would have no scale
    ends = {"domain": [alt.ExprRef("low"), alt.ExprRef("high")]} if is_page else {}
    y = alt.Y(field="mean", type="quantitative").scale(zero=False, **ends).axis(tickCount=4).title(None)

    def rule(key: str, **look: Any) -> alt.Chart:
        real = source.transform_filter(f"isValid(datum.{key})").mark_rule(**look)
        return real.encode(alt.Y(f"mean({key}):Q").title(None))

    layers = [
        base.transform_filter("datum.seeds > 1").mark_area(opacity=0.16).encode(y.field("lowest"), alt.Y2("highest:Q")),
        rule("real", color="var(--ink)", strokeDash=DOTTED, strokeWidth=1.6),
        rule("control", color="var(--soft)", strokeDash=[6, 3]),
        base.mark_line().encode(y, strokeDash=dash_of(**of_cell)),
        base.transform_filter(f"datum.generation % {max(1, last // 6)} === 0")
        .mark_point(filled=True, size=26, opacity=1)
        .encode(y, shape=shape_of(**of_cell)),
    ]
    if is_page:
        cursor = source.transform_filter("datum.generation === at").mark_rule(color="var(--ink)", opacity=0.45)
        ends_of_all = (alt.param("low", value=0), alt.param("high", value=1))
        return chosen([*layers, cursor.encode(base.encoding.x)], _HEIGHT, *ends_of_all)
    header = alt.Header(labelFontSize=12, labelColor="var(--ink)", labelLimit=_WIDTH + 20)
    chart = alt.layer(*layers, data=alt.NamedData(name="measures")).properties(width=_WIDTH, height=_HEIGHT)
    facet = alt.Facet("title:N").sort(titles).title(None).header(header)
    return faceted(chart, facet, len(titles), 4).resolve_scale(y="independent")
