"""Two models side by side: which texts the later one can no longer write.

Exact: no sampling is involved; each text's probability is the product of the model's own softmaxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ouroloop.config import ConfigError
from ouroloop.console import print_listing, say
from ouroloop.plain import visible
from ouroloop.record.track import Store
from ouroloop.report.models import FoundModel, find_model, require_temperature
from ouroloop.report.stages import Cell, Found, find_cells, find_stages
from ouroloop.science.dataset import DatasetError
from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Array, Testbed, noun_of

_DRAWN = 2_000  # texts to compare on when no D_0 is on record
_FOLDS = (10, 1_000)  # counted is what fell or rose by more than this many times
_NUMBERS = ("log_p_before", "log_p_after", "change")


@dataclass(frozen=True)
class Comparison:
    """Log-probabilities in nats of the same texts under two models."""

    testbed: Testbed
    before: str
    after: str
    reference: str
    """Where the texts come from."""
    temperature: float
    texts: Sequence[str]
    log_p_before: Array
    log_p_after: Array

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of `fell_most`: what the testbed says of a text, the numbers, the text."""
        *said, text = self.testbed.columns
        return (*said, *_NUMBERS, text)

    @cached_property
    def change(self) -> Array:
        """Log M_after(x) - log M_before(x) of each text, in nats."""
        return self.log_p_after - self.log_p_before

    @cached_property
    def depths(self) -> npt.NDArray[np.int64]:
        """The depth of each text; -1 where it is malformed, or has none."""
        depths = [getattr(self.testbed.judge(text), "depth", None) for text in self.texts]
        return np.array([-1 if depth is None else depth for depth in depths], dtype=np.int64)

    def summary(self, depth: int | None = None) -> dict[str, float]:
        """Means in nats, and shares in [0, 1], over all texts or those of one depth.

        The mass is the probability that the model writes one of them: the sum of theirs.
        """
        chosen = np.ones(len(self.texts), dtype=bool) if depth is None else self.depths == depth
        before, after, change = self.log_p_before[chosen], self.log_p_after[chosen], self.change[chosen]
        summary: dict[str, float] = {
            f"num_{noun_of(self.testbed)}": int(chosen.sum()),
            "mean_log_p_before": float(before.mean()),
            "mean_log_p_after": float(after.mean()),
            "mean_change": float(change.mean()),
            "mass_before": float(np.exp(before).sum()),
            "mass_after": float(np.exp(after).sum()),
        }
        for fold in _FOLDS:
            summary[f"share_fell_{fold}x"] = float(np.mean(change < -np.log(fold)))
            summary[f"share_rose_{fold}x"] = float(np.mean(change > np.log(fold)))
        return summary

    def by_depth(self) -> list[dict[str, float]]:
        """The summary of each depth; empty where texts have none."""
        depths = np.unique(self.depths) if "depth" in self.columns else ()
        return [{"depth": int(depth), **self.summary(int(depth))} for depth in depths]

    def fell_most(self, limit: int) -> list[tuple[Any, ...]]:
        """Rows of `columns`, the deepest fall first."""
        fallen = [i for i in np.argsort(self.change, kind="stable")[:limit] if self.change[i] < 0]
        numbers = np.stack([self.log_p_before, self.log_p_after, self.change], axis=1)[fallen].tolist()
        texts = [self.texts[i] for i in fallen]
        return [(*self.testbed.row(text)[:-1], *pair, text) for text, pair in zip(texts, numbers, strict=True)]

    def record(self, limit: int) -> dict[str, Any]:
        """Everything above for a program, with the `limit` texts that fell most."""
        return {
            "before": self.before,
            "after": self.after,
            f"{noun_of(self.testbed)}_from": self.reference,
            "temperature": self.temperature,
            "summary": self.summary(),
            "by_depth": self.by_depth(),
            "fell_most": [dict(zip(self.columns, row, strict=True)) for row in self.fell_most(limit)],
        }


def compare(before: FoundModel, after: FoundModel, temperature: float = 1.0) -> Comparison:
    """Compare both models on the D_0 of the first that is from a loop; if both are folders, on texts drawn like one.

    Raises:
        ConfigError: D_0 is not on record, a model has no positions for its texts, they write different languages, or
            the temperature is not above 0.
    """
    require_temperature(temperature)
    if before.testbed.name != after.testbed.name:
        languages = f"{before.name} writes {before.testbed.material}, {after.name} {after.testbed.material}"
        raise ConfigError(f"{languages}: only models of one language can be compared")
    texts, reference = _texts(before, after)
    return Comparison(
        before.testbed,
        before.name,
        after.name,
        reference,
        temperature,
        texts,
        _scored(before, texts, temperature),
        _scored(after, texts, temperature),
    )


def _scored(model: FoundModel, texts: Sequence[str], temperature: float) -> Array:
    try:
        whole = replace(model.fitted, config=model.fitted.config.changed(min_p=0.0))  # what a cut removes has no log
        log_p: Array = whole.log_prob(texts, [temperature])[0]
        return log_p
    except (ValueError, FloatingPointError) as error:
        raise ConfigError(f"{model.name}: {error}") from None


def _texts(*models: FoundModel) -> tuple[Sequence[str], str]:
    for model in models:
        if model.generation is not None and model.generation.parent_id is not None:
            loop = model.generation.store.get(model.generation.parent_id)
            try:
                return loop.read_dataset("original_data.tsv.gz").texts, f"D_0 of {loop.name}"
            except DatasetError as error:
                raise ConfigError(str(error)) from None
    testbed = models[0].testbed
    if testbed.distribution is None:
        raise ConfigError(f"{models[0].name} is a folder, so no D_0 is on record to compare the models on")
    positions = min(model.fitted.num_positions for model in models)  # one is the start symbol's
    drawn = testbed.original(_DRAWN, stream(0, "compare"))
    texts = [text for text in drawn if len(testbed.tokens(text)) < positions]
    return texts, f"{len(texts):,} of {_DRAWN:,} {noun_of(testbed)} drawn as D_0 is: those that fit both models"


def compare_study(store: Store, study: str, temperature: float = 1.0) -> tuple[list[Comparison], list[str]]:
    """Compare each cell's first stage with its last; and say what could not be compared, and why.

    Raises:
        ConfigError: there is no such study.
    """
    cells, left_out = find_cells(store, study)
    comparisons, reasons = [], [f"{entry.name}: {entry.outcome}" for entry in left_out]
    for cell in cells:
        kept = sorted((found for found in find_stages(cell) if found.generation), key=lambda found: found.number)
        if len(kept) < 2:
            is_ideal = cell.representative.config.is_ideal
            has = "none: the ideal learner is its training set" if is_ideal else f"those of {len(kept)}"
            reasons.append(f"{cell.name}: skipped: it needs the weights of two stages and has {has}")
            continue
        comparisons.append(compare(_of_stage(cell, kept[0]), _of_stage(cell, kept[-1]), temperature))
    return comparisons, reasons


def _of_stage(cell: Cell, found: Found) -> FoundModel:
    assert found.generation is not None
    model = find_model(f"models:/{found.generation.model_id}")
    return replace(model, name=f"{cell.name}@{found.stage} (M_{found.number})")


def print_comparison(console: Console, comparison: Comparison, limit: int) -> None:
    """Print summary, depths and the `limit` texts that fell most; into a pipe only these texts, with both names."""
    before, after, rows = comparison.before, comparison.after, comparison.fell_most(limit)
    if not console.is_terminal:
        print_listing(console, ("before", "after", *comparison.columns), [(before, after, *row) for row in rows], "")
        return
    total, noun = comparison.summary(), noun_of(comparison.testbed)
    say(
        console,
        f"{visible(before)}  ->  {visible(after)}\n"
        f"{visible(comparison.reference)}: {total[f'num_{noun}']:,} {noun}, softmax at temperature "
        f"{comparison.temperature:g}\n"
        f"Their probability fell more than 10x for {total['share_fell_10x']:.1%}, more than 1,000x for "
        f"{total['share_fell_1000x']:.1%}; it rose more than 10x for {total['share_rose_10x']:.1%}.\n"
        f"Mean log-probability {total['mean_log_p_before']:.2f} -> {total['mean_log_p_after']:.2f} nats; all of them "
        f"together have probability {total['mass_before']:.3g} -> {total['mass_after']:.3g}.",
    )
    keys = ("depth", f"num_{noun}", "mean_log_p_before", "mean_log_p_after", "mean_change", "share_fell_10x",
            "share_fell_1000x")  # fmt: skip
    headings = ("depth", noun, "log p before", "after", "change", "share fell 10x", "1,000x")
    rows_by_depth = [[_shown(key, row[key]) for key in keys] for row in comparison.by_depth()]
    *said, text = comparison.testbed.columns
    if "depth" in said:
        print_listing(console, headings, rows_by_depth, "By depth (means)")
    print_listing(console, (*said, "log p before", "after", "change", text), rows, "Fell most")


def _shown(key: str, value: float) -> float | str:
    """A share as per cent, as in the sentence above the table."""
    return f"{value:.1%}" if key.startswith("share_") else value
