"""Each step against the contract, and against what it is for."""

import importlib
import linecache
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ouroloop
import ouroloop.science.curation as room
from ouroloop.config import ConfigError, LoopConfig
from ouroloop.config.curation import Step
from ouroloop.learner.empirical import EmpiricalModel
from ouroloop.loop.harvest import _given, harvest
from ouroloop.presets import load_preset
from ouroloop.record.liveness import Interrupted
from ouroloop.science.curation.archive import Archived
from ouroloop.science.curation.buffer import FreshBuffer, OriginalBuffer
from ouroloop.science.curation.checks import Grammatical, Verified
from ouroloop.science.curation.editing import Edited
from ouroloop.science.curation.repeats import Unique
from ouroloop.science.curation.step import Pool
from ouroloop.science.curation.weights import Weighted
from ouroloop.science.dataset import Dataset, Source
from ouroloop.testbed.base import Sample
from ouroloop.testbed.logic.verify import Verdict, judge
from tests.loop.loops import StopAfter, generations, loop
from tests.science.curation.contract import LIAR, STREAMS, M, StepContract


class TestVerified(StepContract):
    step = Verified()

    def test_all_that_is_left_is_true(self) -> None:
        found, first = self.harvested()
        assert LIAR in first
        assert {judge(text).verdict for text in found.kept.texts} == {Verdict.TRUE}
        assert len(found.kept) == M


class TestNoisy(StepContract):
    step = Verified(error_rate=0.2)

    def test_it_errs_both_ways_as_often_as_it_says(self) -> None:
        """Of 60 and more draws; five standard errors."""
        found, first = self.harvested(max_drawn=1.0)
        kept = Counter(found.kept.texts)[LIAR]
        drawn = Counter(first)[LIAR]
        assert abs(kept - 0.2 * drawn) <= 5 * np.sqrt(0.16 * drawn)
        assert abs(len(found.kept) - kept - 0.8 * (M - drawn)) <= 5 * np.sqrt(0.16 * M)


class TestShortSighted(StepContract):
    step = Verified(max_depth=3)

    def test_nothing_deeper_is_left(self) -> None:
        kept = [judge(text) for text in self.harvested()[0].kept.texts]
        assert {one.verdict for one in kept} == {Verdict.TRUE}
        assert max(one.depth or 0 for one in kept) <= 3


class TestTrusting(StepContract):
    step = Verified(max_depth=3, unseen="keep")

    def test_what_is_deeper_passes_true_or_not(self) -> None:
        deep = "( not ( not ( not ( not True ) ) ) )"
        assert judge(f"( not {deep} )").verdict is Verdict.FALSE
        found, _ = self.harvested([f"( not {deep} )", LIAR] * 10)
        assert set(found.kept.texts) == {f"( not {deep} )"}


class TestGrammatical(StepContract):
    step = Grammatical()

    def test_true_alone_is_not_enough(self) -> None:
        uneven = "( True or ( not True ) )"
        assert judge(uneven).verdict is Verdict.TRUE
        found, _ = self.harvested([uneven, "( not False )"] * 10)
        assert set(found.kept.texts) == {"( not False )"}


class TestUnique(StepContract):
    step = Unique()

    def test_each_text_once_and_in_the_order_of_the_draws(self) -> None:
        found, first = self.harvested()
        assert len(set(found.kept.texts)) == len(found.kept)
        seen = list(dict.fromkeys(first))
        assert list(found.kept.texts[: len(seen)]) == seen


class TestWeighted(StepContract):
    step = Weighted(candidates=4)

    def test_it_gives_back_what_sharpening_took(self) -> None:
        """3 : 1 in the data, at T = 0.5 9 : 1 in the samples; five standard errors of the draw, as it resamples."""
        texts = ["( not False )"] * 30 + ["( True or True )"] * 10
        sharp = {"( not False )": 30, "( True or True )": 10}
        fitted = EmpiricalModel(sharp, 0.5)
        drawn = fitted.sample(M, STREAMS.numpy("sampling"))
        reference = Sample.of(self.original().texts, self.config().data.testbed)
        data = Dataset.of(texts, Source.SAMPLED, 2)
        found = harvest(self.config(), STREAMS, fitted, drawn, data, reference)
        share = Counter(found.kept.texts)["( True or True )"] / M
        # w = p/q: 3/4 : 9/10 and 1/4 : 1/10; the share's error is that of 240 draws at 0.1, times w
        assert abs(share - 0.25) <= 5 * 2.5 * np.sqrt(0.09 / 240)
        assert share > 0.1 + 0.05


class TestArchived(StepContract):
    step = Archived()

    def test_rare_forms_come_before_the_second_of_a_common_one(self) -> None:
        rare = "( ( True or True ) and ( True or True ) )"
        texts = ["( not False )"] * 40 + ["( not True )"] * 40 + [rare] * 2
        found, first = self.harvested(texts)
        drawn_rare = Counter(first)[rare]
        assert Counter(found.kept.texts)[rare] >= min(drawn_rare, M // 2)

    def test_no_truth_is_in_a_cell(self) -> None:
        testbed = self.config().data.testbed
        assert testbed.features("( not True )") == testbed.features("( not False )") == (1, 1, 0, 0, 4)  # type: ignore[attr-defined]
        assert testbed.features(") ) ( and") == (0, 0, 1, 0, 4)  # type: ignore[attr-defined]


class TestOriginalBuffer(StepContract):
    step = OriginalBuffer(share=0.1)

    def test_a_tenth_is_original_and_the_least_probable_of_it(self) -> None:
        found, _ = self.harvested()
        is_original = found.kept.sources == Source.ORIGINAL
        assert np.count_nonzero(is_original) == M // 10
        tail = {text for text, one in zip(found.kept.texts, is_original, strict=True) if one}
        assert tail <= set(self.original().texts[30:])  # the model never saw these: -inf


class TestAnyOriginal(TestOriginalBuffer):
    step = OriginalBuffer(share=0.1, which="any")

    def test_a_tenth_is_original_and_the_least_probable_of_it(self) -> None:
        found, _ = self.harvested()
        assert np.count_nonzero(found.kept.sources == Source.ORIGINAL) == M // 10


class TestFreshBuffer(StepContract):
    step = FreshBuffer(share=0.1)

    def test_a_tenth_is_fresh(self) -> None:
        found, _ = self.harvested()
        assert found.kept.mixture() == {"fresh-03": M // 10, "sampled-03": M - M // 10}


class Liar(EmpiricalModel):
    """Sure of one text."""

    def edit(self, texts: tuple[str, ...], threshold: float, rng: np.random.Generator) -> list[str]:
        return ["( True and True )" if text == LIAR else text for text in texts]


class TestEdited(StepContract):
    step = Edited()

    def test_it_is_the_training_set_that_is_learnt_from_again(self) -> None:
        found, _ = self.harvested([LIAR] * 10)
        assert found.kept.texts == (LIAR,) * 10

    def test_a_text_that_stays_as_it_is_is_still_who_wrote_it_first(self) -> None:
        """Or D_0, which a loop of edits has for good where no token is sure, would pass for what models wrote."""
        before = Dataset.of(["( not False )", LIAR], Source.ORIGINAL, 0)
        before += Dataset.of(["( True or True )", LIAR], Source.SAMPLED, 2)
        reference = Sample.of(self.original().texts, self.config().data.testbed)
        given = _given(self.config(), STREAMS, Liar({LIAR: 1}, 0.8), before, reference)
        kept = self.step.keep(Pool(Dataset.of([], Source.SAMPLED, 3), np.array([])), given.to(self.step, given.rng))
        assert kept.data.texts == ("( not False )", "( True and True )", "( True or True )", "( True and True )")
        assert kept.data.mixture() == {"original": 1, "sampled-02": 1, "sampled-03": 2}
        assert kept.data.synthetic_share == 0.75

    def test_a_list_of_texts_has_no_tokens_to_edit(self) -> None:
        with pytest.raises(ConfigError, match="needs a network"):
            load_preset("smoke", ["model.kind=empirical", "train=null", "curation.steps=[edited]"], LoopConfig)


@pytest.mark.heavy
@pytest.mark.parametrize("steps", [["verified", "unique"], ["weighted"], [{"name": "original_buffer", "share": 0.1}]])
def test_a_curated_loop_goes_on_where_it_stopped_with_the_same_texts(steps: list[object], root: Path) -> None:
    config = LoopConfig.model_validate(
        {"num_generations": 4, "seed": 1, "data": {"num_examples": 50}, "model": {"kind": "empirical"},
         "curation": {"steps": steps}}
    )  # fmt: skip
    whole = loop(config, "whole", new=True)
    with pytest.raises(Interrupted):
        loop(config, "part", StopAfter(3, "curate"), new=True)
    resumed = loop(config, "part")
    texts = [[g.read_dataset("curated.tsv.gz").digest() for g in generations(run)] for run in (whole, resumed)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4
    metrics = generations(whole)[3].metrics
    assert {"acceptance_rate", "drawn_per_kept", "curate_seconds", "curated_num_unique"} <= metrics.keys()


SHORT = textwrap.dedent('''
    """Only what is short."""

    from typing import Literal

    from ouroloop.config.section import Whole
    from ouroloop.science.curation.step import CurationStep, Given, Pool


    class Short(CurationStep):
        """Keeps texts of few words."""

        name: Literal["short"] = "short"
        """Keeps texts of few words."""
        max_tokens: Whole = 10
        """The most words. Unit: tokens."""

        def keep(self, pool: Pool, given: Given) -> Pool:
            return pool.where([len(given.tokens(text)) <= self.max_tokens for text in pool.texts])
    ''')
"""The file of docs/curation.md."""


def test_the_documented_step_is_the_one_that_is_tested() -> None:
    page = (Path(__file__).parents[3] / "docs" / "curation.md").read_text(encoding="utf-8")
    assert SHORT.strip() in page


def test_a_step_of_ones_own_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.py").write_text(SHORT)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    room.find()
    try:
        config = load_preset("smoke", ["curation.steps=[{name: short, max_tokens: 4}]"], LoopConfig)
        assert config.curation.label == "short"
        assert "source" not in config.identity()["curation"]["steps"][0]  # it lies with the steps of this program
    finally:
        Step.known.pop("short")


@pytest.mark.usefixtures("root")
def test_a_step_beside_a_script_is_another_one_when_it_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what it kept before would be copied from the record, and taken for what it keeps now."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    changes = {"model.kind": "empirical", "train": None, "curation.steps": ["short"], "num_generations": 2}
    kept, names = dict[str, float](), set[str]()
    try:
        for word in ("<=", ">", "<="):
            (tmp_path / "my_steps.py").write_text(SHORT.replace("<=", word))
            linecache.clearcache()
            sys.modules.pop("my_steps", None)
            importlib.import_module("my_steps")
            results = ouroloop.run("smoke", changes, curation__max_drawn=1.0, show=False)
            history = results.loops[0].history
            kept.setdefault(word, history["num_kept"][1])
            assert kept[word] == history["num_kept"][1]
            names.add(results.name)
    finally:
        Step.known.pop("short")
        sys.modules.pop("my_steps")
    assert kept["<="] + kept[">"] == 200
    assert 0 < kept["<="] < 200
    assert len(names) == 2  # the first and the third are one loop
