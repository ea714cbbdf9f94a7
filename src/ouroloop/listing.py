"""Rows for whoever reads them: a table on a terminal, tab-separated lines in a pipe."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ouroloop.verify import judge

_STYLES = {"True": "green", "False": "red", "malformed": "yellow"}


def verdict_and_depth(text: str) -> tuple[str, int | str]:
    """What a row says of an expression; a malformed one has no depth, and the cell is empty."""
    judgement = judge(text)
    return str(judgement.verdict), "" if judgement.depth is None else judgement.depth


def print_listing(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
    """Fractions get three digits on a terminal and all of them in a pipe, which gets no title either."""
    if not console.is_terminal:
        for row in [columns, *rows]:
            print(*row, sep="\t", file=console.file)
        return
    # Text, not markup: what a model wrote may look like some
    table = Table(title=Text(title), title_justify="left")
    for column, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        is_number = all(isinstance(value, int | float) or value == "" for value in values)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        shown = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in shown))
    console.print(table)
