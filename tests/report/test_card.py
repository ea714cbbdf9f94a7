"""The card of a model, from numbers alone."""

import re
from math import exp

import pytest

from ouroloop.config import LoopConfig, StageConfig
from ouroloop.report.registry import criterion, model_card
from ouroloop.science.metrics import CollapseStage


def card(config: LoopConfig, mixture: dict[str, int], **metrics: float) -> str:
    facts = {"criterion": criterion(config.stages), "represents its cell as": "x" * 500}
    stage = CollapseStage.ONSET
    return model_card("ouroloop-x", stage, 7, config, facts=facts, mixture=mixture, metrics=metrics)


def test_the_criterion_holds_every_threshold() -> None:
    assert (
        criterion(StageConfig(healthy=0.9, onset=0.4, decline=0.1))
        .partition(";")[0]
        .endswith("healthy r >= 0.9, onset 0.4 <= r < 0.9, decline 0.1 <= r < 0.4, collapsed r < 0.1")
    )


def test_the_largest_origins_are_listed_and_the_rest_is_counted(tiny: LoopConfig) -> None:
    mixture = {"original": 400} | {f"sampled-{t:02d}": t for t in range(1, 51)}
    text = card(tiny, mixture)
    total = 400 + 50 * 51 // 2
    assert f"{total:,} examples, {(total - 400) / total:.1%} written by earlier models" in text
    assert f"| original | 400 | {400 / total:.1%} |" in text
    listed = sum(range(40, 51))
    assert f"| 39 other origins | {total - 400 - listed} |" in text
    assert len(text) < 5_000


def test_intervals(tiny: LoopConfig) -> None:
    """Wilson's interval at 0 of 40 ends at z²/(n + z²); a length's is at 95 % on the scale of the logarithm."""
    text = card(tiny, {"original": 40}, correctness=0.0, mean_length_tokens=8.0, mean_length_tokens_stderr=0.5)
    assert f"(`correctness`) | 0 | 0 to {1.96**2 / (40 + 1.96**2):.4g} |" in text
    assert f"(`mean_length_tokens`) | 8 | {8 / exp(1.96 / 16):.4g} to {8 * exp(1.96 / 16):.4g} |" in text
    assert "false_rate" not in text  # what was not measured is not there


@pytest.mark.parametrize(("mean", "error"), [(0.5, 0.1), (0.99, 0.02), (0.01, 0.02), (0.9992, 0.001)])
def test_an_interval_of_a_mean_stays_in_its_range(tiny: LoopConfig, mean: float, error: float) -> None:
    """Its ends are those p from which the mean is z standard errors of p away, which shrink towards 0 and 1."""
    text = card(tiny, {"original": 40}, diversity_levenshtein=mean, diversity_levenshtein_stderr=error)
    found = re.search(r"\(`diversity_levenshtein`\) \| \S+ \| (\S+) to (\S+) \|", text)
    assert found is not None
    low, high = float(found[1]), float(found[2])
    assert 0 < low < mean < high < 1
    for end in (low, high):
        at_end = error * (end * (1 - end) / (mean * (1 - mean))) ** 0.5
        assert abs(end - mean) == pytest.approx(1.96 * at_end, rel=0.05)  # four digits are shown


def test_an_error_that_was_not_seen_gives_no_interval(tiny: LoopConfig) -> None:
    text = card(tiny, {"original": 40}, diversity_levenshtein=0.5, diversity_levenshtein_stderr=0.0)
    assert "(`diversity_levenshtein`) | 0.5 |  |" in text


@pytest.mark.parametrize("stage", CollapseStage)
def test_it_says_how_to_load_it(tiny: LoopConfig, stage: CollapseStage) -> None:
    text = model_card("ouroloop-x", stage, 7, tiny, facts={}, mixture={"original": 40}, metrics={})
    assert text.startswith(f"# ouroloop-x@{stage}\n\nM_7 of a self-consuming")
    assert f'mlflow.transformers.load_model("models:/ouroloop-x@{stage}")' in text
    assert f"\nouroloop sample models:/ouroloop-x@{stage} -n 20\n" in text
