"""How what is drawn is told apart: colours, dashes and marks, for figures and for the script of the page."""

from typing import NamedTuple

DAY = {
    # Okabe and Ito's colours, which colour-blind readers tell apart, darkened where a thin line would be too faint
    "s0": "#0072b2", "s1": "#c8500a", "s2": "#00866a", "s3": "#b4558a", "s4": "#a87900", "s5": "#2b8fc7",
    "s6": "#1d1c1a", "ink": "#1d1c1a", "soft": "#65615a", "line": "#e4e0d8", "card": "#ffffff", "heat": "#004e86",
    "true": "#0a8f6c", "false": "#e69f00", "malformed": "#9a958c",
}  # fmt: skip
"""The colours that definitions name, as they are by day; page.css says what they are by night."""

PAPER = "the paper"
PARTS = {"True": "var(--true)", "False": "var(--false)", "malformed": "var(--malformed)"}
"""What composition is of, with the colour of each."""
DOTTED = [1, 3.5]

# Vega's circle, square, triangle, diamond, cross and triangle upside down, as paths that the page's script can draw too
_MARKS = (
    "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    "M-1,-1H1V1H-1Z",
    "M0,-0.866L-1,0.866H1Z",
    "M-1,0L0,-1L1,0L0,1Z",
    "M-1,-0.4V0.4H-0.4V1H0.4V0.4H1V-0.4H0.4V-1H-0.4V-0.4Z",
    "M0,0.866L-1,-0.866H1Z",
)
_DASHES = ([1, 0], [9, 4], [3, 4], [12, 4, 3, 4])
_NUM_COLORS = 7


class Look(NamedTuple):
    """How one of several cells is drawn."""

    color: str
    dash: list[int]
    mark: str
    """A shape of Vega's: an SVG path."""


def look(i: int) -> Look:
    """The look of the i-th cell; no two of the first 84 are alike."""
    return Look(f"var(--s{i % _NUM_COLORS})", _DASHES[i // _NUM_COLORS % len(_DASHES)], _MARKS[i % len(_MARKS)])
