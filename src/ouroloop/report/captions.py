"""What stands over each figure of a page: its title, what is drawn, or what would fill a figure without data."""

from collections.abc import Callable, Mapping

import pandas as pd

from ouroloop.report.figures import rows
from ouroloop.report.layers import joined
from ouroloop.report.leaderboard import BARS, KEEP_M1

_WRITTEN = "What the models write"
TITLES = {
    "board": "What each method keeps, and at what cost",
    "coverage_by_method": "How fast each method loses it",
    "depth_by_method": "What a verifier of limited depth does below its limit",
    "retention": "How much diversity is left",
    "half_life": "When half of it is gone",
    "unique": "Distinct is not diverse",
    "kept": "What is left in the end",
    "composition": "What is sampled",
    "measures": "Beside real text",
    "depth": "How deep the expressions are",
    "expressions": _WRITTEN,
    "texts": _WRITTEN,
}

_RETENTION = "a generation with `diversity_retention`, which needs a D_0 of at least two different texts"
_NOTHING_WRITTEN = "Nothing to show yet. This needs a finished generation with its `samples.json`, or its texts."
MISSING = {
    "board": "Nothing to compare yet. This needs a finished loop with `coverage`.",
    "coverage_by_method": "Nothing to draw yet. This figure needs a finished loop with `coverage`.",
    "depth_by_method": "Nothing to draw yet. This figure needs a finished generation.",
    "retention": f"Nothing to draw yet. This figure needs {_RETENTION}.",
    "half_life": f"Nothing to draw yet. This figure needs {_RETENTION}.",
    "kept": f"Nothing to draw yet. This figure needs {_RETENTION}.",
    "unique": f"Nothing to draw yet. This figure needs {_RETENTION}, and `unique_fraction`.",
    "composition": "Nothing to draw yet. This figure needs a generation with `correctness`, `false_rate` and "
    "`error_rate`, which every loop on logic expressions measures.",
    "measures": "Nothing to draw yet. This figure needs a finished generation.",
    "depth": "Nothing to draw yet. This figure needs a finished generation with its `depths.json`, or its texts.",
    "expressions": _NOTHING_WRITTEN,
    "texts": _NOTHING_WRITTEN,
}


def notes(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """A note for each figure, only about what is there: bands, marks and the paper's curves where they are drawn."""
    say: dict[str, Callable[[pd.DataFrame], str]] = {
        "board": _board,
        "coverage_by_method": _coverage_by_method,
        "depth_by_method": _depth_by_method,
        "retention": _retention,
        "half_life": _half_life,
        "kept": _kept,
        "unique": _unique,
        "composition": _composition,
        "depth": lambda _: "Share of a model’s texts by depth, generation 0 being D_0. Stronger colour: larger share.",
        "measures": _measures,
        "expressions": _texts,
        "texts": _texts,
    }
    there = [name for name in TITLES if name in tables]
    return {name: say[name](tables[name]) if len(tables[name]) else MISSING[name] for name in there}


def _board(table: pd.DataFrame) -> str:
    cycles = table["cycle"].unique()
    of_cycle = f" of {cycles[0].replace('_', ' ')}" if len(cycles) == 1 else ""
    said = f"Coverage, the overlap with the true distribution, at the last generation{of_cycle}"
    if max(table["seeds"]) > 1:
        said += ": mean over seeds, with the 95 % interval"
    bars = BARS.replace("'", "’")
    kept = " Dashed: M_1, kept." if (table["method"] == KEEP_M1).any() else ""
    spent = "texts drawn"
    if _has(table, "train_seconds"):
        spent = "filled, texts drawn; open, seconds of training, with their range over seeds"
    pale = " Pale: what has no rank." if table["rank"].isna().any() else ""
    filed = " *: seeds from the file of the board, not run here." if table["filed"].any() else ""
    return (
        f"{said}; “area” is its mean over all generations.{kept}{pale}{filed} Cost is over the "
        f"baseline’s: {spent}. Only methods with all seeds are ranked; those "
        "that cannot be told apart (95 %, paired seeds) share a rank. “Over” is how many ranked methods one is told "
        f"apart from and beats; “keeps”, whether {bars}."
    )


def _coverage_by_method(table: pd.DataFrame) -> str:
    said = "Coverage, the overlap with the true distribution, by generation."
    if max(table["seeds"]) > 1:
        said += " Line: mean over seeds; band: their 95 % interval."
    return f"{said} Dashed: M_1, kept." if _has(table, "first") else said


def _depth_by_method(table: pd.DataFrame) -> str:
    said = "Share of each depth among all texts of S_t, generation 0 being D_0."
    if max(table["seeds"]) > 1:
        said += " Line: mean over seeds; band: their 95 % interval."
    return f"{said} Dashed: the share of that depth in the true distribution."


def _texts(table: pd.DataFrame) -> str:
    verdict = " and verdict" if "verdict" in table.columns else ""
    return f"The most frequent texts of a generation, with their share{verdict}."


def _measures(table: pd.DataFrame) -> str:
    said = "What a model writes, and how well it still predicts real text, by generation."
    if max(table["seeds"]) > 1:
        said += " Line: mean over seeds; band: lowest to highest."
    if _has(table, "real"):
        said += " Dotted: the original data D_0 itself."
    if _has(table, "control"):
        said += " Dashed: one half of D_0 beside the other, which shows how far apart two real samples are."
    return said


def _has(table: pd.DataFrame, column: str) -> bool:
    return bool(table[column].notna().any())


def _retention(table: pd.DataFrame) -> str:
    said = "Mean edit distance between two texts of a model, over that of the original data D_0."
    if max(table["seeds"]) > 1:
        said += " Line: mean over seeds; band: lowest to highest."
    if _has(table, "paper"):
        said += " Dotted: the paper at m = 10,000, over its own D_0, a single run"
        said += "; the mean of five where D_0 is not all True." if _has_other_starts(table) else "."
    return said


def _has_other_starts(table: pd.DataFrame) -> bool:
    return any(start in cell for cell in table["cell"] for start in ("false_only", "half_and_half"))


def _half_life(table: pd.DataFrame) -> str:
    by_proportion = table.dropna(subset=["proportion"])
    against = ", against the synthetic proportion λ" if len(by_proportion) else ""
    said = f"First generation that keeps less than half{against}. One mark per loop"
    there = rows("half_life", table)
    if joined(there, "median")[1]:
        said += "; the line joins medians"
    said += "." if not table["half_life"].isna().any() else "; △: a loop that ended before it had lost half."
    return f"{said}{_aside(table)}{_paper(there)}"


def _kept(table: pd.DataFrame) -> str:
    ends = sorted(set(table["generation"]))
    when = f"at t = {ends[0]}" if len(ends) == 1 else f"where each setting ends, at t = {ends[0]} to {ends[-1]}"
    said = f"Diversity kept {when}, against the synthetic proportion λ. "
    said += "Mark: mean over seeds; bar: its 95 % interval" if _has(table, "interval_low") else "One mark per setting"
    return f"{said}.{_aside(table)}{_paper(rows('kept', table))}"


def _aside(table: pd.DataFrame) -> str:
    """Where cycles without λ stand beside others."""
    return " Cycles without λ are at “no λ”." if 0 < table["proportion"].notna().sum() < len(table) else ""


def _paper(there: pd.DataFrame) -> str:
    """How the paper is drawn over λ, if it is, in a figure of these rows."""
    _, curves, points = joined(there, "paper")
    looks = [*(["Dotted"] if curves else []), *(["a dash" if curves else "A dash"] if points else [])]
    return f" {' or '.join(looks)}: the paper." if looks else ""


def _unique(table: pd.DataFrame) -> str:
    said = "Share of distinct texts against diversity kept, from generation 0 at the left. "
    said += "A model can write only distinct texts while these grow alike."
    return f"{said} Dotted: the paper’s figure 7." if _has(table, "paper_unique_fraction") else said


def _composition(table: pd.DataFrame) -> str:
    said = "Texts that are True, False or malformed, by generation"
    said += ": means over seeds." if max(table["seeds"]) > 1 else "."
    said += " Rising truth is not rising quality; it is one label winning."
    return f"{said} Dotted: the upper end of True in the paper." if _has(table, "paper_True") else said
