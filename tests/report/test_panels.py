"""A panel for each measure, with real text beside it."""

import pytest

from ouroloop.report.panels import drawing
from ouroloop.report.tables import frame

COLUMNS = ("measure", "title", "cell", "generation", "seeds", "mean", "lowest", "highest", "interval_low",
           "interval_high", "real", "control")  # fmt: skip


def test_each_measure_has_a_panel_and_real_text_is_in_it() -> None:
    rows = [
        (key, title, cell, t, 3, 0.5 + t / 10, 0.4 + t / 10, 0.6 + t / 10, None, None, real, control)
        for key, title, real, control in (("a", "distinct-3", 0.9, 0.8), ("b", "copied <b>", None, 0.3))
        for cell in ("λ = 0.1", "λ = 1")
        for t in (1, 2, 3)
    ]
    svg = drawing({"measures": frame(COLUMNS, rows)})["measures"]
    assert "distinct-3" in svg
    assert "copied &lt;b&gt;" in svg
    assert svg.count('stroke-dasharray="6,3"') == 2  # the control, in both
    assert svg.count('stroke-dasharray="1,3.5"') == 1  # D_0 itself, where it has the measure
    assert svg.count('stroke="var(--s0)"') >= 2


@pytest.mark.parametrize(("count", "axes"), [(2, 2), (5, 5), (8, 4)])
def test_where_there_is_no_panel_there_is_no_axis(count: int, axes: int) -> None:
    rows = [(f"m{i}", f"measure {i}", "λ = 1", t, 1, 0.5, 0.5, 0.5, None, None, None, None)
            for i in range(count) for t in range(1, 8)]  # fmt: skip
    assert drawing({"measures": frame(COLUMNS, rows)})["measures"].count(">7</text>") == axes


def test_nothing_measured_is_nothing_drawn() -> None:
    assert drawing({}) == drawing({"measures": frame(COLUMNS, [])}) == {}
