"""What is committed in experiments/results follows from its CSV files: figures by their data, not by their pixels."""

import json
import shutil
from pathlib import Path

import pytest

from ouroloop.report.archive import main, read_csv, read_folder
from ouroloop.report.figures import figures, headline
from ouroloop.report.findings import findings_json
from ouroloop.report.tables import figure_tables, write_csv
from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "experiments" / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/retention.csv"))


@pytest.mark.parametrize("study", STUDIES)
def test_findings_and_tables_follow_from_what_was_measured(study: str, tmp_path: Path) -> None:
    folder = RESULTS / study
    results = read_folder(folder)
    assert findings_json(results) == (folder / "findings.json").read_text(encoding="utf-8")
    for name, table in figure_tables(results).items():
        if name != "depth":  # of which only shares are kept
            write_csv(table, tmp_path / name)
            assert (tmp_path / name).read_bytes() == (folder / f"{name}.csv").read_bytes(), name


@pytest.mark.parametrize("study", STUDIES)
def test_intervals_keep_to_their_range(study: str) -> None:
    for cell in json.loads((RESULTS / study / "findings.json").read_text(encoding="utf-8"))["cells"]:
        kept = cell["retention"]
        if kept.get("low") is not None:
            assert 0 <= kept["low"] <= kept["mean"] <= kept["high"] <= 1.1
        life = cell["half_life"]["mean_up_to_horizon"]
        if life["low"] is not None:
            assert 0 <= life["low"] <= life["mean"] <= life["high"] <= life["horizon"]


@pytest.mark.parametrize("study", [study for study in STUDIES if (RESULTS / study / "measures.csv").exists()])
def test_intervals_of_what_a_testbed_measures_keep_to_its_range(study: str) -> None:
    known = read_csv(RESULTS / study / "measures.csv").dropna(subset=["interval_low"])
    assert (known["interval_low"] <= known["mean"]).all()
    assert (known["mean"] <= known["interval_high"]).all()
    assert known["interval_low"].min() >= 0
    shares = known[~known["measure"].str.contains("nats|ratio")]
    assert {"distinct_3", "repetition", "rare_token_coverage"} <= set(shares["measure"])
    assert shares["interval_high"].max() <= 1


def test_the_boards_curves_are_those_of_its_loops() -> None:
    table = read_csv(RESULTS / "leaderboard-retention.csv")
    loops = json.loads((RESULTS / "leaderboard.json").read_text(encoding="utf-8"))["loops"]
    for cell in ("full synthetic, baseline", "full synthetic, drawn ancestors"):
        cycle, method = cell.split(", ")
        kept = [one["curves"]["diversity_retention"] for one in loops
                if (one["cycle"], one["method"]) == (cycle.replace(" ", "_"), method)]  # fmt: skip
        shown = table[(table["cell"] == cell) & (table["generation"] > 0)]
        assert set(shown["seeds"]) == {len(kept)}
        for column, of in (("lowest", min), ("highest", max), ("mean", lambda values: sum(values) / len(values))):
            assert shown[column].tolist() == pytest.approx([of(values) for values in zip(*kept, strict=True)])


@pytest.mark.parametrize("table", ["retention", "depth"])
def test_a_table_is_drawn_beside_it(tmp_path: Path, table: str) -> None:
    shutil.copy(RESULTS / f"leaderboard-{table}.csv", tmp_path / "own.csv")
    main([str(tmp_path / "own.csv")])
    assert (tmp_path / "own.png").read_bytes() == (RESULTS / f"leaderboard-{table}.png").read_bytes()


@pytest.mark.parametrize("study", ["fig5", "fig3-4"])
def test_the_readmes_figure_draws_both_learners_and_the_paper(study: str) -> None:
    tables = {label: read_csv(RESULTS / f"{study}{suffix}" / "retention.csv")
              for label, suffix in (("network", ""), ("ideal learner", "-ideal"))}  # fmt: skip
    spec, drawn = headline(tables)
    assert spec["facet"]["field"] == "cell"
    for label, table in tables.items():
        own = drawn[drawn["learner"] == label]
        assert own["mean"].tolist() == table["mean"].tolist()
        assert own["highest"].tolist() == table["highest"].tolist()
    paper = drawn[drawn["learner"] == "the paper"]
    measured = tables["network"].dropna(subset=["paper"])
    assert paper["mean"].tolist() == measured["paper"].tolist()
    assert (RESULTS / study / "headline.png").read_bytes().startswith(b"\x89PNG")


def test_a_definition_names_its_table_and_holds_none_of_its_rows() -> None:
    names = ("retention", "half_life", "unique", "composition", "depth")
    tables = {name: read_csv(RESULTS / "fig5" / f"{name}.csv") for name in names}
    for name, spec in figures(tables).items():
        assert json.dumps({"name": name}) in json.dumps(
            spec["layer"][0] | {"data": spec.get("data", spec["layer"][0].get("data"))}
        )
        assert len(json.dumps(spec)) < 12_000
        assert "datasets" not in spec
