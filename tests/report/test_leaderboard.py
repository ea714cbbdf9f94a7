"""The board: ranks by what can be told apart, costs, what is kept, and what is missing or cannot be run."""

import json
import re
import resource
import shutil
from dataclasses import replace
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.leaderboard import _narrowed, _read
from ouroloop.presets import load_preset
from ouroloop.record.provenance import processor
from ouroloop.record.track import Store
from ouroloop.report.board import _in_markdown, show_board, write_board
from ouroloop.report.leaderboard import (
    KEEP_M1,
    Row,
    _baseline,
    _keeps,
    _score,
    board,
    not_chosen,
    record,
    told_apart,
    trained,
)
from ouroloop.report.methods import methods_tables
from ouroloop.report.outcomes import RESULTS, Outcome, file_of, read_filed
from ouroloop.report.results import read_results
from ouroloop.report.stages import find_cells, registered_name
from ouroloop.science.statistics import interval
from ouroloop.study.config import KNOWLEDGE, StudyConfig, knowledge
from tests.conftest import REPOSITORY, CommandLine, copy_store

LAST = 2


def row(name: str, coverage: dict[int, float], wanted: int | None = None, **others: float) -> Row:
    """Equal in all generations, but that 1 has a coverage of 0.5; whole, unless more seeds are wanted."""
    made = Row(name, "full_synthetic", "", "data only", wanted or len(coverage))
    values = {"diversity_retention": 1.0, "grammar_membership": 0.6, "unique_fraction": 1.0} | others
    for seed, end in coverage.items():
        curves = {"coverage": {1: 0.5, LAST: end}} | {k: {1: v, LAST: v} for k, v in values.items()}
        made.outcomes[seed] = Outcome("", curves, (), "", {})
    return made


def scored(*rows: Row) -> list[Row]:
    loop = LoopConfig.model_validate(
        {"num_generations": LAST, "data": {"num_examples": 10}, "model": {"kind": "empirical"}}
    )
    found = list(rows)
    _score(found, loop, found[0].method)
    return found


def test_an_interval_of_what_is_kept_stays_above_nothing_and_below_what_a_loop_kept() -> None:
    collapsed = row("collapsed", {1: 0.1, 2: 0.1, 3: 0.1})
    for seed, kept in ((1, 0.0), (2, 0.002), (3, 0.0)):
        collapsed.curves[seed]["diversity_retention"] = {1: 1.05, LAST: kept}
    (found, _) = scored(collapsed)
    last = found.scores["diversity_retention"].last
    assert last.low is not None
    assert last.high is not None
    assert 0 < last.low < last.mean < last.high < 1.05


def test_who_cannot_be_told_apart_shares_a_rank() -> None:
    """Paired: the seeds differ more than the methods do, and still one is above the other in each of them."""
    best, close, worst = (
        row("best", {1: 0.41, 2: 0.31, 3: 0.21}),
        row("close", {1: 0.40, 2: 0.32, 3: 0.20}),
        row("worst", {1: 0.31, 2: 0.20, 3: 0.11}),
    )
    rows = {one.method: one for one in scored(worst, close, best)}
    assert [rows[name].rank for name in ("best", "close", "worst")] == [1, 1, 4]
    assert rows[KEEP_M1].rank == 1, "above by about as much as the seeds differ: not told apart"
    assert [rows[name].beats for name in ("best", "close", "worst")] == [1, 1, 0]
    assert told_apart(best, worst, LAST) == pytest.approx(0.31 - 0.62 / 3)
    assert told_apart(worst, best, LAST) == -told_apart(best, worst, LAST)
    assert told_apart(best, close, LAST) == 0
    unpaired = interval([0.41, 0.31, 0.21]).low
    assert unpaired is not None
    assert unpaired < 0.31, "without pairing the intervals would overlap"


def require_no_contradiction(rows: list[Row]) -> None:
    """No two of different ranks are alike, and none is above one that beats it."""
    ranked = [one for one in rows if one.rank is not None]
    for one, other in product(ranked, ranked):
        assert one.rank == other.rank or told_apart(one, other, LAST) != 0
        assert not (one.rank < other.rank and told_apart(one, other, LAST) < 0)  # type: ignore[operator]
    for one in ranked:
        assert one.beats == sum(told_apart(one, other, LAST) > 0 for other in ranked)


def test_no_two_of_different_ranks_are_alike() -> None:
    rows = [
        row(f"m{i}", {1: 0.5 - 0.02 * i, 2: 0.5 - 0.021 * i + 0.015 * (i % 2), 3: 0.5 - 0.02 * i}) for i in range(9)
    ]
    require_no_contradiction(scored(*rows))


def test_who_varies_much_is_alike_to_ranks_that_are_told_apart_and_joins_them() -> None:
    """Its neighbour above is told apart from the best, and it is not."""
    best, close = row("best", {1: 0.41, 2: 0.40, 3: 0.42}), row("close", {1: 0.31, 2: 0.30, 3: 0.33})
    varied, worst = row("varied", {1: 0.38, 2: 0.20, 3: 0.21}), row("worst", {1: 0.00, 2: 0.01, 3: 0.01})
    assert told_apart(best, close, LAST) > 0
    assert told_apart(best, varied, LAST) == told_apart(close, varied, LAST) == 0
    rows = scored(best, close, varied, worst)
    assert [one.rank for one in (best, close, varied, worst)] == [1, 1, 1, 1], "even the best and the worst"
    assert best.beats == 2
    require_no_contradiction(rows)


@pytest.mark.parametrize("seed", range(20))
def test_ranks_contradict_no_comparison_whatever_the_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centers, spreads = rng.uniform(0.1, 0.4, 8), rng.exponential(0.02, 8)
    require_no_contradiction(
        scored(*(row(f"m{i}", dict(enumerate(rng.normal(centers[i], spreads[i], 3)))) for i in range(8)))
    )


def test_a_difference_that_is_the_same_in_every_seed_tells_apart_and_none_does_not() -> None:
    high, low, equal = row("high", {1: 0.75, 2: 0.5}), row("low", {1: 0.5, 2: 0.25}), row("equal", {1: 0.75, 2: 0.5})
    assert told_apart(high, low, LAST) == 0.25
    assert told_apart(high, equal, LAST) == 0


def test_one_seed_tells_nothing_apart() -> None:
    rows = scored(row("high", {1: 0.4}), row("low", {1: 0.1}))
    assert {one.rank for one in rows} == {1}


@pytest.mark.parametrize(
    ("high", "low", "lacking"),
    [
        # told apart from both, by the seeds that it shares with each
        ({1: 0.5, 2: 0.5, 3: 0.5}, {1: 0.30, 2: 0.302, 3: 0.55}, {1: 0.40, 2: 0.401}),
        # its mean is above that of the one that beats it seed by seed
        ({1: 0.50, 2: 0.40, 3: 0.10}, {1: 0.01, 2: 0.02, 3: 0.01}, {1: 0.48, 2: 0.3799}),
    ],
)
def test_who_lacks_a_seed_has_no_rank_yet_and_moves_none(
    high: dict[int, float], low: dict[int, float], lacking: dict[int, float]
) -> None:
    first, second, waits = row("first", high), row("second", low), row("waits", lacking, wanted=3)
    rows = scored(second, waits, first)
    assert waits.rank is None
    assert waits.scores["coverage"].last.num_seeds == 2, "its scores are shown"
    beats = {one.method: one.beats for one in rows}
    require_no_contradiction(rows)
    assert beats == {one.method: one.beats for one in scored(row("second", low), row("first", high))} | {"waits": 0}
    shown = text_of(rows)
    assert "2/3" in shown
    assert "Loops still missing from full_synthetic: 1 of 9\n" in shown, "one of waits, which has others"
    begun = text_of(scored(row("baseline", {1: 0.1}, wanted=2), row("other", {1: 0.2, 2: 0.3})))
    assert "Loops still missing from full_synthetic: 1 of 4\n" in begun, "M_1 kept is not run"


def test_who_failed_says_so_and_has_no_rank_and_the_board_is_complete(tmp_path: Path) -> None:
    """Two of three seeds alive are no mean of a method that may die."""
    base, mortal = row("base", {1: 0.2, 2: 0.21, 3: 0.2}), row("mortal", {1: 0.46, 2: 0.47}, wanted=3)
    mortal.failures[3] = Outcome("f3", {}, ("abc",), "x86", {}, has_failed=True)
    rows = scored(base, mortal)
    assert (mortal.rank, mortal.keeps, mortal.missing) == (None, None, 0)
    shown = text_of(rows)
    assert "Failed, and so without a rank: mortal (seeds 3)" in shown
    assert "Loops still missing" not in shown
    study = StudyConfig.model_validate({**STUDY, "seeds": [1, 2, 3]})
    content = json.loads(write_board(rows, study, tmp_path, "few")[0].read_text())
    assert content["is_complete"]
    assert {one["method"]: one["seeds_failed"] for one in content["rows"]} == {"base": [], "mortal": [3], KEEP_M1: []}
    assert [one["seed"] for one in content["loops"] if one.get("has_failed")] == [3]
    again = read_filed(tmp_path / "few.json")["f3"]
    assert (again.has_failed, again.curves, again.about["method"]) == (True, {}, "mortal")


def text_of(rows: list[Row]) -> str:
    console = Console(record=True, width=200)
    show_board(rows, console, StudyConfig.model_validate(STUDY))
    return console.export_text()


def test_each_column_of_the_board_shows_what_its_heading_says() -> None:
    """Two methods that differ by the same in both seeds, so without intervals; M_1 shares the baseline's rank."""
    base = row("base", {1: 0.5, 2: 0.5}, unique_fraction=0.9, num_drawn=10.0, train_seconds=4.0)
    dear = row("dear", {1: 0.1, 2: 0.1}, kl_forward_nats=2.0, num_drawn=30.0, train_seconds=8.0)
    lines = [re.split(r"\s{2,}", line.strip()) for line in text_of(scored(base, dear)).splitlines()]
    shown = {cells[1]: cells for cells in lines if len(cells) > 9}
    assert shown["seeds"] == [
        "method", "seeds", "knows", "keeps", "coverage", "retention", "in grammar", "distinct", "KL", "over", "drawn",
        "trained",
    ]  # fmt: skip
    assert shown["base"] == [
        "1", "base", "2", "data only", "yes", "0.500 (0.500)", "1.000", "0.600", "0.900", "–", "1", "1.0×", "1.0×"
    ]  # fmt: skip
    assert shown["dear"] == [
        "3", "dear", "2", "data only", "no", "0.100 (0.300)", "1.000", "0.600", "1.000", "2.000", "0", "3.0×", "2.0×"
    ]  # fmt: skip


def test_the_interval_of_a_share_stays_in_its_range() -> None:
    """Of three seeds near 1 it goes much further down than up."""
    rows = scored(row("base", {1: 0.9, 2: 0.99, 3: 0.975}))
    last = rows[0].scores["coverage"].last
    assert last.low is not None and last.high is not None  # noqa: PT018
    assert last.mean - last.low > 1 - last.mean, "what ± would leave"
    assert f"0.955 [{last.low:.3f}, {last.high:.3f}] (0.728)" in text_of(rows)
    assert "±" not in text_of(rows)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """It may be the only copy of other machines' loops; here the disk is full after 100 bytes."""
    study, rows = StudyConfig.model_validate(STUDY), scored(row("base", {1: 0.2, 2: 0.3}))
    [file, *others] = write_board(rows, study, tmp_path, "few")
    assert [one.suffix for one in others] == [".md", ".png", ".png"]
    assert write_board(rows, study, tmp_path, "few") == [], "nothing new"
    before, rows = file.read_bytes(), scored(row("base", {1: 0.2, 2: 0.31}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_board(rows, study, tmp_path, "few")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert set(tmp_path.iterdir()) == {file, *others}, "nothing half-done lies about"


def test_loops_of_the_file_that_have_no_row_stay_in_it(tmp_path: Path) -> None:
    """As loops of seeds that were not asked for: the file may be their only copy."""
    about = {"method": "base", "cycle": "full_synthetic", "seed": 3}
    other = Outcome("of seed 3", {"coverage": {1: 0.5, LAST: 0.4}}, ("abc",), "x86", about)
    write_board([row("base", {1: 0.2, 2: 0.3})], StudyConfig.model_validate(STUDY), tmp_path, "few", [other])
    assert read_filed(tmp_path / "few.json")["of seed 3"] == other
    assert len(json.loads((tmp_path / "few.json").read_text())["loops"]) == 3


def test_what_is_missing_of_a_curve_is_absent_and_not_averaged() -> None:
    made = row("one", {1: 0.4, 2: 0.4, 3: 0.4})
    del made.curves[2]["unique_fraction"]
    made.curves[1]["kl_forward_nats"] = {LAST: 3.0}  # type: ignore[index]
    found = scored(made)[0]
    assert "kl_forward_nats" not in found.scores
    assert "unique_fraction" not in found.scores
    assert found.scores["coverage"].area.mean == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("end", "others", "keeps"),
    [(0.46, {}, True), (0.44, {}, False), (0.5, {"diversity_retention": 0.94}, False)],
)
def test_what_it_takes_to_keep(end: float, others: dict[str, float], keeps: bool) -> None:
    one, baseline = row("one", {1: end, 2: end}, **others), row("base", {1: 0.1, 2: 0.1, 3: 0.1})
    assert _keeps(scored(baseline, one)[1], baseline, LAST) is keeps


@pytest.mark.parametrize(("end", "keeps"), [(0.581, True), (0.579, False)])  # M_1 writes 0.6: less 2 points
def test_membership_may_fall_by_two_points(end: float, keeps: bool) -> None:
    one, baseline = row("one", {1: 0.5, 2: 0.5}), row("base", {1: 0.5, 2: 0.5})
    for curves in one.curves.values():
        curves["grammar_membership"][LAST] = end  # type: ignore[index]
    assert _keeps(scored(baseline, one)[1], baseline, LAST) is keeps


def test_what_it_takes_to_keep_is_the_baselines_m_1_and_not_its_own() -> None:
    """An untrained model keeps what it has, which is nothing; and seeds differ in their M_1."""
    baseline, untrained = row("base", {1: 0.1, 2: 0.1}), row("untrained", {1: 0.001, 2: 0.001}, grammar_membership=0.0)
    for curves in untrained.curves.values():
        curves["coverage"][1] = 0.001  # type: ignore[index]
    scored(baseline, untrained)
    assert untrained.keeps is False
    baseline.curves[2]["coverage"][1] = 0.9  # type: ignore[index]
    by_first, by_second = row("one", {1: 0.46}), row("other", {2: 0.46})
    scored(baseline, by_first, by_second)
    assert (by_first.keeps, by_second.keeps) == (True, False)
    lacks_one = row("one", {1: 0.46}, wanted=2)
    scored(baseline, lacks_one)
    assert lacks_one.keeps is None, "it may not keep it with the other seed"
    elsewhere = row("third", {3: 0.46}, wanted=2)
    scored(baseline, elsewhere)
    assert elsewhere.keeps is None, "no baseline has its seed"


def test_what_it_takes_to_keep_is_the_m_1_of_the_same_processor() -> None:
    """The same configuration rounds to another M_1 there: the method's own, where it is the usual one."""
    baseline, moved = row("base", {1: 0.1, 2: 0.1}), row("moved", {1: 0.4, 2: 0.4})
    for seed, outcome in moved.outcomes.items():
        moved.outcomes[seed] = replace(outcome, processor="another")
        outcome.curves["coverage"][1] = 0.42  # type: ignore[index]
    scored(baseline, moved)
    assert moved.keeps is None, "its own M_1 may be of another kind"
    moved.has_usual_first = True
    scored(baseline, moved)
    assert moved.keeps is True, "0.9 of its M_1's, and 0.8 of the baseline's"


def test_whose_m_1_is_the_baselines_is_read_off_its_changes() -> None:
    config = load_preset("leaderboard", [], StudyConfig)
    filed = read_filed(file_of("leaderboard", REPOSITORY / RESULTS))
    rows = {(one.method, one.cycle): one for one in board(config, None, "leaderboard", filed)}
    other = {name for (name, cycle), one in rows.items() if cycle == "full_synthetic" and not one.has_usual_first}
    assert other == {
        KEEP_M1, "temperature 1", "verified and unique T1", "unique T1", "min-p T1", "min-p and unique T1",
        "drawn ancestors twice as long", "ensemble of 4", "T-matching",
    }  # fmt: skip


def test_the_baseline_is_what_changes_nothing_wherever_it_stands() -> None:
    study = StudyConfig.model_validate(
        {**STUDY, "methods": {"a": {"changes": {"curation": {"steps": ["unique"]}}}, "base": {}}}
    )
    assert _baseline(study) == "base"
    first, base = row("a", {1: 0.3}, num_drawn=30.0), row("base", {1: 0.4}, num_drawn=10.0)
    rows = [first, base]
    _score(rows, study.loop, "base")
    assert first.cost["num_drawn"] == 3 * base.cost["num_drawn"]
    assert rows[-1].method == KEEP_M1
    alone = [row("a", {1: 0.3}, num_drawn=30.0)]
    _score(alone, study.loop, "base")
    assert (alone[0].cost, alone[0].keeps, len(alone)) == ({}, None, 1), "its cycle has no baseline"


def test_the_best_that_the_other_cycle_lacks_are_named_once_the_first_is_complete() -> None:
    few = {**STUDY, "cycles": ["full_synthetic", "incremental"], "synthetic_proportions": [0.5], "seeds": [1, 2, 3]}
    methods = {name: {"cycles": ["full_synthetic"]} for name in ("b", "c", "d")}
    study = StudyConfig.model_validate({**few, "methods": {"base": {}, "a": {}, **methods}})
    ends = {"base": 0.4, "a": 0.35, "b": 0.3, "c": 0.2, "d": 0.1}
    rows = [row(name, {1: end, 2: end + 0.001, 3: end - 0.001}) for name, end in ends.items()]
    found = sorted(scored(*rows), key=lambda one: -one.scores["coverage"].last.mean)
    assert not_chosen(found, study, most=3) == ["b", "c"], "the baseline and M_1 are no choice, and `a` is run"
    assert not_chosen(found, study, most=1) == []
    del found[-1].outcomes[3]
    assert not_chosen(found, study, most=3) == [], "who is best is not known yet"
    found[-1].failures[3] = Outcome("", {}, (), "", {}, has_failed=True)
    assert not_chosen(found, study, most=3) == ["b", "c"], "nothing more will come"


def test_a_narrow_board_keeps_words_whole_and_a_cycle_that_was_not_begun_has_no_table() -> None:
    begun = scored(row("drawn ancestors", {1: 0.4, 2: 0.41}), row("baseline", {1: 0.1, 2: 0.11}))
    waiting = Row("baseline", "incremental-0.5", "", "data only", 3)
    console = Console(record=True, width=80)
    show_board([*begun, waiting], console, load_preset("leaderboard", [], StudyConfig))
    shown = console.export_text()
    assert "ancestors" in shown
    assert shown.count("t = 50") == 1
    assert "Loops still missing from incremental-0.5: 3 of 3, all those of baseline" in shown
    assert "Not run with any of these cycles" not in shown


def test_a_method_of_no_cycle_of_the_study_is_named() -> None:
    """Its loops, and so its row, are none."""
    study = load_preset("leaderboard", ["cycles=[incremental]"], StudyConfig)
    console = Console(record=True, width=200)
    show_board([Row("baseline", "incremental-0.5", "", "data only", 3)], console, study)
    (line,) = [one for one in console.export_text().splitlines() if "Not run with any of these cycles: " in one]
    left = line.partition(": ")[2].split(", ")
    assert left == [name for name, method in study.methods.items() if method.cycles is not None]
    assert "verified" in left


def test_costs_are_over_the_baselines_with_the_same_seeds() -> None:
    baseline = row("baseline", {1: 0.2, 2: 0.2})
    greedy = row("greedy", {2: 0.3}, wanted=2, num_drawn=25.0, train_seconds=3.0)
    for curves in baseline.curves.values():
        curves["train_seconds"] = {1: 1.0, LAST: 1.0}  # type: ignore[index]
    rows = {one.method: one for one in scored(baseline, greedy)}
    for name, drawn, seconds in (("greedy", 2.5, 3.0), ("baseline", 1.0, 1.0), (KEEP_M1, 0.5, 0.5)):
        of_training = dict.fromkeys(("train_seconds", "train_seconds_least", "train_seconds_most"), seconds)
        assert rows[name].cost == {"num_drawn": drawn, **of_training}
    slept = row("greedy", {1: 0.3, 2: 0.3}, train_seconds=3.0)
    slept.curves[1]["train_seconds"] = {1: 3.0, LAST: 2.0, LAST + 1: 1_000.0}  # type: ignore[index]
    rows = {one.method: one for one in scored(baseline, slept)}
    assert rows["greedy"].cost["train_seconds"] == pytest.approx((3 * 3 + 2 * 3) / 4), "by medians"
    assert trained(rows["greedy"].cost) == ("3.8×", "3.0 to 4.5×"), "the range over seeds"
    assert trained(rows["baseline"].cost) == ("1.0×", "")


METHODS: dict[str, object] = {
    "baseline": {},
    "verified": {"changes": {"curation": {"steps": ["verified"]}}},
    "weights": {"changes": {"curation": {"steps": ["weighted"]}}},
    "buffer": {"changes": {"curation": {"steps": [{"name": "original_buffer", "share": 0.1}]}}},
    "fresh": {"changes": {"curation": {"steps": ["unique", {"name": "fresh_buffer", "share": 0.1}]}}},
    "warm": {"changes": {"sampling": {"temperature": 1.0}}},
    "soft": {"changes": {"train": {"targets": "soft"}}},
    "accumulate": {"changes": {"cycle": {"kind": "balanced"}}},
}
CYCLES = {
    "some kept": ({"kind": "incremental", "synthetic_proportion": 0.5}, "D_0 kept"),
    "all kept": ({"kind": "expanding", "synthetic_proportion": 1.0}, "D_0 kept"),
    "none kept": ({"kind": "incremental", "synthetic_proportion": 1.0}, "data only"),
    "fresh": ({"kind": "fresh_mix", "synthetic_proportion": 0.5}, "fresh data"),
    "none fresh": ({"kind": "fresh_mix", "synthetic_proportion": 1.0}, "data only"),
    "both": ({"kind": "expanding", "synthetic_proportion": 0.5}, "fresh data"),
}
STUDY = {
    "cycles": ["full_synthetic"],
    "seeds": [1, 2],
    "loop": {
        "num_generations": 2,
        "data": {"num_examples": 40},
        "model": {"num_layers": 1, "num_heads": 1, "hidden_size": 8},
        "train": {"num_steps": 1, "batch_size": 1, "learning_rate": 0.1, "validate_every": 1},
    },
    "methods": METHODS,
}


def test_what_a_method_knows_is_read_off_what_it_declares() -> None:
    edited = {"edited": {"changes": {"curation": {"steps": ["edited"]}}}}
    study = StudyConfig.model_validate({**STUDY, "methods": METHODS | edited})
    cell = study.model_copy(update={"methods": {}}).loops()[0]
    known = {name: knowledge(loop, cell) for name in study.methods if (loop := study.applied(name, cell))}
    assert known == {
        "baseline": "data only", "verified": "oracle", "weights": "sampler", "buffer": "D_0 kept", "warm": "sampler",
        "soft": "previous model", "accumulate": "D_0 kept", "fresh": "fresh data", "edited": "D_0 kept",
    }  # fmt: skip
    assert set(known.values()) <= set(KNOWLEDGE)


def test_what_a_method_knows_of_another_cycle_is_what_that_mixes_in() -> None:
    methods = {name: {"changes": {"cycle": cycle}} for name, (cycle, _) in CYCLES.items()}
    study = StudyConfig.model_validate({**STUDY, "methods": methods})
    cell = study.plain_loops[0]
    known = {name: knowledge(loop, cell) for name in methods if (loop := study.applied(name, cell))}
    assert known == {name: knows for name, (_, knows) in CYCLES.items()}


def test_what_a_method_changes_of_lambda_is_known_too() -> None:
    half = {"cycles": ["incremental"], "synthetic_proportions": [0.5]}
    changes = {"changes": {"cycle": {"synthetic_proportion": 0.0}}}
    study = StudyConfig.model_validate({**STUDY, **half, "methods": {"baseline": {}, "none new": changes}})
    cell = study.plain_loops[0]
    known = [knowledge(loop, cell) for name in study.methods if (loop := study.applied(name, cell))]
    assert known == ["data only", "D_0 kept"]


@pytest.mark.parametrize("learner", ["network", "empirical"])
def test_the_committed_board_follows_from_its_loops(learner: str) -> None:
    name, _, study, _, kept = _read("leaderboard", learner == "empirical", [], [])
    assert kept == name
    file = file_of(name, REPOSITORY / RESULTS)
    content, rows = json.loads(file.read_text(encoding="utf-8")), board(study, None, name, read_filed(file))
    assert json.loads(json.dumps(record(rows))) == content["rows"]
    assert _in_markdown(rows, study, name) == file.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_the_board_runs_what_is_missing_and_shows_what_there_is(
    ouroloop: CommandLine, root: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tmp_path / "board.yaml"
    methods = {name: changes for name, changes in METHODS.items() if name in ("baseline", "verified", "soft")}
    preset.write_text(json.dumps(STUDY | {"methods": methods}))
    few = ("leaderboard", str(preset), "--learner=empirical", f"--folder={tmp_path}")
    wrong = ouroloop(*few, "--method=verifed")
    assert "no method 'verifed' (did you mean verified?); there are: baseline, verified, soft" in wrong.stderr
    assert wrong.returncode == 2
    alone = ouroloop(*few, "--seeds=[1]", "--method=soft")
    assert alone.returncode == 0, alone.stderr
    assert [run.tag("method") for run in Store.existing().find(level="loop")] == ["baseline"]
    first = ouroloop(*few, "--seeds=[1]")
    assert first.returncode == 0, first.stderr
    done = ouroloop(*few, "--show")
    assert "Loops still missing" in done.stdout
    assert "Not applicable: soft (needs a network)" in done.stdout.replace("\n", " ")
    content = json.loads((tmp_path / "board-ideal.json").read_text())
    assert not content["is_complete"]
    rows = {one["method"]: one for one in content["rows"]}
    assert rows["verified"]["seeds"] == [1]
    assert rows["verified"]["seeds_missing"] == 1
    assert rows[KEEP_M1]["keeps"] is None, "not before it has all seeds"
    assert rows["soft"]["not_applicable"] == "needs a network"
    assert (tmp_path / "board-ideal.png").stat().st_size > 1_000
    page = (tmp_path / "board-ideal.md").read_text()
    assert "| – | verified | 1/2 | oracle | – |" in page
    assert "Not applicable: soft (needs a network)" in page
    assert ouroloop(*few).returncode == 0
    content = json.loads((tmp_path / "board-ideal.json").read_text())
    assert content["is_complete"], [(one["method"], one["seeds"], one["seeds_missing"]) for one in content["rows"]]
    assert {one["method"]: one["keeps"] for one in content["rows"]}[KEEP_M1], "M_1 keeps what M_1 has"

    elsewhere = on_another_machine(monkeypatch, empty_store, tmp_path / "elsewhere")
    others = ouroloop(*few[:-1], "--loop.num_generations=1", "--seeds=[1]", cwd=tmp_path)
    assert "Not written: --folder says where." in others.stdout
    assert (others.returncode, (tmp_path / "experiments").exists()) == (0, False)
    assert elsewhere.exists()


@pytest.mark.heavy
def test_every_loop_of_a_method_is_called_by_it(ouroloop: CommandLine, root: Path, tmp_path: Path) -> None:
    wanted = {name: STUDY["methods"][name] for name in ("baseline", "soft", "verified")}  # type: ignore[index]
    study = StudyConfig.model_validate({**STUDY, "methods": wanted, "seeds": [1]})
    labels = [study.label(loop) for loop in study.loops()]
    assert labels == [f"full_synthetic-T0.8-{name}-s1" for name in wanted]
    assert [loop.label for loop in study.loops()] == [
        f"full_synthetic-T0.8{what}-s1" for what in ("", "-targets=soft", "-verified")
    ], "a lone one by what it does"
    assert registered_name(study.loops()[1], "soft targets") == "ouroloop-full_synthetic-1.00-soft-targets"

    (tmp_path / "board.yaml").write_text(json.dumps(FEW))
    few = (str(tmp_path / "board.yaml"), "--loop.model.kind=empirical", "--loop.train=null", "--seeds=[1]")
    assert ouroloop("sweep", *few).returncode == 0
    names = [f"full_synthetic-empirical-T0.8-{name}-s1" for name in ("baseline", "verified")]
    assert [one["loop"] for one in json.loads(ouroloop("status", "board", "--json").stdout)[0]["loops"]] == names
    results = read_results(Store.existing(), "board")
    assert [loop.name for loop in results.loops] == names
    assert list(results.cells) == ["full synthetic, baseline", "full synthetic, verified"]
    assert {cell.name for cell in find_cells(Store.existing(), "board")[0]} == {
        f"ouroloop-full_synthetic-1.00-{name}" for name in ("baseline", "verified")
    }


FEW = {**STUDY, "methods": {name: STUDY["methods"][name] for name in ("baseline", "verified")}}  # type: ignore[index]


def on_another_machine(monkeypatch: pytest.MonkeyPatch, store: Path, path: Path) -> Path:
    """A root with an empty store."""
    copy_store(store, path)
    monkeypatch.setenv("OUROLOOP_ROOT", str(path))
    return path


def test_each_temperature_of_a_study_has_a_board_of_its_own() -> None:
    """A row for each, with all its seeds: none takes another's place."""
    study = StudyConfig.model_validate({**FEW, "temperatures": [0.8, 1.0]})
    filed = {}
    for loop in study.loops():
        curves = {"coverage": dict.fromkeys((1, LAST), loop.sampling.temperature / 2 + loop.seed / 100)}
        filed[loop.fingerprint()] = Outcome(loop.fingerprint(), curves, (), "", {})
    rows = board(study, None, "few", filed)
    found = {(one.cycle, one.method): one.scores["coverage"].last.mean for one in rows}
    assert all(one.is_whole for one in rows)
    assert found == {
        (f"full_synthetic-T{name}", method): pytest.approx(temperature / 2 + 0.015)
        for name, temperature in (("0.8", 0.8), ("1", 1.0))
        for method in ("baseline", "verified", KEEP_M1)
    }


@pytest.mark.heavy
def test_a_loop_that_is_left_with_nothing_has_failed_here_and_in_another_clone(
    ouroloop: CommandLine, root: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a network writes after one step is in the grammar."""
    strict = {"changes": {"curation": {"steps": ["grammatical"], "max_drawn": 1}}}
    (tmp_path / "board.yaml").write_text(json.dumps({**STUDY, "methods": {"baseline": {}, "strict": strict}}))
    here = ("leaderboard", str(tmp_path / "board.yaml"), f"--folder={tmp_path}")
    assert ouroloop(*here).returncode == 1
    monkeypatch.setenv("OUROLOOP_ROOT", str(tmp_path / "here"))  # nothing is there
    shown = ouroloop(*here, "--show").stdout
    assert "Failed, and so without a rank: strict (seeds 1, 2)" in shown
    assert "Loops still missing" not in shown
    content = json.loads((tmp_path / "board.json").read_text())
    assert content["is_complete"]
    assert {one["method"]: (one["rank"], one["seeds_failed"]) for one in content["rows"]} == {
        "baseline": (1, []), KEEP_M1: (1, []), "strict": (None, [1, 2])
    }  # fmt: skip
    on_another_machine(monkeypatch, empty_store, tmp_path / "elsewhere")
    assert ouroloop(*here).returncode == 1, "what failed is tried again"
    assert {run.tag("method") for run in Store.existing().find(level="loop")} == {"strict"}


@pytest.mark.heavy
def test_what_the_committed_file_holds_is_shown_and_not_run_again(
    ouroloop: CommandLine, root: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "board.yaml").write_text(json.dumps(FEW))
    file, here = tmp_path / "board-ideal.json", ("leaderboard", str(tmp_path / "board.yaml"), "--learner=empirical")
    here = (*here, f"--folder={tmp_path}")
    assert ouroloop(*here, "--seeds=[1]").returncode == 0
    first = json.loads(file.read_text())
    assert [(one["method"], one["seed"]) for one in first["loops"]] == [("baseline", 1), ("verified", 1)]
    assert all(len(one["commits"]) == 1 and one["processor"] == processor() for one in first["loops"])
    assert [len(one["curves"]["coverage"]) for one in first["loops"]] == [LAST, LAST]

    elsewhere = on_another_machine(monkeypatch, empty_store, tmp_path / "elsewhere")
    shown = ouroloop(*here, "--show")
    assert f"* From the file, computed at {first['loops'][0]['commits'][0][:7]}" in shown.stdout
    assert "Written" not in shown.stdout
    assert json.loads(file.read_text()) == first, "whoever only shows it does not change it"

    done = ouroloop(*here)
    assert done.returncode == 0, done.stderr
    assert [run.tag("seed") for run in Store.existing().find(level="loop")] == ["2", "2"]
    content = json.loads(file.read_text())
    assert content["is_complete"]
    assert first["loops"][0] in content["loops"], "bit for bit"
    states = json.loads(ouroloop("status", "board-ideal", "--json").stdout)[0]["loops"]
    assert [one["state"] for one in states] == ["done", "done"], "what lies elsewhere does not wait"

    (tmp_path / RESULTS).mkdir(parents=True)
    shutil.copy(file, tmp_path / RESULTS)
    assert ouroloop("report", "board-ideal", cwd=tmp_path).returncode == 0
    page = methods_tables(read_results(Store.existing(), "board-ideal"))["board"]
    rows = {one["method"]: one for one in content["rows"]}
    for one in page.to_dict("records"):
        same = rows[one["method"]]
        assert (one["seeds"], one["rank"], one["beats"]) == (2, same["rank"], same["told_apart_from_worse"])
        found = one["coverage"], one["num_drawn"]
        assert found == (same["coverage"]["last"]["mean"], same["cost_over_baseline"]["num_drawn"])

    written = file.read_bytes()
    narrow = ouroloop(*here, "--seeds=[2]", "--show").stdout
    assert "Written" not in narrow
    assert file.read_bytes() == written, "whoever looks at a part leaves the whole"
    assert ouroloop(*here, "--seeds=[2]").returncode == 0
    assert file.read_bytes() == written, "and who runs a part too"
    (tmp_path / "board.yaml").write_text(json.dumps({**FEW, "methods": {"baseline": {}}}))
    assert "Written" not in ouroloop(*here, "--show").stdout
    assert file.read_bytes() == written, "also where the preset has changed"
    assert "2 loops that the preset no longer gives are no longer in it" in ouroloop(*here).stdout
    assert {one["method"] for one in json.loads(file.read_text())["loops"]} == {"baseline"}
    assert elsewhere.exists()


def test_a_board_of_some_methods_has_their_cycles_and_ranks_none_among_the_best() -> None:
    """Whoever asks for a method of one cycle does not wait for the baseline's loops in another."""
    both = {"changes": {"curation": {"steps": ["verified"]}}}
    one = {"changes": {"curation": {"steps": ["unique"]}}, "cycles": ["full_synthetic"]}
    methods = {"baseline": {}, "both": both, "one": one}
    whole = StudyConfig.model_validate({**FEW, "cycles": ["full_synthetic", "balanced"], "methods": methods})
    assert _narrowed(whole, ["one"]).cycles == [DataCycle.FULL_SYNTHETIC]
    assert list(_narrowed(whole, ["one"]).methods) == ["baseline", "one"]
    assert _narrowed(whole, ["one", "both"]).cycles == whole.cycles
    assert _narrowed(whole, []) is whole
    rows = scored(row("baseline", {1: 0.1, 2: 0.1}), row("one", {1: 0.2, 2: 0.25}))
    assert not_chosen(rows, whole) == ["one"]
    for is_whole in (True, False):
        show_board(rows, Console(file=(shown := StringIO()), width=200), whole, is_whole)
        assert ("Among the best" in shown.getvalue()) is is_whole


def test_a_file_that_is_no_board_is_one_line(ouroloop: CommandLine, root: Path, tmp_path: Path) -> None:
    (tmp_path / "leaderboard.json").write_text('{"loops": [{"seed": "x"}]}')
    done = ouroloop("leaderboard", f"--folder={tmp_path}", "--show")
    assert done.returncode == 2
    assert "is not a leaderboard's file" in done.stderr
    assert "delete it" in done.stderr


def test_seconds_of_another_processor_are_no_cost() -> None:
    baseline, other = row("baseline", {1: 0.2}, train_seconds=1.0), row("other", {1: 0.3}, train_seconds=3.0)
    for one, kind in ((baseline, "x86"), (other, "arm")):
        one.outcomes[1] = Outcome("", one.curves[1], ("abc",), kind, {"seed": 1})
    assert {one.method: one.cost for one in scored(baseline, other)}["other"] == {"num_drawn": 1.0}


def test_the_standard_task_is_a_study() -> None:
    from ouroloop.presets import load_preset

    study = load_preset("leaderboard", [], StudyConfig)
    assert next(iter(study.methods)) == "baseline"
    assert sum(method.cycles is None for method in study.methods.values()) == 12, "the baseline and eleven"
    assert study.loop.num_generations == 50
    assert len(study.loops()) == len({loop.fingerprint() for loop in study.loops()}) == 126
