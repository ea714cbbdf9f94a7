"""Two models side by side, against log-probabilities computed one text at a time."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ouroloop.config import ConfigError, LoopConfig, ModelConfig, SamplingConfig
from ouroloop.learner.network.model import build_model, save_model
from ouroloop.loop.loop import run_loop
from ouroloop.record.track import Store
from ouroloop.report.compare import Comparison, compare, print_comparison
from ouroloop.report.models import find_model
from ouroloop.testbed.logic.testbed import TOKENIZER, LogicTestbed
from ouroloop.testbed.text.testbed import TextTestbed
from tests.conftest import CommandLine
from tests.learner.network.test_sampling import log_probability
from tests.report.test_models import NAME, folder_of, rows

BEFORE, AFTER = f"models:/{NAME}@healthy", f"models:/{NAME}@collapsed"


@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_numbers_are_the_models_own(ouroloop: CommandLine, temperature: float) -> None:
    done = ouroloop("compare", BEFORE, AFTER, f"--temperature={temperature}", "--json", "-n", "7")
    (record,) = json.loads(done.stdout)
    before, after = find_model(BEFORE), find_model(AFTER)
    assert before.generation is not None
    loop = before.generation.store.get(before.generation.parent_id or "")
    texts = loop.read_dataset("original_data.tsv.gz").texts
    log_p = np.array([[log_probability(m.fitted.model, x, temperature) for x in texts] for m in (before, after)])
    change = log_p[1] - log_p[0]
    assert (record["before"], record["after"], record["temperature"]) == (BEFORE, AFTER, temperature)
    assert record["expressions_from"] == f"D_0 of {loop.entity.info.run_name}"
    summary = record["summary"]
    assert summary["num_expressions"] == len(texts) == 40
    assert [summary["mean_log_p_before"], summary["mean_log_p_after"]] == pytest.approx(log_p.mean(axis=1), abs=1e-4)
    assert summary["share_fell_10x"] == np.mean(np.exp(change) < 0.1)
    assert summary["share_rose_10x"] == np.mean(np.exp(change) > 10)
    assert summary["mass_after"] == pytest.approx(np.exp(log_p[1]).sum(), rel=1e-3)
    assert sum(row["num_expressions"] for row in record["by_depth"]) == 40
    for row in record["by_depth"]:
        of_depth = [i for i, text in enumerate(texts) if (text.count("(") > 1) == (row["depth"] == 2)]
        assert row["mean_change"] == pytest.approx(change[of_depth].mean(), abs=1e-4)
    assert len(record["fell_most"]) == 7
    for row, i in zip(record["fell_most"], np.argsort(change)[:7], strict=True):
        assert row["change"] == pytest.approx(change[i], abs=1e-4)
        assert row["change"] == pytest.approx(row["log_p_after"] - row["log_p_before"])
        assert (row["verdict"], row["expression"] in texts) == ("True", True)


@pytest.mark.heavy
@pytest.mark.usefixtures("collapsing")
def test_a_study_compares_each_cells_first_stage_with_its_last(ouroloop: CommandLine) -> None:
    done = ouroloop("compare", "collapsing", "--json")
    assert done.returncode == 0
    records = json.loads(done.stdout)
    assert [record["before"].partition(" ")[0] for record in records] == [
        "ouroloop-incremental-0.50-T0.1@healthy",
        "ouroloop-incremental-1.00-T0.1@healthy",
    ]
    assert all("@collapsed (M_" in record["after"] for record in records)
    (by_name,) = json.loads(ouroloop("compare", BEFORE, AFTER, "--json").stdout)
    assert by_name["summary"] == records[0]["summary"]

    header, *lines = rows(ouroloop("compare", "collapsing", "-n", "3").stdout)
    assert header[:4] == ["before", "after", "verdict", "depth"]
    assert len({line[0] for line in lines if line != header}) == 2


@pytest.mark.usefixtures("collapsing")
def test_a_model_has_lost_nothing_to_itself() -> None:
    model = find_model(BEFORE)
    comparison = compare(model, model)
    assert (comparison.change == 0).all()
    assert comparison.fell_most(5) == []
    summary = comparison.summary()
    assert summary["share_fell_10x"] == summary["share_rose_10x"] == summary["mean_change"] == 0


def test_a_model_that_cuts_unlikely_tokens_is_found_with_its_cut_and_compared_without(tmp_path: Path) -> None:
    """Its S_t has the cut, and so have the texts that it writes; a text that it would not write has a probability."""
    model = build_model(ModelConfig(num_layers=1, num_heads=1, hidden_size=8, context_length=32), TOKENIZER, seed=1)
    save_model(model, TOKENIZER, SamplingConfig(temperature=0.5, min_p=0.9, max_new_tokens=31), 32, tmp_path)
    found = find_model(str(tmp_path))
    assert (found.fitted.config.temperature, found.fitted.config.min_p) == (0.5, 0.9)
    ended = [text for text in found.write(50) if len(text.split()) < 31]
    assert np.isfinite(found.fitted.log_prob(ended, [0.5])).all()
    compared = compare(found, found)
    assert np.isneginf(found.fitted.log_prob(compared.texts, [1.0])).any()
    assert np.isfinite(compared.log_p_before).all()
    for wrong in (0.0, -1.0, 11.0):
        with pytest.raises(ConfigError, match=r"temperature: got .*, allowed is a number above 0, up to 10"):
            compare(found, found, wrong)
        with pytest.raises(ConfigError, match=r"temperature: got .*, allowed is a number above 0, up to 10"):
            found.write(1, wrong)
    for pair in ((found, other := replace(found, testbed=TextTestbed())), (other, found)):
        with pytest.raises(ConfigError, match="only models of one language can be compared"):
            compare(*pair)


@pytest.mark.usefixtures("collapsing")
def test_folders_are_compared_on_texts_drawn_like_a_d_0() -> None:
    """Their 32 positions have room for trees of depth 3, of at most 29 words, and for few that are deeper."""
    comparison = compare(find_model(str(folder_of())), find_model(str(folder_of("ouroloop-incremental-1.00-T0.1"))))
    assert comparison.reference.startswith(f"{len(comparison.texts):,} of 2,000 expressions drawn as D_0 is")
    assert len(comparison.texts) == len(set(comparison.texts)) > 500
    assert max(len(text.split()) for text in comparison.texts) == 31
    assert {1, 2, 3} <= set(comparison.depths)


def comparison() -> Comparison:
    texts = ["( not False )", "( True or False )", "( True and ( not False ) )"]
    return Comparison(
        LogicTestbed(), "[a]", "[b]", "D_0", 1.0, texts, np.log([0.5, 0.2, 0.1]), np.log([0.04, 0.3, 0.00001])
    )


def test_what_is_shown_on_a_terminal_is_what_was_computed() -> None:
    output = StringIO()
    print_comparison(Console(file=output, force_terminal=True, width=120, color_system=None), comparison(), 5)
    shown = output.getvalue()
    assert "[a]  ->  [b]" in shown
    assert "fell more than 10x for 66.7%, more than 1,000x for 33.3%; it rose more than 10x for 0.0%" in shown
    lines = [line for line in shown.splitlines() if "( " in line]
    assert ["( True and ( not False ) )" in lines[0], "( not False )" in lines[1], len(lines)] == [True, True, 2]
    assert "-9.21" in lines[0]  # log(0.00001 / 0.1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "c"], "compare takes a study or two models, not 3 names"),
        (["no-such-study"], "no study or loop 'no-such-study' has run"),
        (["a", "b"], "no folder 'a'"),
    ],
)
def test_bad_input_is_one_line(ouroloop: CommandLine, names: list[str], message: str) -> None:
    done = ouroloop("compare", *names)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert message in done.stderr


@pytest.mark.usefixtures("root")
def test_a_study_of_one_stage_says_why_there_is_nothing(tiny: LoopConfig, ouroloop: CommandLine, root: Path) -> None:
    run_loop(tiny.changed(num_generations=1), Store.open(), name="one", study="one")
    done = ouroloop("compare", "one", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "needs the weights of two stages and has those of 1" in done.stderr
