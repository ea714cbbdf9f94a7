"""Three sentences that everybody will quote: their numbers must be those of the loops, and no more than those."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ouroloop.record.history import Written
from ouroloop.record.run import Run
from ouroloop.report.findings import headline, progress
from ouroloop.report.results import Loop, Results, interval


def loop(cell: str, seed: int, retention: list[float], status: str = "FINISHED", **last: float) -> Loop:
    """A loop with this retention at t = 0, 1, ..., and these metrics at every generation."""
    info = SimpleNamespace(run_name=f"{cell}-{seed}", status=status)
    tags = {"ouroloop.seed": str(seed)}
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


def test_the_interval_is_students() -> None:
    found = interval([0.1, 0.2, 0.3])
    # t(2 degrees of freedom, 97.5 %) = 4.3027, sd = 0.1: tables of any textbook
    assert found.low == pytest.approx(0.2 - 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(0.2 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert interval([0.4]) == (0.4, None, None, 1)


def test_a_study_says_most_and_least_with_intervals_and_seeds() -> None:
    first, second, third = headline(
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
    assert third.endswith(
        "3 of 6 loops ended with one text making up 99% or more, 3 of them with one that is not True."
    )


def test_one_seed_claims_no_interval() -> None:
    first, second, _ = headline(results(loop("full synthetic", 1, [1.0, 0.9, 0.6])))
    assert first == (
        "One loop (full synthetic), one seed, so no interval over seeds: "
        "after 2 generations 60.0% of D_0's diversity is left."
    )
    assert second == "No loop has lost half of it in 2 generations."


def test_what_was_not_measured_is_not_said() -> None:
    nothing = replace(loop("a", 1, [1.0]), history={})
    assert headline(results(nothing)) == ["No generation has been measured yet, so there is nothing to say."]
    measured = loop("a", 1, [1.0, 0.5])
    flat = replace(measured, history={k: v for k, v in measured.history.items() if k != "diversity_retention"})
    assert any("could not be computed" in sentence for sentence in headline(results(flat)))
    assert "nan" not in " ".join(headline(results(flat))).lower()


def test_progress_names_what_is_not_finished() -> None:
    done, failed = loop("a", 1, [1.0, 0.9]), loop("a", 2, [1.0, 0.9], status="FAILED")
    assert progress(results(done)) == ""
    assert progress(results(done, failed, failed)) == "2 failed, 1 finished"
