"""The digitised curves must be laid only over what the paper ran."""

from dataclasses import replace

import pytest

from ouroloop.config import CycleConfig, DataCycle, LoopConfig
from ouroloop.presets import load_preset
from ouroloop.report.tables import figure_tables, published
from ouroloop.testbed.logic.grammar import TruthLabel
from tests.report.test_summary import loop, results


@pytest.fixture
def deep(tiny: LoopConfig) -> LoopConfig:
    """As the paper's, of depth 1 to 5."""
    return tiny.changed(data={"max_depth": 5}, sampling={"max_new_tokens": 126}, model={"context_length": 128})


def like(config: LoopConfig, kind: DataCycle, proportion: float | None = None) -> LoopConfig:
    return config.changed(cycle=CycleConfig(kind=kind, synthetic_proportion=proportion))


@pytest.mark.parametrize(
    ("kind", "proportion", "end"),
    [
        (DataCycle.FULL_SYNTHETIC, None, 0.0),
        (DataCycle.INCREMENTAL, 1.0, 0.0),
        (DataCycle.INCREMENTAL, 0.1, 1 - 0.684),  # the changes that the paper states
        (DataCycle.BALANCED, None, 1 - 0.306),
        (DataCycle.EXPANDING, 0.9, 1 - 0.226),
    ],
)
def test_end_of_the_curves(deep: LoopConfig, kind: DataCycle, proportion: float | None, end: float) -> None:
    paper = published(like(deep, kind, proportion))
    assert paper is not None
    assert (len(paper.retention), paper.retention[0]) == (51, 1)
    assert paper.retention[50] == pytest.approx(end, abs=0.001)


@pytest.mark.parametrize(
    ("kind", "proportion", "true_at_50"),
    [
        (DataCycle.FULL_SYNTHETIC, None, 1.0),
        (DataCycle.INCREMENTAL, 0.1, 0.9878),
        (DataCycle.BALANCED, None, 0.9839),
        (DataCycle.EXPANDING, 0.9, 0.9775),
    ],
)
def test_composition_starts_from_d_0(
    deep: LoopConfig, kind: DataCycle, proportion: float | None, true_at_50: float
) -> None:
    paper = published(like(deep, kind, proportion))
    assert paper is not None
    assert paper.composition is not None
    assert (len(paper.composition), paper.composition[0]) == (51, (1.0, 0.0, 0.0))
    assert paper.composition[50][0] == true_at_50
    assert all(sum(shares) == pytest.approx(1) for shares in paper.composition)


def test_distinct_texts_of_the_full_synthetic_loop(deep: LoopConfig) -> None:
    """As the paper's appendix B says: falling by t = 10, fewer than ten at t = 21, one from t = 39 on."""
    paper = published(deep)
    assert paper is not None
    assert paper.unique_fraction is not None
    counts = [round(10_000 * share) for share in paper.unique_fraction]
    assert (counts[0], counts[15], counts[39:]) == (10_000, 408, [1] * 12)
    assert counts[21] < 10
    balanced = published(like(deep, DataCycle.BALANCED))
    assert balanced is not None
    assert balanced.unique_fraction is None


def test_the_papers_curves_are_beside_the_same_generations_of_ours(deep: LoopConfig) -> None:
    """Of its 10,000 texts at t = 0, 1 and 2, as digitised."""
    ours = loop("full synthetic", 1, [1.0, 0.9, 0.8], false_rate=0.5, unique_fraction=0.5)
    tables = figure_tables(results(replace(ours, config=deep)))
    kept = [1.0, 0.5291 / 0.5355, 0.5169 / 0.5355]
    assert tables["retention"]["paper"].tolist() == pytest.approx(kept)
    parts = {"True": [1, 0.8329, 0.8968], "False": [0, 0.1671, 0.1029], "malformed": [0, 0, 0.0003]}
    for part, shares in parts.items():
        assert tables["composition"][f"paper_{part}"].tolist() == pytest.approx(shares)
    assert tables["unique"]["paper_diversity_retention"].tolist() == pytest.approx(kept)
    assert tables["unique"]["paper_unique_fraction"].tolist() == pytest.approx([1, 0.9875, 0.995])


def test_appendix_c_started_from_false(deep: LoopConfig) -> None:
    paper = published(deep.changed(data={"truth_label": TruthLabel.FALSE_ONLY}))
    assert paper is not None
    assert paper.composition is not None
    assert (len(paper.retention), paper.composition[0]) == (11, (0.0, 1.0, 0.0))


def test_what_the_paper_did_not_run_has_no_curve(tiny: LoopConfig, deep: LoopConfig) -> None:
    assert published(deep.changed(sampling={"temperature": 1.0})) is None
    assert published(like(tiny, DataCycle.FULL_SYNTHETIC)) is None  # depth 1 and 2 only
    assert published(like(deep, DataCycle.INCREMENTAL, 0.3)) is None
    assert published(like(deep, DataCycle.FRESH_MIX, 0.5)) is None
    for train in ({"targets": "soft"}, {"start": "previous"}, {"loss_temperature": 0.8}):
        config = load_preset("laptop", [], LoopConfig).changed(train=train)
        assert published(config) is None
    assert published(load_preset("laptop", [], LoopConfig)) is not None
    assert published(deep.changed(curation={"steps": ["verified"]})) is None
