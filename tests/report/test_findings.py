"""The published numbers: by hand from histories whose crossings are known."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ouroloop.record.history import Written
from ouroloop.report.findings import findings_json
from ouroloop.report.folder import study_metrics
from ouroloop.report.results import Loop, Results
from ouroloop.report.tables import figure_tables
from tests.conftest import REPOSITORY
from tests.report.test_summary import loop, results

FALSE = "( not True )"


def with_history(one: Loop, **history: list[float | None]) -> Loop:
    """The loop with these metrics at t = 0, 1, ..."""
    more = {key: {t: v for t, v in enumerate(values) if v is not None} for key, values in history.items()}
    return Loop(one.run, one.cell, {**one.history, **more}, one.written, None)


def with_heads(one: Loop, *heads: tuple[float, str]) -> Loop:
    """The loop with this (share, text) as the most frequent, a False one, at t = 1, 2, ..."""
    written = {t: Written([(9, share, "False", 1, text)], {"1": 9}) for t, (share, text) in enumerate(heads, 1)}
    return Loop(one.run, one.cell, one.history, written, None)


def findings(*loops: Loop) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(findings_json(results(*loops)))
    return found


def test_every_key_is_explained() -> None:
    page = (REPOSITORY / "docs" / "studies.md").read_text(encoding="utf-8")
    found = json.loads((REPOSITORY / "experiments" / "results" / "fig5" / "findings.json").read_text(encoding="utf-8"))
    keys = {*found, *found["cells"][0]} - {"study", "cell"}
    assert len(keys) > 7
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_a_study_has_metrics_by_which_studies_compare() -> None:
    """What is kept is of the cells that ended last; a cell that did not halve has no half-life."""
    halved = [loop("full synthetic", seed, [1.0, 0.9, 0.4, 0.3]) for seed in (1, 2)]
    whole = [loop("incremental, λ = 0.5", seed, [1.0, 0.9, 0.9, 0.8]) for seed in (1, 2)]
    found = study_metrics(results(*halved, *whole, loop("short", 1, [1.0, 0.9])))
    assert found == {
        "kept_at_end/full synthetic": pytest.approx(0.3),
        "kept_at_end/incremental lambda-0.5": pytest.approx(0.8),
        "half_life/full synthetic": 2.0,
    }


def test_half_lives_and_what_is_left_have_seeds_and_intervals() -> None:
    found = findings(*(loop("λ = 1", seed, [1.0, 0.8, 0.6, *([0.4] * seed)][: 3 + seed]) for seed in (1, 2, 3)))
    (cell,) = found["cells"]
    assert cell["seeds"] == ["1", "2", "3"]
    assert cell["generation"] == 3  # what all of them reached
    assert cell["half_life"] == {
        "by_seed": {"1": 3, "2": 3, "3": 3},
        "lost_half": 3,
        "median": 3,
        "median_low": None,
        "median_high": None,
        "mean_up_to_horizon": {"horizon": 5, "mean": 3, "low": None, "high": None, "n": 3},
    }
    assert cell["retention"]["mean"] == 0.4


def test_the_slope_of_the_end_is_that_of_its_last_generations_alone() -> None:
    """A fall that stopped at t = 10 has no slope from t = 10 to 30; one that goes on by 0.01 a generation has that."""
    stopped = [1.0] + [0.5] * 30
    falling = [1.0 - 0.01 * t for t in range(31)]
    (cell,) = findings(loop("λ = 1", 1, stopped), loop("λ = 1", 2, falling))["cells"]
    slope = cell["retention_slope"]
    assert (slope["from"], slope["to"], slope["n"]) == (10, 30, 2)
    assert slope["by_seed"] == pytest.approx({"1": 0.0, "2": -0.01}, abs=1e-9)
    assert slope["mean"] == pytest.approx(-0.005)
    assert slope["low"] < slope["mean"] < slope["high"]
    (short,) = findings(loop("λ = 1", 1, falling[:21]))["cells"]
    assert short["retention_slope"] == {}, "its first would be D_0, which no model wrote"
    (enough,) = findings(loop("λ = 1", 1, falling[:22]))["cells"]
    assert enough["retention_slope"]["from"] == 1


def test_a_seed_that_never_halved_counts_up_to_the_horizon() -> None:
    (cell,) = findings(loop("λ = 0.1", 1, [1.0, 0.4]), loop("λ = 0.1", 2, [1.0, 0.9]))["cells"]
    assert cell["half_life"]["by_seed"] == {"1": 1, "2": None}
    assert cell["half_life"]["lost_half"] == 1
    assert cell["half_life"]["mean_up_to_horizon"]["n"] == 2
    assert cell["retention"]["n"] == 2


def test_the_lead_of_a_measure_in_generations() -> None:
    """Retention is a tenth below its t = 1 at t = 5. Coverage is so at t = 2, and surely, with all looks at once and
    the error at t = 1, at t = 3; the divergence a tenth above at t = 4; what never crossed is left out."""
    one = with_history(
        loop("c", 1, [1.0, 0.99, 0.98, 0.95, 0.91, 0.89]),
        coverage=[0.62, 0.5, 0.44, 0.38, 0.3, 0.2],
        coverage_stderr=[None, 0.01, 0.01, 0.01, 0.01, 0.01],
        kl_forward_nats=[1.0, 2.0, 2.1, 2.15, 2.3, 2.4],
        unique_fraction=[1.0] * 6,
    )
    (cell,) = findings(one)["cells"]
    leads = cell["lead_before_retention_fell_by_a_tenth"]
    assert {key: lead["mean"] for key, lead in leads.items()} == {"coverage": 2, "kl_forward_nats": 1}
    assert list(leads) == ["coverage", "kl_forward_nats"]  # the first to warn comes first
    assert [lead["says"] for lead in leads.values()] == ["simultaneous 95 % band", "point estimate"]
    (with_stopped,) = findings(one, loop("c", 2, [1.0, 0.99], "KILLED"))["cells"]  # which had no time to warn
    assert [lead["mean"] for lead in with_stopped["lead_before_retention_fell_by_a_tenth"].values()] == [2, 1]
    (kept,) = findings(with_history(loop("c", 1, [1.0, 0.95]), coverage=[0.6, 0.5]))["cells"]
    assert kept["lead_before_retention_fell_by_a_tenth"] == {}


def test_a_lead_that_a_seed_lacks_is_no_mean_and_one_without_errors_leaves_no_band() -> None:
    """Both retentions fall at t = 2, as does coverage, of which seed 2 has no errors; its divergence never rises."""
    one, two = (loop("c", seed, [1.0, 1.0, 0.5]) for seed in (1, 2))
    errors = {"coverage_stderr": [None, 0.01, 0.01]}
    (cell,) = findings(
        with_history(one, coverage=[1.0, 1.0, 0.5], kl_reverse_nats=[1.0, 1.0, 2.0], **errors),
        with_history(two, coverage=[1.0, 1.0, 0.5], kl_reverse_nats=[1.0, 1.0, 1.0]),
    )["cells"]
    leads = cell["lead_before_retention_fell_by_a_tenth"]
    assert leads["kl_reverse_nats"] == {"says": "point estimate", "by_seed": {"1": 0, "2": None}}
    assert (leads["coverage"]["says"], leads["coverage"]["mean"]) == ("point estimate", 0)


def test_the_text_that_was_left() -> None:
    """Since the last generation that wrote another one, or this one to less than 99 %."""
    one, other, third = (loop("c", seed, [1.0, 0.5, 0.0, 0.0, 0.0]) for seed in (1, 2, 3))
    slipping = with_heads(one, (1.0, FALSE), (0.98, FALSE), (0.9995, FALSE), (0.99, FALSE))
    wandering = with_heads(other, (0.5, FALSE), (1.0, "other"), (1.0, FALSE), (1.0, FALSE))
    open_ended = with_heads(third, (1.0, FALSE), (1.0, FALSE), (1.0, FALSE), (0.9, FALSE))
    (cell,) = findings(slipping, wandering, open_ended, loop("c", 4, [1.0, 0.5]))["cells"]
    left = {"since": 3, "verdict": "False", "depth": 1, "text": FALSE}
    assert cell["fixed_on_one_text"] == {"loops": 2, "on_one_that_is_not_true": 2, "by_seed": {"1": left, "2": left}}


def test_the_order_and_the_seeds_that_agree_with_it() -> None:
    kept = {"a": [0.5, 0.6, 0.2], "b": [0.4, 0.3, 0.3], "c": [0.1, 0.1, 0.1]}
    loops = [loop(cell, seed, [1.0, value]) for cell, values in kept.items() for seed, value in enumerate(values)]
    assert findings(*loops)["order"] == {
        "generation": 1,
        "most_retention_first": ["a", "b", "c"],
        "seeds": 3,
        "seeds_in_this_order": 2,
    }


def test_a_cell_that_ended_earlier_is_not_ordered_with_others() -> None:
    """Less is left of anything later, so b at t = 1 stands beside nothing."""
    order = findings(loop("a", 1, [1.0, 0.5, 0.1]), loop("b", 1, [1.0, 0.4]), loop("c", 1, [1.0, 0.6, 0.2]))["order"]
    assert (order["generation"], order["most_retention_first"]) == (2, ["c", "a"])


def test_no_interval_of_what_is_kept_is_above_all_that_was_kept() -> None:
    """By hand: mean 0.9533, half-width t(2) · sd / √3 = 4.303 · 0.04726 / 1.732 = 0.1174. On the scale of log-odds,
    3.017 ± 0.1174 / (0.9533 · 0.0467) = 3.017 ± 2.639, and so 0.593 to 0.997."""
    loops = [loop("a", seed, [1.0, value]) for seed, value in enumerate((0.9, 0.99, 0.97))]
    (cell,) = findings(*loops)["cells"]
    assert [cell["retention"][end] for end in ("low", "high")] == pytest.approx([0.593, 0.997], abs=0.001)
    table = figure_tables(results(*loops))["retention"]
    assert table[["interval_low", "interval_high"]].iloc[1].tolist() == pytest.approx([0.593, 0.997], abs=0.001)


def test_a_study_without_a_generation_has_no_findings() -> None:
    assert json.loads(findings_json(Results("study", None, [])))["cells"] == []


def test_the_same_loops_give_the_same_bytes() -> None:
    loops = [loop("λ = 1", seed, [1.0, 0.1 + 0.2]) for seed in (1, 2)]
    there = findings_json(results(*loops))
    assert "0.3," in there
    read_otherwise = [replace(one, history=dict(reversed(one.history.items()))) for one in loops]
    assert findings_json(results(*read_otherwise)) == there
    assert findings_json(results(*loops[::-1])) != there  # the order of the seeds is that of the loops
    assert pytest.approx(0.3) == json.loads(there)["cells"][0]["retention"]["mean"]


def test_what_is_kept_at_the_end_has_one_definition() -> None:
    """A loop that was stopped is in no mean, and n says so; one that a search ended is in all, and ends the cell."""
    whole = [loop("a", seed, [1.0, 0.9, 0.8]) for seed in (1, 2)]
    stopped, pruned = (loop("a", 3, [1.0, 0.3], status) for status in ("KILLED", "PRUNED"))
    (cell,), order = (found := findings(*whole, stopped))["cells"], found["order"]
    assert (cell["generation"], cell["retention"]["mean"], cell["retention"]["n"]) == (2, 0.8, 2)
    assert cell["retention"]["by_seed"] == {"1": 0.8, "2": 0.8, "3": None}
    assert order == {"generation": 2, "most_retention_first": ["a"], "seeds": 2, "seeds_in_this_order": 2}
    (cell,), order = (found := findings(*whole, pruned))["cells"], found["order"]
    assert (cell["generation"], cell["retention"]["mean"], cell["retention"]["n"]) == (1, 0.7, 3)
    assert order["generation"] == 1
    table = figure_tables(results(*whole, stopped))["retention"]
    assert table[["generation", "seeds", "mean"]].to_numpy().tolist() == [[0, 2, 1.0], [1, 2, 0.9], [2, 2, 0.8]]
    table = figure_tables(results(*whole, pruned))["retention"]
    assert table[["generation", "seeds", "mean"]].to_numpy().tolist() == [[0, 3, 1.0], [1, 3, pytest.approx(0.7)]]


def test_more_than_all_of_the_diversity_has_no_bound_above() -> None:
    """The most that two loops kept bounds no third one, as on text, where weak models write more diverse ones than D_0.

    On the scale of the logarithm: 1.4477 · exp(± 12.706 · 0.008 / 1.4477), where 0.008 is the standard error.
    """
    loops = [loop("a", 1, [1.0, 1.2, 1.4397]), loop("a", 2, [1.0, 1.3, 1.4557])]
    (cell,) = findings(*loops)["cells"]
    kept = cell["retention"]
    assert (kept["low"], kept["high"]) == (pytest.approx(1.3496, abs=1e-4), pytest.approx(1.5530, abs=1e-4))
    table = figure_tables(results(*loops))["retention"].iloc[-1]
    assert [table.interval_low, table.interval_high] == pytest.approx([kept["low"], kept["high"]], rel=1e-5)


def test_loops_that_go_on_are_all_counted_as_far_as_they_came() -> None:
    table = figure_tables(results(*(loop("a", n, [1.0, 0.9, 0.8][: n + 1], "RUNNING") for n in (1, 2))))["retention"]
    assert table[["generation", "seeds"]].to_numpy().tolist() == [[0, 2], [1, 2], [2, 1]]


def test_no_mean_time_of_loops_that_a_search_ended() -> None:
    """It ended them for what they kept, which is no censoring by chance."""
    kept = [1.0, 0.9, 0.6]
    (cell,) = findings(loop("a", 1, [*kept, 0.4]), loop("a", 2, kept, "PRUNED"))["cells"]
    assert cell["half_life"] == {"by_seed": {"1": 3, "2": None}}
    (cell,) = findings(loop("a", 1, [*kept, 0.4]), loop("a", 2, [*kept, 0.4], "PRUNED"))["cells"]
    assert cell["half_life"]["lost_half"] == 2
    (cell,) = findings(loop("a", 1, [*kept, 0.4]), loop("a", 2, kept, "KILLED"))["cells"]
    assert cell["half_life"]["mean_up_to_horizon"] == {"horizon": 3, "mean": 3, "low": None, "high": None, "n": 2}


def test_a_seed_counts_once_by_the_loop_that_came_furthest() -> None:
    short, long = loop("a", 1, [1.0, 0.9, 0.8]), loop("a", 1, [1.0, 0.9, 0.8, 0.7])
    other = loop("a", 2, [1.0, 0.9, 0.8])
    for loops in ((short, long, other), (long, short, other)):
        (cell,) = findings(*loops)["cells"]
        assert (cell["seeds"], cell["generation"], cell["retention"]["n"]) == (["1", "2"], 2, 2)
        tables = figure_tables(results(*loops))
        assert set(tables["retention"]["seeds"]) == {1, 2}
        assert tables["retention"]["mean"].tolist() == [1.0, 0.9, 0.8, 0.7]
        assert len(tables["half_life"]) == 2
