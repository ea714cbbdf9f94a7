"""The figure of a testbed's own measures: a small chart for each, on its own scale, real text beside the models."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ouroloop.report import figures
from ouroloop.report.render import svg

_WIDTH, _HEIGHT = 190, 130


def drawing(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Its SVG by its name, where there is something to show; of many cells so many, evenly chosen."""
    table = tables.get("measures")
    if table is None or table.empty:
        return {}
    few = table[table["cell"].isin(figures.evenly(list(dict.fromkeys(table["cell"])), figures.PANELS))]
    return {"measures": svg(figures.spec(measures(few)), "measures", few)}


def measures(table: pd.DataFrame) -> figures.Chart:
    """Line: mean over seeds; band: lowest to highest; dotted: D_0 itself; dashed: its one half beside the other."""
    cells, titles = list(dict.fromkeys(table["cell"])), list(dict.fromkeys(table["title"]))
    colors = alt.Scale(domain=cells, range=[f"var(--s{i % 7})" for i in range(len(cells))])
    legend = alt.Legend(title=None, orient="bottom", columns=4, symbolOpacity=1, symbolStrokeWidth=2, labelLimit=240)
    last = max(1, *table["generation"])
    axis = alt.Axis(format="d", grid=False, values=list(range(1, last + 1, max(1, last // 5))))
    base = alt.Chart().encode(
        alt.X("generation:Q").scale(domain=[1, last] if last > 1 else [0, 2], nice=False).axis(axis).title(None),
        color=alt.Color("cell:N").scale(colors).legend(legend),
    )
    y = alt.Y(field="mean", type="quantitative").scale(zero=False).axis(tickCount=4).title(None)

    def rule(key: str, **look: Any) -> alt.Chart:
        real = alt.Chart().transform_filter(f"isValid(datum.{key})").mark_rule(**look)
        return real.encode(alt.Y(f"mean({key}):Q").title(None))

    layers = [
        base.transform_filter("datum.seeds > 1").mark_area(opacity=0.16).encode(y.field("lowest"), alt.Y2("highest:Q")),
        rule("real", color="var(--ink)", strokeDash=[1, 3.5], strokeWidth=1.6),
        rule("control", color="var(--soft)", strokeDash=[6, 3]),
        base.mark_line(point=last < 3).encode(y),
    ]
    header = alt.Header(labelFontSize=12, labelColor="var(--ink)", labelLimit=_WIDTH + 20)
    chart = alt.layer(*layers, data=alt.NamedData(name="measures")).properties(width=_WIDTH, height=_HEIGHT)
    facet = alt.Facet("title:N").sort(titles).title(None).header(header)
    return figures.faceted(chart, facet, len(titles), 4).resolve_scale(y="independent")
