"""The page of a study that compares methods: its board, and depths below what a verifier sees."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

import ouroloop
from ouroloop.config.curation import Step
from ouroloop.record.history import Written
from ouroloop.record.track import Store
from ouroloop.report.folder import write_report
from ouroloop.report.leaderboard import KEEP_M1, board
from ouroloop.report.methods import METHODS, _share_at, curves, depth_shares, drawing, methods_tables, standings, table
from ouroloop.report.outcomes import Outcome
from ouroloop.report.results import read_results
from ouroloop.report.tables import frame
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.metrics import stage_of
from ouroloop.study.config import StudyConfig
from ouroloop.testbed.logic.verify import judge
from tests.conftest import CommandLine
from tests.report.test_leaderboard import row, scored
from tests.report.test_summary import loop as loop_of

SHORT_SIGHTED = {"name": "verified", "max_depth": 3}
STUDY = {
    "cycles": ["full_synthetic"],
    "seeds": [1, 2],
    "loop": {
        "num_generations": 2,
        "data": {"num_examples": 60},
        "model": {"kind": "empirical"},
        "stages": {"measure": "coverage"},
    },
    "methods": {
        "baseline": {},
        "verified": {"changes": {"curation": {"steps": ["verified"]}}},
        "to 3": {"changes": {"curation": {"steps": [SHORT_SIGHTED]}}},
        "trusting": {"changes": {"curation": {"steps": [SHORT_SIGHTED | {"unseen": "keep"}]}}},
    },
}


@pytest.fixture
def done(ouroloop: CommandLine, root: Path, tmp_path: Path) -> StudyConfig:
    (tmp_path / "few.yaml").write_text(json.dumps(STUDY))
    assert ouroloop("sweep", str(tmp_path / "few.yaml")).returncode == 0
    return StudyConfig.model_validate(STUDY)


@pytest.mark.heavy
def test_the_page_of_a_study_shows_its_board_and_what_a_short_sighted_verifier_does(
    done: StudyConfig, tmp_path: Path
) -> None:
    for run in Store.existing().find(level="loop", seed="2"):  # as an earlier version left them
        run.store.client.delete_tag(run.id, "ouroloop.method")
    results = read_results(Store.existing(), "few")
    assert {len(loops) for loops in results.cells.values()} == {2}
    tables = methods_tables(results)
    rows = {one.method: one for one in board(done, Store.existing(), "few", {})}
    assert list(tables["board"]["method"]) == list(rows)
    for one in tables["board"].to_dict("records"):
        score = rows[one["method"]].scores["coverage"].last
        assert (one["coverage"], one["coverage_low"], one["coverage_high"]) == score[:3]
        assert one["rank"] == rows[one["method"]].rank
    pd.testing.assert_frame_equal(ouroloop.load("few").board, tables["board"])

    shares = tables["depth_by_method"]
    assert list(dict.fromkeys(shares["method"])) == ["baseline", "to 3", "trusting"]
    assert set(shares["depth"]) == set("12345")
    assert list(shares["true"]) == pytest.approx([0.2] * len(shares)), "P is uniform over five depths"
    for method in ("baseline", "to 3"):
        loops = [loop for loop in results.loops if loop.cell.endswith(method)]
        for t in (0, 2):
            found = [[judge(text).depth for text in loop.texts(t) or ()] for loop in loops]
            deep = sum(depths.count(4) / 60 for depths in found) / 2
            at = shares[(shares["method"] == method) & (shares["depth"] == "4") & (shares["generation"] == t)]
            assert at["share"].item() == pytest.approx(deep)
            assert at["seeds"].item() == 2
    unseen = shares[(shares["method"] == "to 3") & shares["depth"].isin(["4", "5"]) & (shares["generation"] == 2)]
    assert sum(unseen["share"]) == 0, "what it does not see is dropped"

    page = write_report(results, tmp_path / "report").read_text()
    assert "Stages rest on coverage; those below healthy need two generations in a row." in page
    for loop in results.loops:
        over_m_1 = loop.history["coverage"][2] / loop.history["coverage"][1]
        assert loop.generations[2].tag("stage") == stage_of(over_m_1, done.loop.stages)
    places = [page.index(f'id="{name}"') for name in (*METHODS, "retention")]
    assert places == sorted(places)
    assert f"<td data-is='method'>{KEEP_M1}</td>" in page
    for name, kind in product(METHODS, ("csv", "png")):
        assert (tmp_path / "report" / f"{name}.{kind}").stat().st_size > 500


@pytest.mark.heavy
def test_a_page_without_a_step_that_its_study_has_says_why_there_is_no_board(root: Path, tmp_path: Path) -> None:
    class AnyText(CurationStep):
        name: Literal["any_text"] = "any_text"

        def keep(self, pool: Pool, given: Given) -> Pool:
            return pool

    methods = {"baseline": {}, "any": {"changes": {"curation": {"steps": ["any_text"]}}}}
    try:
        study = StudyConfig.model_validate(STUDY | {"seeds": [1], "methods": methods})
        results = ouroloop.sweep(study, name="own", show=False)
        assert "There is no board" not in write_report(results, tmp_path / "with").read_text()
    finally:
        Step.known.pop("any_text")
    page = write_report(read_results(Store.existing(), "own"), tmp_path / "without").read_text()
    assert "There is no board of its methods: its configuration cannot be read here." in page


@pytest.mark.heavy
def test_each_cycle_has_its_own_depths(ouroloop: CommandLine, root: Path, tmp_path: Path) -> None:
    methods = {"baseline": {}, "to 3": {"changes": {"curation": {"steps": [SHORT_SIGHTED]}}}}
    several = STUDY | {"cycles": ["full_synthetic", "balanced"], "seeds": [1], "methods": methods}
    (tmp_path / "several.yaml").write_text(json.dumps(several))
    assert ouroloop("sweep", str(tmp_path / "several.yaml")).returncode == 0
    shares = depth_shares(read_results(Store.existing(), "several"))
    names = [f"{cycle}, {method}" for method in methods for cycle in ("full synthetic", "balanced")]
    assert sorted(set(shares["method"])) == sorted(names)
    assert not shares.duplicated(["method", "depth", "generation"]).any()


def test_a_share_of_depth_is_one_of_all_texts_with_an_interval_below_1() -> None:
    """0.9, 0.99 and 0.97 of all, malformed ones among them; test_findings has the arithmetic of the interval."""
    tallies = [{"4": 90, "malformed": 10}, {"4": 99, "malformed": 1}, {"4": 97, "5": 1, "malformed": 2}]
    loops = [replace(loop_of("a", n, [1.0, 0.9]), written={1: Written([], own)}) for n, own in enumerate(tallies)]
    ((t, seeds, *own),) = _share_at(loops, "4")
    assert (t, seeds) == (1, 3)
    assert own == pytest.approx([0.953, 0.593, 0.997], abs=0.001)


def test_shares_of_depth_are_of_the_loops_that_reached_the_end_as_in_every_figure() -> None:
    ended, failed = loop_of("a", 1, [1.0, 0.9, 0.8]), loop_of("a", 2, [1.0, 0.9], "FAILED")
    loops = [
        replace(ended, written={t: Written([], {"4": 90, "malformed": 10}) for t in (1, 2)}),
        replace(failed, written={1: Written([], {"4": 10, "malformed": 90})}),
    ]
    assert [(t, seeds, mean) for t, seeds, mean, *_ in _share_at(loops, "4")] == [(1, 1, 0.9), (2, 1, 0.9)]


def test_the_table_of_the_board_has_the_last_score_and_the_area_and_says_of_how_many_seeds() -> None:
    """Coverage is 0.5 at t = 1, and 0.1 or 0.2 at t = 2: 0.15, and 0.325 on the way."""
    mortal = row("mortal", {1: 0.1, 2: 0.2}, wanted=4)
    mortal.failures[3] = Outcome("", {}, (), "", {}, has_failed=True)
    found = table(scored(row("base", {1: 0.4, 2: 0.4}), mortal)).set_index("method").loc["mortal"]
    assert found[["seeds", "wanted", "failed"]].tolist() == [2, 4, 1]
    assert found[["coverage", "coverage_area"]].tolist() == pytest.approx([0.15, 0.325])


def test_coverage_by_generation_is_the_mean_over_seeds_beside_that_of_m_1() -> None:
    """Coverage is 0.5 at t = 1; the methods of a cycle have a panel each there, and none in another cycle."""
    rows = scored(row("base", {1: 0.4, 2: 0.2}), row("short-lived", {1: 0.1, 2: 0.2}))
    found = curves(rows)
    assert found[["method", "generation", "seeds"]].to_numpy().tolist() == [
        [method, t, 2] for method in ("base", "short-lived") for t in (1, 2)
    ]
    assert found["coverage"].tolist() == pytest.approx([0.5, 0.3, 0.5, 0.15])
    assert found["first"].tolist() == pytest.approx([0.5] * 4)
    assert found["low"].isna().tolist() == [True, False, True, False], "no interval where no spread was seen"
    other = found[found["method"] == "base"].assign(cycle="incremental-0.5", method="elsewhere")
    both = frame(list(found), [*found.to_numpy().tolist(), *other.to_numpy().tolist()])
    svg = drawing({"coverage_by_method": both})["coverage_by_method"]
    assert [svg.count(f">{name}<") for name in ("base", "short-lived", "elsewhere", KEEP_M1)] == [1, 1, 1, 0]
    assert "incremental-0.5" in svg


def test_the_board_is_drawn_with_names_intervals_and_what_is_known() -> None:
    rows = scored(row("base", {1: 0.2, 2: 0.22}, num_drawn=10.0), row("<other>", {1: 0.3, 2: 0.35}, num_drawn=25.0))
    found = table(rows)
    svg = drawing({"board": found})["board"]
    assert "&lt;other&gt;" in svg
    assert "data only" in svg
    assert svg.count('stroke-dasharray="6,3"') >= 1, "M_1, kept"
    assert {"base", "<other>", KEEP_M1} == set(found["method"])
    both = frame(list(found), [*found.to_numpy().tolist(), *found.assign(cycle="incremental").to_numpy().tolist()])
    assert "incremental" in drawing({"board": both})["board"]
    both.loc[both["cycle"] == "incremental", ["coverage", "coverage_high", "num_drawn"]] = 0.1, 0.12, 0.5
    of_cycles = standings(both).to_dict()["vconcat"]
    for panel in (0, 1):
        domains = [json.dumps(_domains(of_cycle["hconcat"][panel])) for of_cycle in of_cycles]
        assert domains[0] == domains[1], "one axis for all cycles"
        assert domains[0] != "[]"


def _domains(part: Any) -> list[Any]:
    """Of every x axis in a chart, in its order."""
    below = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    own = [part["x"]["scale"]["domain"]] if isinstance(part, dict) and "scale" in part.get("x", {}) else []
    return own + [domain for one in below for domain in _domains(one)]


def test_a_study_without_methods_has_no_board(collapsing_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUROLOOP_ROOT", str(collapsing_root))
    results = read_results(Store.existing(), "collapsing")
    assert methods_tables(results) == {}
    assert depth_shares(results).empty
    assert drawing({}) == {}
