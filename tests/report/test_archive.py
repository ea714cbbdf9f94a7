"""What is committed in experiments/results follows from its CSV files: figures by their data, not by their pixels."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from ouroloop.report import methods
from ouroloop.report.archive import main, read_csv, read_folder
from ouroloop.report.figures import drawings, figures, headline
from ouroloop.report.findings import findings_json
from ouroloop.report.render import png
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


@pytest.mark.parametrize(
    ("change", "is_beside"),
    [({}, True), ({"curation.steps": "[], ['unique']"}, False), ({"train.targets": "soft"}, False)],
)
def test_the_paper_stands_beside_what_learns_as_its_models_do(
    tmp_path: Path, change: dict[str, str], is_beside: bool
) -> None:
    shutil.copytree(RESULTS / "fig8-9", tmp_path / "fig8-9")
    path = tmp_path / "fig8-9" / "configuration.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | change), "utf-8")
    tables = figure_tables(read_folder(tmp_path / "fig8-9"))
    assert tables["retention"]["paper"].notna().any() == is_beside
    assert tables["half_life"]["paper"].notna().any() == is_beside


@pytest.mark.parametrize("study", STUDIES)
def test_intervals_keep_to_their_range(study: str) -> None:
    """Nor do they exceed what the cell ever kept, unless a seed ends above 1: then there is no bound above."""
    curves = read_csv(RESULTS / study / "retention.csv").groupby("cell")["highest"].max()
    for cell in json.loads((RESULTS / study / "findings.json").read_text(encoding="utf-8"))["cells"]:
        kept = cell["retention"]
        if kept.get("low") is not None:
            assert 0 <= kept["low"] <= kept["mean"] <= kept["high"]
            is_bounded = max(kept["by_seed"].values()) <= 1
            assert not is_bounded or kept["high"] <= max(1, curves[cell["cell"]])
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
    committed = RESULTS / f"leaderboard-{table}.csv"
    drawn = drawings({"retention": read_csv(committed)}) if table == "retention" else \
        methods.drawing({"depth_by_method": read_csv(committed)})  # fmt: skip
    assert [(tmp_path / "own.png").read_bytes()] == [png(one) for one in drawn.values()]


@pytest.mark.parametrize("study", ["fig5", "fig3-4", "fig3-4-t1", "fig5-t1"])
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


def _part(study: str, folder: Path, column: str, values: Sequence[str]) -> Path:
    """A folder as a machine leaves it that ran only the loops with these values."""
    shutil.copytree(RESULTS / study, folder, ignore=shutil.ignore_patterns("*.png", "findings.json"))
    lives = read_csv(folder / "half_life.csv")
    own = set(lives["loop"][lives[column].map(str).isin(values)])
    for path in folder.glob("*.csv"):
        rows = read_csv(path)
        write_csv(rows[rows["loop"].isin(own)] if "loop" in rows else rows[:0], path)  # what follows is written anew
    configuration = yaml.safe_load((folder / "configuration.yaml").read_text(encoding="utf-8"))
    key = {"proportion": "cycle.synthetic_proportion"}.get(column, column)
    (folder / "configuration.yaml").write_text(yaml.safe_dump(configuration | {key: ", ".join(values)}), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("study", "column", "values"),
    [
        ("fig8-9-ideal", "seed", [["2", "4"], ["1", "3", "5"]]),
        pytest.param("fig5-ideal", "proportion", [["0.5"], ["1.0", "0.1"], ["0.9", "0.25"]], marks=pytest.mark.heavy),
    ],
)
def test_parts_of_a_study_are_joined(tmp_path: Path, study: str, column: str, values: list[list[str]]) -> None:
    first, *others = (_part(study, tmp_path / f"{n}" / study, column, own) for n, own in enumerate(values))
    (first / "board.csv").write_text("method,knows\nbaseline,data only\n")  # of what ran there alone
    main([str(first), "--join", *map(str, others)])
    for path in (RESULTS / study).glob("*.*"):
        if path.suffix in (".csv", ".json"):  # another machine draws a pixel otherwise
            assert (first / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (first / "board.csv").exists()
    joined = yaml.safe_load((first / "configuration.yaml").read_text(encoding="utf-8"))
    assert joined == yaml.safe_load((RESULTS / study / "configuration.yaml").read_text(encoding="utf-8"))


def test_of_a_loop_in_two_parts_the_one_that_came_furthest_counts(tmp_path: Path) -> None:
    whole = _part("fig8-9-ideal", tmp_path / "fig8-9-ideal", "seed", ["1", "2", "3", "4", "5"])
    begun = _part("fig8-9-ideal", tmp_path / "begun", "seed", ["3"])
    for path in begun.glob("*.csv"):
        if "generation" in (rows := read_csv(path)) and path.stem != "loops":
            write_csv(rows[rows["generation"] < 4], path)
    main([str(begun), "--join", str(whole)])
    for path in (RESULTS / "fig8-9-ideal").glob("*.csv"):
        assert (begun / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train.num_steps": "900"}, "not parts of one study: train.num_steps is 450 and 900"),
        ({"cycle.kind": "incremental"}, "cycle.kind is full_synthetic and incremental: cell names have it only"),
    ],
)
def test_what_are_no_parts_of_one_study_is_said(
    tmp_path: Path, change: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = (_part("fig8-9", tmp_path / name, "seed", [name]) for name in "12")
    path = other / "configuration.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | change), "utf-8")
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        main([str(first), "--join", str(other)])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
