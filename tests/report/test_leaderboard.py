"""The board: ranks by what can be told apart, costs, what is kept, and what is missing or cannot be run."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from ouroloop.config import LoopConfig
from ouroloop.presets import load_preset
from ouroloop.record.provenance import processor
from ouroloop.record.track import Store
from ouroloop.report.board import show_board
from ouroloop.report.leaderboard import KEEP_M1, Row, _keeps, _rank, _score, board, not_chosen, record, told_apart
from ouroloop.report.outcomes import Outcome
from ouroloop.report.results import read_results
from ouroloop.report.stages import find_cells, registered_name
from ouroloop.science.statistics import interval
from ouroloop.study.config import KNOWLEDGE, StudyConfig, knowledge
from tests.conftest import CommandLine, copy_store

LAST = 2


def row(name: str, coverage: dict[int, float], **others: float) -> Row:
    """Equal in all generations, but that 1 has a coverage of 0.5."""
    made = Row(name, "full_synthetic", "", "data only", 3)
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
    _score(found, loop)
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


def test_no_two_of_different_ranks_are_alike() -> None:
    rows = [
        row(f"m{i}", {1: 0.5 - 0.02 * i, 2: 0.5 - 0.021 * i + 0.015 * (i % 2), 3: 0.5 - 0.02 * i}) for i in range(9)
    ]
    for one in rows:
        one.scores = {}
    scored(*rows)
    for one in rows:
        for other in rows:
            assert one.rank == other.rank or told_apart(one, other, LAST) != 0


def test_one_seed_tells_nothing_apart() -> None:
    high, low = row("high", {1: 0.4}), row("low", {1: 0.1})
    high.wanted = low.wanted = 1
    rows = scored(high, low)
    assert {one.rank for one in rows} == {1}


def test_one_seed_of_several_has_no_rank_yet_and_joins_no_ranks() -> None:
    """It is alike to the best and to the worst, who are not."""
    high, low, alone = row("high", {1: 0.4, 2: 0.39}), row("low", {1: 0.1, 2: 0.11}), row("alone", {1: 0.3})
    scored(low, alone, high)
    assert (high.rank, alone.rank, low.rank) == (2, None, 3), "1 is M_1"
    assert alone.scores["coverage"].last.mean == 0.3


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
    assert _keeps(scored(row("one", {1: end, 2: end}, **others))[0], LAST) is keeps


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


def test_a_narrow_board_keeps_words_whole_and_a_cycle_that_was_not_begun_has_no_table() -> None:
    begun = scored(row("drawn ancestors", {1: 0.4, 2: 0.41}), row("baseline", {1: 0.1, 2: 0.11}))
    waiting = Row("baseline", "incremental-0.5", "", "data only", 3)
    console = Console(record=True, width=80)
    show_board([*begun, waiting], console, load_preset("leaderboard", [], StudyConfig))
    shown = console.export_text()
    assert "ancestors" in shown
    assert shown.count("t = 50") == 1
    assert "Seeds still missing: baseline (3 of 3)" in shown


def test_costs_are_over_the_baselines_with_the_same_seeds() -> None:
    baseline, greedy = row("baseline", {1: 0.2, 2: 0.2}), row("greedy", {2: 0.3}, num_drawn=25.0, train_seconds=3.0)
    for curves in baseline.curves.values():
        curves["train_seconds"] = {1: 1.0, LAST: 1.0}  # type: ignore[index]
    rows = {one.method: one for one in scored(baseline, greedy)}
    assert rows["greedy"].cost == {"num_drawn": 2.5, "train_seconds": 3.0}
    assert rows["baseline"].cost == {"num_drawn": 1.0, "train_seconds": 1.0}
    assert rows[KEEP_M1].cost == {"num_drawn": 0.5, "train_seconds": 0.5}
    _rank([], LAST)


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
    cell = study.cells[0]
    known = {name: knowledge(loop, cell) for name in methods if (loop := study.applied(name, cell))}
    assert known == {name: knows for name, (_, knows) in CYCLES.items()}


def test_what_a_method_changes_of_lambda_is_known_too() -> None:
    half = {"cycles": ["incremental"], "synthetic_proportions": [0.5]}
    changes = {"changes": {"cycle": {"synthetic_proportion": 0.0}}}
    study = StudyConfig.model_validate({**STUDY, **half, "methods": {"baseline": {}, "none new": changes}})
    cell = study.cells[0]
    known = [knowledge(loop, cell) for name in study.methods if (loop := study.applied(name, cell))]
    assert known == ["data only", "D_0 kept"]


@pytest.mark.heavy
def test_the_board_runs_what_is_missing_and_shows_what_there_is(
    ouroloop: CommandLine, root: Path, tmp_path: Path
) -> None:
    preset = tmp_path / "board.yaml"
    methods = {name: changes for name, changes in METHODS.items() if name in ("baseline", "verified", "soft")}
    preset.write_text(json.dumps(STUDY | {"methods": methods}))
    few = ("leaderboard", str(preset), "--learner=empirical", f"--folder={tmp_path}")
    first = ouroloop(*few, "--seeds=[1]")
    assert first.returncode == 0, first.stderr
    done = ouroloop(*few, "--show")
    assert "Seeds still missing" in done.stdout
    assert "Not applicable: soft (needs a network)" in done.stdout.replace("\n", " ")
    content = json.loads((tmp_path / "board-ideal.json").read_text())
    assert not content["is_complete"]
    rows = {one["method"]: one for one in content["rows"]}
    assert rows["verified"]["seeds"] == [1]
    assert rows["verified"]["seeds_missing"] == 1
    assert rows[KEEP_M1]["keeps"], "M_1 keeps what M_1 has"
    assert rows["soft"]["not_applicable"] == "needs a network"
    assert (tmp_path / "board-ideal.png").stat().st_size > 1_000
    assert ouroloop(*few).returncode == 0
    content = json.loads((tmp_path / "board-ideal.json").read_text())
    assert content["is_complete"], [(one["method"], one["seeds"], one["seeds_missing"]) for one in content["rows"]]


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


@pytest.mark.heavy
def test_what_the_committed_file_holds_is_shown_and_not_run_again(
    ouroloop: CommandLine, root: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "board.yaml").write_text(json.dumps(FEW))
    file, few = tmp_path / "board-ideal.json", ("leaderboard", str(tmp_path / "board.yaml"), "--learner=empirical")
    here = (*few, f"--folder={tmp_path}")
    assert ouroloop(*here, "--seeds=[1]").returncode == 0
    first = json.loads(file.read_text())
    assert [(one["method"], one["seed"]) for one in first["loops"]] == [("baseline", 1), ("verified", 1)]
    assert all(len(one["commits"]) == 1 and one["processor"] == processor() for one in first["loops"])
    assert [len(one["curves"]["coverage"]) for one in first["loops"]] == [LAST, LAST]

    elsewhere = on_another_machine(monkeypatch, empty_store, tmp_path / "elsewhere")
    shown = ouroloop(*here, "--seeds=[1]", "--show")
    assert "* From the record: baseline (seeds 1 of 1, " in shown.stdout
    again = json.loads(file.read_text())
    assert again["loops"] == first["loops"], "whoever only shows it does not change it"
    known = {one["method"]: one for one in first["rows"]}
    for one in again["rows"]:
        assert one["seeds_of_the_file"] == ([] if one["method"] == KEEP_M1 else [1])
        assert one | {"seeds_of_the_file": []} == known[one["method"]], "scores, ranks and costs are the same"

    done = ouroloop(*here)
    assert done.returncode == 0, done.stderr
    assert [run.tag("seed") for run in Store.existing().find(level="loop")] == ["2", "2"]
    content = json.loads(file.read_text())
    assert content["is_complete"]
    assert {one["method"]: one["seeds_of_the_file"] for one in content["rows"]}["baseline"] == [1]
    assert first["loops"][0] in content["loops"], "bit for bit"
    states = json.loads(ouroloop("status", "board-ideal", "--json").stdout)[0]["loops"]
    assert [one["state"] for one in states] == ["done", "done"], "what lies elsewhere does not wait"

    ouroloop(*here, "--seeds=[2]", "--show")
    assert len(json.loads(file.read_text())["loops"]) == 4, "what another call left out is still there"
    (tmp_path / "board.yaml").write_text(json.dumps({**FEW, "methods": {"baseline": {}}}))
    ouroloop(*here, "--show")
    assert {one["method"] for one in json.loads(file.read_text())["loops"]} == {"baseline"}
    assert elsewhere.exists()


def test_a_file_that_is_no_board_is_one_line(ouroloop: CommandLine, root: Path, tmp_path: Path) -> None:
    (tmp_path / "leaderboard.json").write_text('{"loops": [{"seed": "x"}]}')
    done = ouroloop("leaderboard", f"--folder={tmp_path}", "--show")
    assert done.returncode == 2
    assert "is no file of a leaderboard" in done.stderr
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
    assert sum(method.cycles is None for method in study.methods.values()) == 7, "the baseline and six"
    assert study.loop.num_generations == 50
    assert len(study.loops()) == len({loop.fingerprint() for loop in study.loops()})
    assert record([]) == []
    assert board.__doc__
