"""Three sentences that everybody will quote: their numbers must be those of the loops, and no more than those."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from ouroloop.config import LoopConfig
from ouroloop.record.history import Written
from ouroloop.record.run import Run
from ouroloop.report.findings import progress, summary
from ouroloop.report.results import Loop, Results


def loop(cell: str, seed: int, retention: list[float], status: str = "FINISHED", **last: float) -> Loop:
    """A loop with this retention at t = 0, 1, ..., and these metrics at every generation; `PRUNED` by a search."""
    info = SimpleNamespace(run_name=f"{cell}-{seed}", status="KILLED" if status == "PRUNED" else status)
    tags = {"ouroloop.seed": str(seed)} | ({"ouroloop.pruned": "yes"} if status == "PRUNED" else {})
    run = cast(Run, replace_entity(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags, params={}, metrics={}))))
    constant = {"correctness": 0.5, "error_rate": 0.0, "num_unique": 10.0} | last
    history = {key: dict.fromkeys(range(len(retention)), value) for key, value in constant.items()}
    verdict = "False" if constant["correctness"] == 0 else "True"
    only = Written([(9, 1.0, verdict, 1, "a text")], {"1": 9})
    written = dict.fromkeys(range(len(retention)), only) if constant["num_unique"] == 1 else {}
    return Loop(run, cell, history | {"diversity_retention": dict(enumerate(retention))}, written, None)


def replace_entity(entity: Any) -> Run:
    return Run(cast(Any, None), "id", entity)


def results(*loops: Loop) -> Results:
    return Results("study", None, list(loops))


def test_a_study_says_most_and_least_with_intervals_and_seeds() -> None:
    first, second, third = summary(
        results(
            *(loop("λ = 0.1", seed, [1.0, 0.9, 0.8 + seed / 100]) for seed in (1, 2, 3)),
            *(
                loop("λ = 1", seed, [1.0, 0.4 if seed == 1 else 0.6, 0.1], num_unique=1.0, correctness=0.0)
                for seed in (1, 2, 3)
            ),
        )
    )
    assert first == (
        "6 loops, 2 settings with 3 seeds each: after 2 generations 10.0% of D_0's diversity is left at λ = 1 "
        "(in all 3 seeds), and 82.0% at λ = 0.1 (95% interval 79.4% to 84.4%, n = 3 seeds)."
    )
    assert second == (
        "Half of it was gone soonest, at generation 1 to 2 at λ = 1, in all 3 seeds (median 2); no loop lost half at "
        "λ = 0.1."
    )
    assert third == (
        "The share of True texts at λ = 1 is 0.0% at generation 2, as at 1 (in all 3 seeds), with 0.0% malformed; "
        "3 of 6 loops ended with one text making up 99% or more, 3 of them with one that is not True."
    )


def test_one_seed_claims_no_interval() -> None:
    first, second, _ = summary(results(loop("full synthetic", 1, [1.0, 0.9, 0.6])))
    assert first == (
        "One loop (full synthetic), one seed, so no interval over seeds: "
        "after 2 generations 60.0% of D_0's diversity is left."
    )
    assert second == "No loop has lost half of it in 2 generations."


def test_what_was_not_measured_is_not_said() -> None:
    nothing = replace(loop("a", 1, [1.0]), history={})
    assert summary(results(nothing)) == ["No generation has been measured yet, so there is nothing to say."]
    measured = loop("a", 1, [1.0, 0.5])
    flat = replace(measured, history={k: v for k, v in measured.history.items() if k != "diversity_retention"})
    assert any("could not be computed" in sentence for sentence in summary(results(flat)))
    assert "nan" not in " ".join(summary(results(flat))).lower()


def test_progress_names_what_is_not_finished() -> None:
    done, failed = loop("a", 1, [1.0, 0.9]), loop("a", 2, [1.0, 0.9], status="FAILED")
    assert progress(results(done)) == ""
    assert progress(results(done, failed, failed)) == "2 failed, 1 finished"


def test_both_ends_are_of_the_same_loops_and_say_of_how_many() -> None:
    failed = loop("λ = 1", 1, [1.0, 0.1], "FAILED", correctness=0.1)
    first, _, third = summary(results(failed, *(loop("λ = 1", n, [1.0, 0.9, 0.9], correctness=0.9) for n in (2, 3))))
    assert first.endswith("after 2 generations 90.0% of D_0's diversity is left (in 2 of 3 seeds).")
    assert third == "The share of True texts is 90.0% at generation 2, as at 1 (in 2 of 3 seeds), with 0.0% malformed."
    rising = loop("λ = 1", 3, [1.0, 0.9, 0.6])
    rising = replace(
        rising, history={**rising.history, "correctness": {1: 0.5, 2: 0.7}, "error_rate": {1: 0.0, 2: 0.3}}
    )
    first, _, third = summary(results(failed, loop("λ = 1", 2, [1.0, 0.9, 0.9], correctness=0.9), rising))
    assert "is left (95% interval " in first
    assert first.endswith(", n = 2 of 3 seeds).")
    assert third == (
        "The share of True texts went from 70.0% at generation 1 to 80.0% at 2 (70.0% to 90.0% among 2 of 3 seeds), "
        "with 15.0% malformed."
    )


def test_a_mean_of_truth_says_what_it_is_of() -> None:
    """66.7 % is where none of these loops is."""
    ended = [loop("λ = 1", seed, [1.0, 0.4], correctness=true) for seed, true in enumerate((1.0, 1.0, 0.0))]
    assert "is 66.7% at generation 1 (0.0% to 100.0% among 3 seeds)" in summary(results(*ended))[2]


def test_where_nothing_is_true_it_says_what_its_testbed_names_first() -> None:
    data = {"kind": "text", "path": "corpus.txt", "num_examples": 10}
    config = LoopConfig.model_validate({"num_generations": 2, "data": data, "model": {"kind": "empirical"}})
    courses = [
        {"heldout_t1_nats_per_token": {1: 3.0, 2: 4.0}, "distinct_3": {1: 0.9, 2: 0.2}},
        {"heldout_t1_nats_per_token": {1: 3.5, 2: 4.5}, "distinct_3": {1: 0.7, 2: 0.4}},
    ]
    loops = [loop("a", seed, [1.0, 0.9, 0.8]) for seed in (1, 2)]
    on_text = [
        replace(one, history={**one.history, **own}, config=config) for one, own in zip(loops, courses, strict=True)
    ]
    assert summary(results(*on_text))[2] == (
        "Held-out cross-entropy went from 3.250 to 4.250 nats per token (4.000 to 4.500 among 2 seeds) and "
        "distinct-3 went from 80.0% to 30.0% (20.0% to 40.0% among 2 seeds), from generation 1 to 2."
    )


def test_cells_are_compared_where_the_last_of_them_end() -> None:
    """A search ended the third seed at 0.5, for it was low: the others say nothing of λ = 0.5 at t = 3."""
    low = loop("λ = 0.5", 3, [1.0, 0.3], "PRUNED")
    high = [loop("λ = 0.5", seed, [1.0, 0.99, 0.99, 0.99]) for seed in (1, 2)]
    first, second, _ = summary(results(loop("λ = 0", 1, [1.0, 0.98, 0.97, 0.96]), *high, low))
    assert first == (
        "4 loops, 2 settings with 1 to 3 seeds each: after 3 generations 96.0% of D_0's diversity is left at λ = 0; "
        "λ = 0.5 has not come so far."
    )
    assert second == (
        "Half of it was gone soonest, at generation 1 at λ = 0.5, in 1 of 3 seeds; no loop lost half at λ = 0."
    )


def test_the_soonest_does_not_depend_on_how_far_a_cell_came() -> None:
    """One of three halved at t = 4, where they are; two of three at 3, whose last went on to 9."""
    begun = [loop("a", seed, [1.0, 1.0, 1.0, 1.0, kept], "RUNNING") for seed, kept in enumerate((0.4, 0.9, 0.9))]
    ended = [loop("b", seed, [1.0, 1.0, 1.0, *[kept] * 7]) for seed, kept in enumerate((0.4, 0.4, 0.9))]
    second = summary(results(*begun, *ended))[1]
    assert second == "Half of it was gone soonest, at generation 3 at b, in 2 of 3 seeds (median 3)."


def test_without_a_median_the_soonest_is_where_the_first_loop_halved() -> None:
    """Two of five at t = 2 and 5, against one of three at t = 3."""
    wide = [loop("a", seed, [1.0] * t + [0.4] * (6 - t)) for seed, t in enumerate((2, 5, 6, 6, 6))]
    narrow = [loop("b", seed, [1.0] * t + [0.4] * (6 - t)) for seed, t in enumerate((3, 6, 6))]
    second = summary(results(*wide, *narrow))[1]
    assert second == "Half of it was gone soonest, at generation 2 to 5 at a, in 2 of 5 seeds."


def test_cells_that_halve_at_the_same_time_are_both_named() -> None:
    halved = [loop(cell, seed, [1.0, 0.8, 0.4]) for cell in "ab" for seed in (1, 2)]
    second = summary(results(*halved, loop("c", 1, [1.0, 0.9, 0.8])))[1]
    assert second == (
        "Half of it was gone soonest, at generation 2 at a and b, in 4 of 4 loops (median 2); no loop lost half at c."
    )


def test_names_with_commas_are_kept_apart_by_more() -> None:
    cells = {"balanced, T = 1": 0.9, "expanding, T = 1": 0.9, "full, T = 1": 0.1}
    second = summary(results(*(loop(cell, 1, [1.0, kept]) for cell, kept in cells.items())))[1]
    assert second.endswith("at full, T = 1; no loop lost half at balanced, T = 1; expanding, T = 1.")


def test_a_loop_that_a_search_ended_was_not_killed() -> None:
    loops = loop("a", 1, [1.0, 0.9]), loop("a", 2, [1.0, 0.9], "PRUNED"), loop("a", 3, [1.0, 0.9], "KILLED")
    assert progress(results(*loops)) == "1 ended early, 1 finished, 1 killed"
