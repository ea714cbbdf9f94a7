"""A study that compares methods, for its page: the board, what was lost when, and what a verifier does not see.

Each figure is defined once, like those of figures.py; `ouroloop leaderboard` writes the board's as a picture.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ouroloop.config import LoopConfig
from ouroloop.report.layers import WHOLE, Chart, faceted, generation_axis, names_of
from ouroloop.report.leaderboard import KEEP_M1, SCORES, Row, board
from ouroloop.report.looks import look
from ouroloop.report.outcomes import file_of, read_filed
from ouroloop.report.render import spec, svg
from ouroloop.report.results import Loop, Results, counted_at
from ouroloop.report.tables import frame
from ouroloop.science.statistics import SHARE, interval
from ouroloop.study.config import KNOWLEDGE

METHODS = ("board", "coverage_by_method", "depth_by_method")
"""The figures of a study that compares methods."""

_COSTS = ("num_drawn", "train_seconds", "train_seconds_least", "train_seconds_most")
_COLUMNS = ("cycle", "rank", "method", "knows", "seeds", "wanted", "failed", "filed", "reason", "keeps", "beats",
            *(f"{key}{part}" for key in SCORES for part in ("", "_low", "_high", "_area")),
            *_COSTS)  # fmt: skip


def methods_tables(results: Results) -> dict[str, pd.DataFrame]:
    """`board`, a row for each method, and by generation `coverage_by_method` and `depth_by_method`.

    Empty if the study compares none, or has scored none yet. A language whose texts have no known distribution has
    nothing to rank by, so its finished loops have no board.
    """
    rows = board_of(results)
    if not rows:
        return {}
    tables = {"board": table(rows), "coverage_by_method": curves(rows), "depth_by_method": depth_shares(results)}
    awaited = () if any(row.outcomes for row in rows) else ("board",)
    return {name: found for name, found in tables.items() if len(found) or name in awaited}


def board_of(results: Results) -> list[Row]:
    """The rows of the study's board, best first; none where it compares no methods."""
    run, config = results.study, results.compared
    return board(config, run.store, results.name, read_filed(file_of(results.name))) if run and config else []


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """The board's figures with their 95 % intervals, best first; without any that is scored, no rows."""
    found = []
    for row in rows if any("coverage" in row.scores for row in rows) else ():
        num_seeds = len(row.outcomes), row.wanted, len(row.failures), len(row.filed)
        cells: list[Any] = [row.cycle, row.rank, row.method, row.knows, *num_seeds, row.reason, row.keeps, row.beats]
        for key in SCORES:
            score = row.scores.get(key)
            cells += [None] * 4 if score is None else [*score.last[:3], score.area.mean]
        found.append([*cells, *(row.cost.get(key) for key in _COSTS)])
    return frame(_COLUMNS, found)


def curves(rows: Sequence[Row]) -> pd.DataFrame:
    """Coverage by generation of each method that has a score: mean over its seeds, and their 95 % interval.

    Beside it that of M_1, kept, on average over the baseline's seeds: None where the baseline has no loop.
    """
    columns = ("cycle", "method", "knows", "generation", "seeds", "coverage", "low", "high", "first")
    scored, found = [row for row in rows if "coverage" in row.scores], list[tuple[Any, ...]]()
    kept = {row.cycle: row.scores["coverage"].last.mean for row in scored if row.method == KEEP_M1}
    for row in scored:
        if row.method != KEEP_M1:
            of_seeds = [one["coverage"] for one in row.curves.values()]
            for t in sorted(set.intersection(*map(set, of_seeds)) - {0}):  # D_0 is generation 0
                mean, low, high, n = interval([of_seed[t] for of_seed in of_seeds], SHARE)
                found.append((row.cycle, row.method, row.knows, t, n, mean, low, high, kept.get(row.cycle)))
    return frame(columns, found)


def drawing(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """An SVG by name for each of these tables that is there."""
    define = dict(zip(METHODS, (standings, coverage_by_method, depth_by_method), strict=True))
    there = {name: tables[name] for name in define if name in tables and len(tables[name])}
    room = {"padding": {"left": 30, "top": 6, "right": 30, "bottom": 6}}  # a browser's letters may be wider
    return {name: svg(spec(define[name](rows)) | room, name, rows) for name, rows in there.items()}


def standings(table: pd.DataFrame) -> Chart:
    """Quality kept, left, against what it cost, right, a line for each method, coloured by what it may know.

    Dot: mean coverage at the last generation; bar: its 95 % interval over seeds; dashed: M_1's. Cost is relative to the
    baseline's, on a logarithmic scale: filled, texts drawn; open, seconds of training, and a line for their range over
    seeds. What has no rank is pale. Each cycle has its own chart.
    """
    table = table[table["coverage"].notna()]
    color, (x, cost) = _by_knowledge(table), _across(table)
    return _for_each_cycle(table, lambda own, cycle: _of_cycle(own, cycle, color, x, cost))


def _by_knowledge(table: pd.DataFrame) -> alt.Color:
    known = [knows for knows in KNOWLEDGE if knows in set(table["knows"])]
    color = alt.Color("knows:N").scale(domain=known, range=[f"var(--s{KNOWLEDGE.index(one)})" for one in known])
    return color.legend(title="may know", orient="bottom", symbolOpacity=1, symbolStrokeWidth=2, columns=4)


def _for_each_cycle(table: pd.DataFrame, draw: Callable[[pd.DataFrame, str], Chart]) -> Chart:
    cycles = list(dict.fromkeys(table["cycle"]))
    each = [draw(table[table["cycle"] == cycle], cycle) for cycle in cycles]
    if len(each) > 1:
        titles = [alt.Title(cycle.replace("_", " "), anchor="start", color="var(--ink)") for cycle in cycles]
        each = [chart.properties(title=title) for chart, title in zip(each, titles, strict=True)]
    return alt.vconcat(*each)


def _across(table: pd.DataFrame) -> tuple[alt.X, alt.X]:
    """The axes of coverage and of cost, alike in all cycles, which can so be compared."""
    costs = [value for key in _COSTS for value in table[key] if value]
    x = alt.X(field="coverage", type="quantitative").title("coverage").axis(tickCount=4, grid=False)
    cost = alt.X(field="num_drawn", type="quantitative").title("cost, over the baseline’s")
    x = x.scale(domain=_from_zero(table, "coverage", "coverage_high"), nice=True)
    cost = cost.scale(type="log", domain=[min(costs, default=1), max(costs, default=1)], nice=True)
    return x, cost.axis(grid=False, tickCount=4, format="~r")


def _from_zero(table: pd.DataFrame, *columns: str) -> list[float]:
    """A domain that has all that is in these columns."""
    return [0, max(value for column in columns for value in table[column] if value is not None) or 1]


def _of_cycle(table: pd.DataFrame, cycle: str, color: alt.Color, x: alt.X, cost: alt.X) -> Chart:
    names = list(dict.fromkeys(table["method"]))
    y = alt.Y("method:N").sort(names).axis(labelLimit=170, ticks=False, domain=False, grid=True).title(None)
    is_shown = f"datum.cycle === {json.dumps(cycle)} && isValid(datum.coverage)"
    rows = alt.Chart(alt.NamedData(name="board")).transform_filter(is_shown)
    opacity = alt.when("isValid(datum.rank)").then(alt.value(1)).otherwise(alt.value(0.4))
    base, height = rows.encode(y=y, color=color, opacity=opacity), alt.Step(17)
    first = rows.transform_filter(f"datum.method === {json.dumps(KEEP_M1)}")
    kept = [
        base.mark_rule(strokeWidth=2.4).encode(x.field("coverage_low"), alt.X2("coverage_high:Q")),
        base.mark_point(filled=True, size=55).encode(x),
        first.mark_rule(color="var(--ink)", strokeDash=[6, 3]).encode(x),
    ]
    beside = base.encode(y=y.axis(labels=False, ticks=False, domain=False, grid=True))
    drawn, trained = (beside.transform_filter(f"datum.{key} > 0") for key in _COSTS[:2])
    spent = [
        trained.mark_rule().encode(cost.field("train_seconds_least"), alt.X2("train_seconds_most:Q")),
        drawn.mark_point(filled=True, size=45).encode(cost),
        trained.mark_point(size=45).encode(cost.field("train_seconds")),
    ]
    left, right = (alt.layer(*layers).properties(height=height) for layers in (kept, spent))
    return alt.hconcat(left.properties(width=230), right.properties(width=150))


def coverage_by_method(table: pd.DataFrame) -> Chart:
    """A panel for each method, the best first; line: mean coverage; band: 95 % interval over seeds; dashed: M_1's."""
    color = _by_knowledge(table)
    domain = _from_zero(table, "coverage", "high", "first")
    y = alt.Y(field="coverage", type="quantitative").scale(domain=domain).axis(tickCount=3).title(None)

    def of_cycle(own: pd.DataFrame, cycle: str) -> Chart:
        base, names = alt.Chart().encode(generation_axis(table), color=color), names_of(own, "method")
        layers = _with_band(table, base, y, "first")
        chart = alt.layer(*layers, data=alt.NamedData(name="coverage_by_method")).properties(width=150, height=56)
        header = alt.Header(labelFontSize=12, labelColor="var(--ink)", labelLimit=170)
        panels = faceted(chart, alt.Facet("method:N").sort(names).title(None).header(header), len(names), 4)
        return panels.transform_filter(f"datum.cycle === {json.dumps(cycle)}")

    return _for_each_cycle(table, of_cycle)


def _with_band(table: pd.DataFrame, base: alt.Chart, y: alt.Y, beside: str) -> list[Chart]:
    """A line by generation with the band of its interval, and dashed what stands beside it, where that is known."""
    known = alt.Chart().transform_filter(f"isValid(datum.{beside})")
    return [
        base.transform_filter("isValid(datum.low)").mark_area(opacity=0.16).encode(y.field("low"), alt.Y2("high:Q")),
        base.mark_line(point=max(table["generation"]) < 3).encode(y),
        known.mark_rule(color="var(--ink)", strokeDash=[6, 3]).encode(alt.Y(f"mean({beside}):Q").title(None)),
    ]


def depth_shares(results: Results) -> pd.DataFrame:
    """Share of each depth of P in S_t, mean over seeds, and beside it the share that P gives to the depth.

    For methods whose verifier sees only so deep, and before them for the same loops without curation. Where a method
    has several cells, each is called by its cell. Malformed texts and other depths count among all.
    """
    columns = ("method", "depth", "generation", "seeds", "share", "low", "high", "true")
    limited = [loops for loops in results.cells.values() if any(_is_short_sighted(loop.config) for loop in loops)]
    configs = [loop.config for loops in limited for loop in loops if loop.config]
    bare = {config.changed(curation={"steps": []}).fingerprint() for config in configs}
    cells = results.cells.values() if bare else ()
    plain = [cell for cell in cells if any(loop.config and loop.config.fingerprint() in bare for loop in cell)]
    rows: list[tuple[Any, ...]] = []
    shown = [*plain, *limited]
    names = [loops[0].run.tag("method") or loops[0].cell.rpartition(", ")[2] for loops in shown]
    if len(set(names)) < len(names):
        names = [loops[0].cell for loops in shown]
    for name, loops in zip(names, shown, strict=True):
        for level, true in _true_shares(loops[0]).items():
            rows += [(name, level, t, *own, true) for t, *own in _share_at(loops, level)]
    return frame(columns, rows)


def _is_short_sighted(config: LoopConfig | None) -> bool:
    return config is not None and any(getattr(step, "max_depth", None) for step in config.curation.steps)


def _true_shares(loop: Loop) -> dict[str, float]:
    true = loop.testbed.distribution
    if true is None:
        return {}
    forms, prefix = true.forms, "coverage_depth_"
    p = forms.num * np.exp(forms.log_p)
    shares = {key.removeprefix(prefix): float(p[part].sum()) for key, part in forms.parts.items() if prefix in key}
    return {level: share / float(p.sum()) for level, share in shares.items() if level.isdecimal()}


def _share_at(loops: Sequence[Loop], level: str) -> list[tuple[Any, ...]]:
    """(generation, seeds, mean, and the 95 % interval over seeds) of each generation that is on record."""
    found = []
    for t in range(max(loop.reached for loop in loops) + 1):
        tallies = [loop.written[t].depths for loop in counted_at(loops, t) if t in loop.written]
        values = [tally.get(level, 0) / sum(tally.values()) for tally in tallies if tally]
        if values:
            mean, low, high, n = interval(values, SHARE)
            found.append((t, n, mean, low, high))
    return found


def depth_by_method(table: pd.DataFrame) -> Chart:
    """A panel for each depth; line: share of S_t, mean over seeds; band: 95 % interval; dashed: what P gives it."""
    names = names_of(table, "method")
    colors = alt.Scale(domain=names, range=[look(i).color for i in range(len(names))])
    legend = alt.Legend(title=None, orient="bottom", columns=3, symbolOpacity=1, symbolStrokeWidth=2, **WHOLE)
    base = alt.Chart().encode(generation_axis(table), color=alt.Color("method:N").scale(colors).legend(legend))
    y = alt.Y(field="share", type="quantitative").scale(domain=[0, 1]).axis(format="%", tickCount=4).title(None)
    layers = _with_band(table, base, y, "true")
    header = alt.Header(labelFontSize=12, labelColor="var(--ink)", labelExpr="'depth ' + datum.value")
    chart = alt.layer(*layers, data=alt.NamedData(name="depth_by_method")).properties(width=150, height=130)
    return faceted(chart, alt.Facet("depth:N").title(None).header(header), table["depth"].nunique(), 3)
