"""What the rest of the program takes for granted of a testbed; the test class of each testbed inherits it.

    class TestMine(contract.TestbedContract):
        @pytest.fixture
        def testbed(self) -> base.Testbed:
            return Mine()

Nothing here knows a language. Texts come from the testbed, or are what a model could write, any token after any
other, or are hostile.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.divergence import from_scores, of_original
from ouroloop.science.seeding import stream
from ouroloop.testbed import base
from ouroloop.testbed.base import Array, Distribution, Sample, Stratum

COUNT = 50
HOSTILE = [
    "",
    " ",
    "\0",
    "\ud800",
    "a\tb\nc\r",
    "\u202e\u2002",
    "<eos>",
    "__import__('os').system('true')",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "( not " * 17_000,
    "\0 " * 50_000,
    "\udfff" * 100_000,
]


def original(testbed: base.Testbed, seed: int = 1) -> list[str]:
    return testbed.original(COUNT, stream(seed, "data"))


def written(testbed: base.Testbed, count: int = 30) -> list[str]:
    """What a model could write: any words in any order, or none at all."""
    rng, tokenizer = stream(1, "written"), testbed.tokenizer
    if tokenizer is None:  # then any token of its texts after any other
        tokens = sorted({token for text in original(testbed) for token in testbed.tokens(text)})
        return ["", *("".join(rng.choice(tokens, size=rng.integers(1, 9))) for _ in range(count))]
    words = [i for i in range(tokenizer.size) if i != tokenizer.eos_id]
    return ["", *(tokenizer.decode(rng.choice(words, size=rng.integers(1, 9)).tolist()) for _ in range(count))]


def samples(testbed: base.Testbed) -> list[Sample]:
    """As D_0, contaminated, of nothing but errors, collapsed to one text of either kind, a single one, hostile."""
    texts, junk = original(testbed), written(testbed)
    mixed, collapsed = [*texts, *junk, *texts[:7], junk[3]], [texts[0]] * 20
    every = [texts, mixed, junk, collapsed, [junk[2]] * 20, [""] * 5, texts[:1], [*HOSTILE, *texts]]
    return [Sample.of(one, testbed) for one in every]


class TestbedContract:
    @pytest.fixture
    def testbed(self) -> base.Testbed:
        raise NotImplementedError("the test class of a testbed gives it")

    def test_it_has_a_name(self, testbed: base.Testbed) -> None:
        assert testbed.name.isidentifier()

    def test_original_and_fresh_data_are_as_many_as_asked_for_and_follow_from_the_stream(
        self, testbed: base.Testbed
    ) -> None:
        assert original(testbed) == original(testbed)
        first, again = (testbed.fresh(COUNT, 3, stream(1, "fresh", 3)) for _ in range(2))
        assert first == again
        assert len(original(testbed)) == len(first) == COUNT
        assert len(testbed.original(2, stream(2, "data"))) == 2

    @pytest.fixture
    def tokenizer(self, testbed: base.Testbed) -> base.Tokenizer:
        if testbed.tokenizer is None:
            pytest.skip("its language has no vocabulary of its own")
        return testbed.tokenizer

    def test_every_text_has_tokens_and_comes_back(self, testbed: base.Testbed, tokenizer: base.Tokenizer) -> None:
        assert 0 <= tokenizer.eos_id < tokenizer.size
        for text in [*original(testbed), *written(testbed)]:
            ids = tokenizer.encode(text)
            assert ids[0] == ids[-1] == tokenizer.eos_id
            assert set(ids[1:-1]) <= set(range(tokenizer.size)) - {tokenizer.eos_id}
            assert tokenizer.decode(ids[1:-1]) == text
            assert len(testbed.tokens(text)) == len(ids) - 2

    def test_the_tokenizer_of_transformers_agrees(self, testbed: base.Testbed, tokenizer: base.Tokenizer) -> None:
        ours, theirs = tokenizer, tokenizer.build(64)
        assert len(theirs) == ours.size
        for text in original(testbed)[:10]:
            assert theirs(text).input_ids == ours.encode(text)[:-1]
            assert theirs.decode(ours.encode(text), skip_special_tokens=True) == text

    def test_a_dataset_of_its_texts_survives_the_disk(self, testbed: base.Testbed, tmp_path: Path) -> None:
        dataset = Dataset.of([*original(testbed), *written(testbed)], Source.SAMPLED, 1)
        (tmp_path / "samples.tsv.gz").write_bytes(dataset.to_bytes())
        assert Dataset.read(tmp_path / "samples.tsv.gz").texts == dataset.texts

    def test_the_last_cell_of_a_row_is_the_text(self, testbed: base.Testbed) -> None:
        for text in [*original(testbed), *written(testbed), *HOSTILE]:
            row = testbed.row(text)
            assert len(row) == len(testbed.columns)
            assert row[-1] == text
            assert all(isinstance(cell, str | int) for cell in row)

    @pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
    def test_a_hostile_string_is_judged(self, testbed: base.Testbed, text: str) -> None:
        self.judged(testbed, text)

    @given(text=st.text() | st.text(st.characters(exclude_categories=())) | st.lists(st.integers(0, 99)))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    def test_any_string_is_judged(self, testbed: base.Testbed, text: str | list[int]) -> None:
        """Or any words of its own in any order, which come as numbers."""
        if isinstance(text, list):
            words = written(testbed)
            text = " ".join(words[i % len(words)] for i in text)
        self.judged(testbed, text)

    def judged(self, testbed: base.Testbed, text: str) -> None:
        """Nothing raises, and the same string is judged the same."""
        assert testbed.judge(text) == testbed.judge(text)
        assert len(testbed.tokens(text)) <= len(text)
        testbed.cross_check([text])

    def test_its_texts_are_judged_by_somebody_else_too(self, testbed: base.Testbed) -> None:
        testbed.cross_check([*original(testbed), *written(testbed)])

    def test_what_a_text_is_are_shares_that_sum_to_1(self, testbed: base.Testbed) -> None:
        reference = Sample.of(original(testbed), testbed)
        for sample in samples(testbed):
            measures = testbed.measures(sample, reference)
            shares = [measures[key].value for key in testbed.composition.values()]
            assert not shares or sum(shares) == pytest.approx(1)
            rates = {*testbed.composition.values(), *testbed.descriptions}
            assert all(0 <= measures[key].value <= 1 for key in rates)

    def test_what_it_names_it_measures(self, testbed: base.Testbed) -> None:
        reference = Sample.of(original(testbed), testbed)
        measures = testbed.measures(reference, reference)
        assert {*testbed.composition.values(), *testbed.descriptions} <= measures.keys()
        assert testbed.definitions.keys() <= testbed.means.keys()
        assert {*testbed.headline.values()} <= measures.keys() | testbed.means.keys()  # a model's scores are the loop's

    def test_a_measure_is_finite_or_absent(self, testbed: base.Testbed) -> None:
        reference = Sample.of(original(testbed), testbed)
        for sample in samples(testbed):
            for key, (value, stderr) in testbed.measures(sample, reference).items():
                assert key.isidentifier()
                assert math.isfinite(value), key
                assert stderr is None or 0 <= stderr < math.inf, key

    def test_what_is_copied_is_finite_or_absent(self, testbed: base.Testbed) -> None:
        texts = original(testbed)
        for sample in samples(testbed):
            for key, (value, stderr) in testbed.copied(sample, texts).items():
                assert key.isidentifier()
                assert math.isfinite(value), key
                assert stderr is None or 0 <= stderr < math.inf, key

    def test_prepared_for_a_loop_it_gives_the_same_for_the_same_seed(self, testbed: base.Testbed) -> None:
        first, again = (testbed.prepared(3, COUNT, 2 * COUNT) for _ in range(2))
        for one in (first, again):
            assert (one.name, one.digest, one.held_out) == (first.name, first.digest, first.held_out)
        assert original(first) == original(again)
        fresh = [first.fresh(COUNT, t, stream(3, "fresh", t)) for t in (1, 2)]
        assert fresh == [again.fresh(COUNT, t, stream(3, "fresh", t)) for t in (1, 2)]
        if first.is_finite:
            apart = [original(first), *fresh, list(first.held_out)]
            assert len({text for texts in apart for text in texts}) == sum(map(len, apart))

    def test_a_tally_counts_every_text_once_or_there_is_none(self, testbed: base.Testbed) -> None:
        for sample in samples(testbed):
            tally = testbed.tally(sample)
            assert not tally or sum(count for _, count in tally) == sample.size
            assert len(dict(tally)) == len(tally)

    # From here on, of the distribution, where there is one

    @pytest.fixture
    def distribution(self, testbed: base.Testbed) -> Distribution:
        if testbed.distribution is None:
            pytest.skip("nothing is known of its distribution")
        return testbed.distribution

    def held_out(self, distribution: Distribution, exact: bool = False, seed: int = 1) -> list[Stratum]:
        return distribution.strata(lambda part: stream(seed, "held_out", part), exact=exact)

    def test_all_forms_together_are_all_of_it(self, distribution: Distribution) -> None:
        forms = distribution.forms
        p = forms.num * np.exp(forms.log_p)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert distribution.entropy_nats == pytest.approx(-p @ forms.log_p)
        assert all(part.shape == p.shape and part.dtype == bool for part in forms.parts.values())
        assert set(distribution.masses.values()) <= forms.parts.keys()

    def test_original_texts_are_supported(self, testbed: base.Testbed, distribution: Distribution) -> None:
        texts = [*original(testbed), *testbed.fresh(COUNT, 2, stream(1, "fresh", 2))]
        assert all(distribution.supports(testbed.judge(text)) for text in texts)
        assert not any(distribution.supports(testbed.judge(text)) for text in HOSTILE)

    def test_a_text_as_a_form_of_its_own_has_its_probability(
        self, testbed: base.Testbed, distribution: Distribution
    ) -> None:
        texts = list(dict.fromkeys(original(testbed)))
        forms = distribution.forms_of(texts, {text: testbed.judge(text) for text in texts})
        assert forms.num.tolist() == [1] * len(texts)
        assert forms.log_p.tolist() == distribution.log_probabilities(texts).tolist()
        assert forms.parts.keys() == distribution.forms.parts.keys()
        assert all(part.shape == (len(texts),) for part in forms.parts.values())
        assert np.exp(forms.log_p).sum() <= 1 + 1e-12

    def test_strata_weigh_equally_and_hold_texts_of_it(self, testbed: base.Testbed, distribution: Distribution) -> None:
        strata = self.held_out(distribution)
        for stratum in strata:
            assert stratum.weights.sum() == pytest.approx(1)
            assert len(stratum.texts) == len(stratum.log_p) == len(stratum.weights)
            assert stratum.log_p.tolist() == distribution.log_probabilities(stratum.texts).tolist()
            assert stratum.parts.keys() == distribution.forms.parts.keys()
            assert all(distribution.supports(testbed.judge(text)) for text in stratum.texts)
            if stratum.is_exact:
                assert np.exp(stratum.log_p).sum() == pytest.approx(1 / len(strata))

    def test_the_same_streams_hold_out_the_same(self, distribution: Distribution) -> None:
        for exact in (False, True):
            first, again = (self.held_out(distribution, exact) for _ in range(2))
            assert [s.texts for s in first] == [s.texts for s in again]
            if not all(s.is_exact for s in first):
                assert [s.texts for s in first] != [s.texts for s in self.held_out(distribution, exact, seed=2)]

    def test_a_model_that_is_the_distribution_covers_it(self, distribution: Distribution) -> None:
        def log_prob(texts: Sequence[str], temperatures: Sequence[float]) -> Array:
            return np.array([distribution.log_probabilities(texts) for _ in temperatures])

        measures = from_scores(self.held_out(distribution), log_prob, 0.8)
        divergences = [measures.pop(key).value for key in ("kl_forward_nats", "kl_forward_t1_nats")]
        assert divergences == pytest.approx([0, 0], abs=1e-9)
        assert [estimate.value for estimate in measures.values()] == pytest.approx([1] * len(measures))
        assert "coverage" in measures

    def test_what_original_data_comes_from_is_a_distribution_on_the_same_forms(
        self, testbed: base.Testbed, distribution: Distribution
    ) -> None:
        forms, log_q = distribution.forms, distribution.original_log_probabilities(COUNT)
        assert np.sum(forms.num * np.exp(log_q)) == pytest.approx(1, abs=1e-9)
        measures = of_original(distribution, COUNT)
        assert all(math.isfinite(estimate.value) for estimate in measures.values())
        assert measures["off_support_rate"].value == 0

    def test_distinct_texts_to_expect(self, distribution: Distribution) -> None:
        counts = [1, 2, 10, 1_000, 10**6]
        expected = [distribution.expected_unique(n) for n in counts]
        assert expected[0] == pytest.approx(1)
        assert expected == sorted(expected)
        assert all(unique <= n + 1e-6 for unique, n in zip(expected, counts, strict=True))
        collisions = 1 - (expected[1] - 1)  # of two draws
        assert collisions == pytest.approx(np.sum(distribution.forms.num * np.exp(2 * distribution.forms.log_p)))
