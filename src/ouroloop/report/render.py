"""A figure drawn without a browser: its definition and its rows as SVG, and that as PNG."""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

import pandas as pd
import vl_convert
from PIL import Image

from ouroloop.plain import visible
from ouroloop.report.looks import DAY

Spec = dict[str, Any]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"


def spec(chart: Any) -> Spec:
    """The definition of an altair chart, in the look that all figures share."""
    soft, ink = "var(--soft)", "var(--ink)"
    quiet = {
        "labelColor": soft,
        "titleColor": soft,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    config = {
        "font": _FONT,
        "aria": False,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {
            **quiet,
            "gridColor": "var(--line)",
            "domainColor": soft,
            "tickColor": "var(--line)",
            "titlePadding": 8,
        },
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
        "legend": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12, "titleFontWeight": "normal"},
        "line": {"strokeWidth": 2.1, "strokeJoin": "round", "strokeCap": "round"},
    }
    return cast(Spec, chart.to_dict(validate=False)) | {"config": config, "padding": 6}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], table.to_dict("records"))


def svg(spec: Spec, name: str, table: pd.DataFrame) -> str:
    """A figure as SVG, its colours still variables; to a screen reader it is one picture.

    A name with a character that XML does not allow would end this process, so hidden characters are spelled out.
    """
    drawn = str(vl_convert.vegalite_to_svg(_spelled(spec | {"datasets": {name: records(table)}})))
    plain = _in_tags(drawn, r' (?:role|aria-[a-z]+|class)="[^"<>]*"', lambda _: "")
    return plain.replace("<svg ", '<svg aria-hidden="true" ', 1)


def _spelled(part: Any) -> Any:
    """A definition with its rows, hidden characters spelled out."""
    if isinstance(part, dict):
        return {_spelled(key): _spelled(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_spelled(value) for value in part]
    return visible(part) if isinstance(part, str) else part


def _in_tags(drawn: str, pattern: str, instead: Callable[[re.Match[str]], str]) -> str:
    """Replace inside tags only: what is between them may be a name."""
    return re.sub(r'<(?:[^<>"]|"[^"]*")*>', lambda tag: re.sub(pattern, instead, tag[0]), drawn)


def png(drawn: str) -> bytes:
    """What `svg` gave as PNG, in the colours of the day, reduced to 256, which makes it a quarter as large."""
    by_day = _in_tags(drawn, r"var\(--([a-z0-9]+)\)", lambda found: DAY.get(found[1], found[0]))
    picture = Image.open(BytesIO(vl_convert.svg_to_png(_on_card(by_day), scale=1.5))).convert("RGB")
    buffer = BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _on_card(drawn: str) -> str:
    return re.sub(
        r"(<svg[^>]*>)", lambda found: f'{found[1]}<rect width="100%" height="100%" fill="#ffffff"/>', drawn, count=1
    )
