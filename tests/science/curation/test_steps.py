"""Each step against the contract, and against what it is for."""

import importlib
import linecache
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import yaml

import ouroloop
import ouroloop.science.curation as room
from ouroloop.config import ConfigError, LoopConfig
from ouroloop.config.curation import Oracle, Step
from ouroloop.learner.base import Samples
from ouroloop.learner.empirical import EmpiricalModel
from ouroloop.loop.harvest import harvest
from ouroloop.presets import load_preset
from ouroloop.science.curation.archive import Archived
from ouroloop.science.curation.buffer import FreshBuffer, OriginalBuffer
from ouroloop.science.curation.checks import Grammatical, Verified
from ouroloop.science.curation.editing import Edited
from ouroloop.science.curation.repeats import Unique
from ouroloop.science.curation.step import CurationStep, Given, Pool
from ouroloop.science.curation.weights import Weighted
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams
from ouroloop.study.config import StudyConfig, knowledge
from ouroloop.testbed.base import Sample
from ouroloop.testbed.logic.verify import Verdict, judge
from tests.science.curation.contract import (
    LIAR,
    NOTHING,
    STREAMS,
    Editable,
    M,
    StepContract,
    config_of,
    kept_of,
    pool_of,
)


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
        """Of 4,000 each: 800 lies and 3,200 truths are kept, within five standard errors, which are 126."""
        kept = Counter(kept_of(self.step, pool_of([LIAR, "( not False )"] * 4_000)).texts)
        assert abs(kept[LIAR] - 0.2 * 4_000) <= 5 * np.sqrt(0.2 * 0.8 * 4_000)
        assert abs(kept["( not False )"] - 0.8 * 4_000) <= 5 * np.sqrt(0.2 * 0.8 * 4_000)


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

    def test_it_errs_in_no_verdict_that_it_has_not(self) -> None:
        """Always wrong, it lets no text pass, or every one, that is too deep for it."""
        deep = "( not ( not ( not ( not True ) ) ) )"
        for unseen, kept in (("drop", set[str]()), ("keep", {deep})):
            pool = Pool(Dataset.of([deep] * M, Source.SAMPLED, 3), np.zeros(M))
            blind = Verified(max_depth=3, unseen=unseen, error_rate=1.0)  # type: ignore[arg-type]
            assert set(kept_of(blind, pool).texts) == kept


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

    def test_it_makes_no_more_of_what_earlier_steps_left(self) -> None:
        assert kept_of(self.step, pool_of(["( not False )"] * 3)).texts == ("( not False )",) * 3
        assert len(kept_of(self.step, pool_of(["( not False )"] * 2 * M))) == M, "which is more than three"

    def test_a_text_of_weight_w_is_kept_floor_or_ceil_of_w_times(self) -> None:
        """Of texts that are equally good chance leaves out none: no collapse of the step's own. Where w is no whole
        number, it decides which come once more."""
        counts = {f"text {i}": 1 + i % 4 for i in range(M)}  # 150 in all, so w = 60·c/150: 0.4, 0.8, 1.2 and 1.6
        outcomes = set()
        for seed in range(5):
            pool, fitted = pool_of(list(counts), -np.log(M)), EmpiricalModel(counts, 1.0)
            kept = Counter(kept_of(self.step, pool, fitted, streams=Streams(seed, 3)).texts)
            assert all(np.floor(0.4 * c) <= kept[text] <= np.ceil(0.4 * c) for text, c in counts.items())
            outcomes.add(tuple(kept[text] for text in counts))
        assert len(outcomes) > 1
        equal = EmpiricalModel(dict.fromkeys(counts, 1), 1.0)
        assert sorted(kept_of(self.step, pool_of(list(counts), -np.log(M)), equal).texts) == sorted(counts)

    def test_a_text_that_m_t_did_not_write_has_no_weight(self) -> None:
        """Or all others would have none: its log-probability is no number."""
        pool = Pool(Dataset.of(["( not False )"] * M, Source.SAMPLED, 3), np.full(M, np.nan))
        with pytest.raises(ValueError, match="bring it in after this step"):
            kept_of(self.step, pool)


def test_nothing_is_kept_where_no_text_has_weight() -> None:
    """As where `min_p` cuts at temperature 1 all that was drawn at a higher one."""
    pool = Pool(Dataset.of(["( not True )"] * M, Source.SAMPLED, 3), np.zeros(M))
    fitted = Editable({"( not False )": 1}, 0.8)
    assert np.isneginf(fitted.log_prob(["( not True )"], [1.0])).all()
    assert len(kept_of(Weighted(), pool, fitted)) == 0


@pytest.mark.parametrize("steps", ["weighted, weighted", "archived, weighted"])
def test_what_is_left_of_a_choice_is_not_chosen_from_again(steps: str) -> None:
    """The weights would be applied twice, and nothing is left to choose from."""
    with pytest.raises(ConfigError, match="weighted cannot come after"):
        load_preset("smoke", [f"curation.steps=[{steps}]"], LoopConfig)


@pytest.mark.parametrize("steps", [["verified", "weighted"], ["verified", "archived"], ["unique", "weighted"]], ids=str)
def test_what_is_chosen_among_too_few_is_said_to_be_too_few(steps: list[str]) -> None:
    """One right text in sixty: as many as were drawn of it are kept, and the budget is spent."""
    texts = ["( not False )", *[LIAR] * 59]
    config = TestWeighted.config().changed(curation={"steps": steps})
    fitted = EmpiricalModel(dict(Counter(texts)), 1.0)
    drawn = fitted.sample(M, STREAMS.numpy("sampling"))
    reference = Sample.of(TestWeighted.original().texts, config.data.testbed)
    found = harvest(config, STREAMS, fitted, drawn, Dataset.of(texts, Source.SAMPLED, 2), reference)
    assert found.num_drawn == 4 * M
    assert len(found.kept) <= 12
    assert found.shortfall(M)


WRONG_ORDERS = {
    "archived, unique": "unique cannot come after archived, which gives m texts at most however many are drawn: "
                        "write [unique, archived]",
    "weighted, verified": "write [verified, weighted]",
    "{name: original_buffer, share: 0.1}, unique": "write [unique, original_buffer]",
    "{name: original_buffer, share: 0.1}, weighted": "write [weighted, original_buffer]",
    "unique, {name: fresh_buffer, share: 0.1}, verified, archived": "write [unique, verified, archived, fresh_buffer]",
    "edited, weighted": "write [weighted, edited]",
}  # fmt: skip


@pytest.mark.parametrize("steps", WRONG_ORDERS)
def test_a_step_that_cannot_be_filled_is_refused_and_the_order_said_that_can(steps: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_preset("smoke", [f"curation.steps=[{steps}]"], LoopConfig)
    assert WRONG_ORDERS[steps] in str(error.value)
    right = "[verified, unique, {name: weighted, candidates: 3}, {name: fresh_buffer, share: 0.5}]"
    assert load_preset("smoke", [f"curation.steps={right}"], LoopConfig).curation.label.endswith("fresh_buffer")


def test_more_candidates_than_may_be_drawn_are_refused() -> None:
    steps = "curation.steps=[unique, {name: archived, candidates: 9.5}]"
    with pytest.raises(ConfigError, match=r"curation: max_drawn 8 must be at least the 9.5 candidates of archived"):
        load_preset("smoke", [steps], LoopConfig)
    assert load_preset("smoke", [steps, "curation.max_drawn=9.5"], LoopConfig)


def test_a_budget_for_no_step_makes_no_other_loop() -> None:
    plain, budget = (load_preset("smoke", given, LoopConfig) for given in ([], ["curation.max_drawn=2.5"]))
    assert plain.fingerprint() == budget.fingerprint()
    assert plain.identity() == budget.identity()
    curated = [
        load_preset("smoke", ["curation.steps=[unique]", *g], LoopConfig) for g in ([], ["curation.max_drawn=3"])
    ]
    assert curated[0].fingerprint() != curated[1].fingerprint()


class TestArchived(StepContract):
    step = Archived()

    def test_rare_forms_come_before_what_is_left_of_a_common_one(self) -> None:
        rare = "( ( True or True ) and ( True or True ) )"
        pool = Pool(Dataset.of(["( not False )"] * 2 * M + [rare] * 2, Source.SAMPLED, 3), np.zeros(2 * M + 2))
        kept = kept_of(self.step, pool)
        assert len(kept) == M
        assert Counter(kept.texts)[rare] == 2

    def test_the_more_probable_texts_of_a_cell_come_first(self) -> None:
        probable = pool_of(["( not False )"] * M, -0.1)
        pool = Pool(pool_of([LIAR] * M).data + probable.data, np.append(np.full(M, -1.0), probable.log_probs))
        assert kept_of(self.step, pool).texts == ("( not False )",) * M

    @pytest.mark.parametrize(
        ("text", "coarseness", "is_kept"),
        [("( True or True )", 4, False), ("( True or True )", 1, True), ("( not ( not True ) )", 4, True)],
    )
    def test_a_cell_holds_one_nesting_and_counts_to_within_the_coarseness(
        self, text: str, coarseness: int, is_kept: bool
    ) -> None:
        """Two less probable texts beside more than enough `( not True )`: one operator at nesting 1, four words. Five
        words with another operator are the same in steps of four, not of one; nesting 2 is not the same in any."""
        pool = Pool(pool_of([LIAR] * 2 * M + [text] * 2).data, np.append(np.zeros(2 * M), [-1.0, -1.0]))
        assert Counter(kept_of(Archived(coarseness=coarseness), pool).texts)[text] == (2 if is_kept else 0)

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

    def test_chance_decides_among_equals(self) -> None:
        """M_t finds all but one text impossible. D_0 begins with short texts: its head would be no cross-section."""
        kept = [kept_of(self.step, pool_of([LIAR] * M), streams=Streams(seed, 3)).data for seed in range(3)]
        chosen = {frozenset(one.take(np.flatnonzero(one.sources == Source.ORIGINAL)).texts) for one in kept}
        assert len(chosen) == 3
        assert {len(texts) for texts in chosen} == {M // 10}


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

    def test_two_of_them_bring_different_texts_and_each_the_same_ones_again(self) -> None:
        config = self.config().changed(curation={"steps": [self.step, self.step]})
        fitted = EmpiricalModel({LIAR: 1}, 0.8)
        drawn, reference = fitted.sample(M, STREAMS.numpy("sampling")), Sample.of([LIAR], config.data.testbed)
        first, again = (harvest(config, STREAMS, fitted, drawn, NOTHING.data, reference).kept.texts for _ in range(2))
        assert first == again
        fresh = [text for text in first if text != LIAR]
        assert len(fresh) == 2 * (M // 10)
        assert fresh[: M // 10] != fresh[M // 10 :]


class Liar(EmpiricalModel):
    """Sure of one text, to 0.995."""

    def edit(self, texts: tuple[str, ...], threshold: float, rng: np.random.Generator) -> list[str]:
        is_sure = threshold <= 0.995
        return ["( True and True )" if text == LIAR and is_sure else text for text in texts]


def test_a_buffer_leaves_what_another_one_has_brought() -> None:
    pool = Pool(Dataset.of(["( not False )"] * M, Source.SAMPLED, 3), np.zeros(M))
    both = kept_of(FreshBuffer(share=0.2), kept_of(OriginalBuffer(share=0.1), pool))
    assert both.data.mixture() == {"original": M // 10, "fresh-03": M // 5, "sampled-03": M - M // 10 - M // 5}
    full = kept_of(FreshBuffer(share=1.0), kept_of(OriginalBuffer(share=0.1), pool))
    assert full.data.mixture() == {"fresh-03": M}


@pytest.mark.parametrize("buffer", [OriginalBuffer, FreshBuffer])
@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.295, 18), (0.29, 17)])  # of 60: 0.06, 17.7 and 17.4
def test_a_share_is_rounded_to_whole_texts_and_is_one_at_least(
    buffer: type[OriginalBuffer | FreshBuffer], share: float, count: int
) -> None:
    kept = kept_of(buffer(share=share), pool_of(["( not False )"] * M)).data
    assert np.count_nonzero(kept.sources == Source.SAMPLED) == M - count
    assert len(kept) == M


def test_multiples_of_m_are_rounded_to_whole_texts() -> None:
    """2.05 · 60 is a trifle less than 123 in binary, and 1.15 · 100 is a trifle less than 115."""
    found, _ = TestVerified.harvested([LIAR] * 20, max_drawn=2.05)
    assert found.num_drawn == 123


class TestEdited(StepContract):
    step = Edited()

    def test_nothing_that_was_drawn_is_wanted_so_there_is_no_rate_of_acceptance(self) -> None:
        found, _ = self.harvested()
        assert found.measures().keys() == {"num_drawn", "num_kept", "drawn_per_kept"}
        nothing, _ = self.harvested([LIAR] * 20)
        assert "acceptance_rate" not in nothing.measures()

    def test_it_is_the_training_set_that_is_learnt_from_again(self) -> None:
        found, _ = self.harvested([LIAR] * 10)
        assert found.kept.texts == (LIAR,) * 10

    def test_it_is_m_of_a_training_set_that_has_grown(self) -> None:
        """As that of the expanding cycle has, which begins with D_0: the first m of it would be that for good."""
        before = Dataset.of([f"text {i}" for i in range(2 * M)], Source.SAMPLED, 2)
        kept = kept_of(self.step, NOTHING, training_set=before)
        assert len(set(kept.texts)) == len(kept) == M
        assert set(kept.texts) < set(before.texts)
        assert set(kept.texts) != set(before.texts[:M])

    @pytest.mark.parametrize(("threshold", "written"), [(0.99, "( True and True )"), (0.999, LIAR)])
    def test_only_what_m_t_is_sure_enough_of_is_written_anew(self, threshold: float, written: str) -> None:
        before = Dataset.of([LIAR], Source.SAMPLED, 2)
        assert kept_of(Edited(threshold=threshold), NOTHING, Liar({LIAR: 1}, 0.8), before).texts == (written,)

    def test_a_text_that_stays_as_it_is_is_still_who_wrote_it_first(self) -> None:
        """Or D_0, which a loop of edits has for good where no token is sure, would pass for what models wrote."""
        before = Dataset.of(["( not False )", LIAR], Source.ORIGINAL, 0)
        before += Dataset.of(["( True or True )", LIAR], Source.SAMPLED, 2)
        kept = kept_of(self.step, NOTHING, Liar({LIAR: 1}, 0.8), before)
        assert kept.data.texts == ("( not False )", "( True and True )", "( True or True )", "( True and True )")
        assert kept.data.mixture() == {"original": 1, "sampled-02": 1, "sampled-03": 2}
        assert kept.data.synthetic_share == 0.75

    def test_a_list_of_texts_has_no_tokens_to_edit(self) -> None:
        with pytest.raises(ConfigError, match="needs a network"):
            load_preset("smoke", ["model.kind=empirical", "train=null", "curation.steps=[edited]"], LoopConfig)


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
    page = (Path(__file__).parents[3] / "docs" / "curation.md").read_text(encoding="utf-8")
    line = "short: {changes: {curation: {steps: [short]}}, cycles: [full_synthetic]}"
    assert f"`{line}`" in page
    with_line = {"methods": yaml.safe_load(line)}
    (tmp_path / "short.py").write_text(SHORT)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    room.find()
    try:
        config = load_preset("smoke", ["curation.steps=[{name: short, max_tokens: 4}]"], LoopConfig)
        assert config.curation.label == "short"
        assert "source" not in config.identity()["curation"]["steps"][0]  # it lies with the steps of this program
        study = StudyConfig.model_validate({"loop": config.model_dump(), "cycles": ["full_synthetic"], **with_line})
        assert [loop.curation.label for loop in study.loops()] == ["short"]
    finally:
        Step.known.pop("short")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (lambda pool, _: pool.texts[:1], "step mistaken: keep gave a tuple, allowed is a Pool, such as pool.where"),
        (
            lambda pool, given: pool.where([given.verify(text) for text in pool.texts]),
            "step mistaken asks for the verifier: let it declare needs = .*Oracle.VERIFIER",
        ),
    ],
)
def test_a_mistake_in_a_step_of_ones_own_is_said_in_one_line(keep: Callable[[Pool, Given], Pool], said: str) -> None:
    class Mistaken(CurationStep):
        name: Literal["mistaken"] = "mistaken"

        def keep(self, pool: Pool, given: Given) -> Pool:
            return keep(pool, given)

    changes = {"model.kind": "empirical", "train": None, "curation.steps": ["mistaken"], "num_generations": 2}
    try:
        with pytest.raises(ConfigError, match=said):
            ouroloop.run("smoke", changes, show=False)
    finally:
        Step.known.pop("mistaken")


def test_a_step_of_ones_own_cannot_take_the_name_of_one_of_ours() -> None:
    """Every preset that names it would be another one."""
    with pytest.raises(ConfigError, match="'unique' is a step of ouroloop; choose another name"):
        type("Mine", (Unique,), {"__module__": "mine"})
    assert Step.known["unique"] is Unique


def test_a_constant_of_a_step_of_ones_own_is_a_part_of_it() -> None:
    def digest(most: object) -> str:
        class Least(CurationStep):
            name: Literal["least"] = "least"
            MOST: ClassVar = most

        return Least.own_source()

    try:
        found = [
            digest(value) for value in (5, 100, 5, frozenset({"a", "b"}), frozenset({"b", "a"}), object(), object())
        ]
    finally:
        Step.known.pop("least")
    assert [found.index(one) for one in found] == [0, 1, 0, 3, 3, 5, 5]


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


def test_one_text_short_of_m_a_quarter_more_is_drawn_and_the_rate_counts_all_that_passed() -> None:
    """What is drawn is a method's cost on the board."""
    first = Samples(["( not False )"] * (M - 1) + [LIAR], [0.0] * M)
    found, _ = TestVerified.harvested(["( not False )"], first=first)
    assert (found.num_drawn, found.num_accepted, len(found.kept)) == (M + M // 4, M + M // 4 - 1, M)
    rate = found.num_accepted / found.num_drawn
    stderr = (rate * (1 - rate) / found.num_drawn) ** 0.5
    assert found.measures()["acceptance_rate"] == (pytest.approx(rate), pytest.approx(stderr))


def test_a_step_may_ask_for_the_statistics_of_d_0_and_is_known_by_that() -> None:
    class NoLonger(CurationStep):
        name: Literal["no_longer"] = "no_longer"
        needs: ClassVar[frozenset[Oracle]] = frozenset({Oracle.ORIGINAL_STATISTICS})

        def keep(self, pool: Pool, given: Given) -> Pool:
            assert given.original_statistics["correctness"] == 1.0
            longest = given.original_statistics["mean_length_tokens"]
            return pool.where([len(given.tokens(text)) <= longest for text in pool.texts])

    try:
        assert len(kept_of(NoLonger(), pool_of(["( not False )"] * 3))) == 3
        config = config_of(NoLonger())
        assert knowledge(config, config.changed(curation={"steps": []})) == "statistics of D_0"
    finally:
        Step.known.pop("no_longer")


def test_a_step_that_needs_fewer_texts_than_m_draws_none_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verified, "num_candidates", property(lambda _: 0.5))
    found, _ = TestVerified.harvested(["( not False )"])
    assert found.num_drawn == M
