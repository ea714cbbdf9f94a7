"""What the loop takes for granted of a learner; the test class of each learner inherits it.

    class TestMine(contract.LearnerContract):
        temperature = 0.8

        @staticmethod
        def of_testbed() -> base.Testbed: ...

        @staticmethod
        def learner() -> Learner: ...

These are functions and no fixtures, because another process calls them too. (One that is called `testbed` would be a
test for pytest.) Nothing here knows what a learner is made
of: a dataset goes in, a fitted model comes out.
"""

import math
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ouroloop.learner.base import Fitted, Learner
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed import base
from tests.conftest import REPOSITORY

COUNT = 300


class LearnerContract:
    temperature = 1.0
    """At which it samples."""
    longest = math.inf
    """Tokens after which a text is cut off: how probable such a one is says the sampler alone."""
    spells_in_one_way = True
    """Whether a text has one spelling in tokens: else how probable another one is says the sampler alone, too."""

    @staticmethod
    def of_testbed() -> base.Testbed:
        raise NotImplementedError("the test class of a learner says what it learns")

    @staticmethod
    def learner() -> Learner:
        raise NotImplementedError("the test class of a learner gives a new one")

    def test_it_says_what_it_is(self) -> None:
        assert self.learner().description

    @classmethod
    def dataset(cls) -> Dataset:
        """Some of its texts are there four times, and models wrote a part of it."""
        texts = cls.of_testbed().original(40, stream(1, "data"))
        return Dataset.of(texts, Source.ORIGINAL, 0) + Dataset.of(texts[:10] * 3, Source.SAMPLED, 1)

    @classmethod
    def prepared(cls) -> Learner:
        """For a loop that starts from what is original in `dataset`."""
        return cls.learner().prepared(cls.dataset().texts[:40])

    @classmethod
    @cache
    def previous(cls) -> tuple[Fitted, ...]:
        """M_1 and M_2 of a learner that learns from earlier models."""
        if cls.learner().num_previous == 0:
            return ()
        first = cls.prepared().fit(cls.dataset(), Streams(1, 0))
        return first, cls.prepared().fit(cls.dataset(), Streams(1, 1), previous=[first])

    @classmethod
    def fit(cls, dataset: Dataset | None = None, seed: int = 1) -> Fitted:
        return cls.prepared().fit(dataset or cls.dataset(), Streams(seed, 2), previous=cls.previous())

    @classmethod
    def digest(cls) -> str:
        """Of what it writes and how probable that is, to the last bit."""
        texts, log_probs = cls.fit().sample(COUNT, stream(1, "sampling"))
        return "\n".join(f"{text} {log_p.hex()}" for text, log_p in zip(texts, log_probs, strict=True))

    @classmethod
    @cache
    def fitted_once(cls) -> Fitted:
        return cls.fit()

    @classmethod
    @cache
    def fitted_again(cls) -> Fitted:
        return cls.fit()

    @pytest.fixture
    def fitted(self) -> Fitted:
        return self.fitted_once()

    def test_it_passes_its_own_check_and_says_where_it_computes(self) -> None:
        learner = self.learner()
        learner.check()
        assert learner.device
        assert learner.device == self.learner().device
        assert learner.is_registrable in (True, False)

    def test_the_same_dataset_and_streams_give_the_same_samples_bit_for_bit(self, fitted: Fitted) -> None:
        """Another learner, another fit; and one model asked twice."""
        first, again = (fitted.sample(COUNT, stream(1, "sampling")) for _ in range(2))
        other = self.fitted_again().sample(COUNT, stream(1, "sampling"))
        assert first == again == other

    @pytest.mark.slow
    def test_another_process_draws_the_same(self) -> None:
        """Where hashes of strings, and with them the order of sets, are others."""
        name = f"{type(self).__module__} import {type(self).__name__} as case"
        command = [sys.executable, "-c", f"from {name}; print(case.digest())"]
        environment = os.environ | {"PYTHONHASHSEED": "12345"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == self.digest() + "\n"

    def test_the_order_of_what_the_streams_are_asked_for_does_not_matter(self, fitted: Fitted) -> None:
        """Scoring in between changes nothing that is drawn."""
        model = self.fitted_again()
        model.log_prob(list(self.dataset().texts), [self.temperature])
        assert model.sample(20, stream(1, "sampling")) == fitted.sample(20, stream(1, "sampling"))

    @pytest.mark.parametrize("count", [1, 7, COUNT])
    def test_as_many_texts_as_asked_for_each_with_its_probability(self, fitted: Fitted, count: int) -> None:
        texts, log_probs = fitted.sample(count, stream(1, "sampling"))
        assert isinstance(texts, list)
        assert len(texts) == len(log_probs) == count
        assert all(math.isfinite(log_p) and log_p <= 1e-9 for log_p in log_probs)
        assert not self.spells_in_one_way or (fitted.num_tokens(texts) <= self.longest + 1).all()

    def test_another_stream_draws_other_texts_in_another_order(self, fitted: Fitted) -> None:
        first, other = (fitted.sample(COUNT, stream(seed, "sampling")).texts for seed in (1, 2))
        assert first != other

    def test_texts_come_in_random_order(self, fitted: Fitted) -> None:
        """Equal neighbours are a Poisson number, nearly: in a random order Σ c(c-1)/n are expected; 5 of its errors."""
        texts = fitted.sample(COUNT, stream(1, "sampling")).texts
        expected = sum(c * (c - 1) for c in Counter(texts).values()) / COUNT
        equal = sum(a == b for a, b in pairwise(texts))
        assert abs(equal - expected) <= 5 * math.sqrt(expected + 1)

    def test_what_is_drawn_is_as_probable_as_it_scores(self, fitted: Fitted) -> None:
        """That of `<eos>` included, for all texts that ended; float32 rounds the scores of a network."""
        drawn = zip(*fitted.sample(COUNT, stream(1, "sampling")), strict=True)
        ended = {text: log_p for text, log_p in drawn if fitted.num_tokens([text])[0] <= self.longest}
        assert len(ended) > 3
        (scores,) = fitted.log_prob(list(ended), [self.temperature])
        if not self.spells_in_one_way:
            agree = np.isclose(scores, list(ended.values()), atol=1e-4, rtol=0)
            assert agree[["\ufffd" not in text for text in ended]].mean() > 0.5
            return
        assert scores == pytest.approx(list(ended.values()), abs=1e-4)

    def test_tokens_of_a_text_are_counted_one_by_one(self, fitted: Fitted) -> None:
        texts = list(dict.fromkeys(self.dataset().texts))
        counts = fitted.num_tokens([*texts, texts[0]])
        assert counts.shape == (len(texts) + 1,)
        assert counts.dtype == np.float64
        assert (counts >= 1).all()
        assert counts[0] == counts[-1]
        assert fitted.num_tokens([]).shape == (0,)

    def test_scores_come_by_temperature_and_text(self, fitted: Fitted) -> None:
        texts = list(self.dataset().texts[:5])
        scores = fitted.log_prob([*texts, texts[0]], [0.5, 1.0, self.temperature])
        assert scores.shape == (3, 6)
        assert scores.dtype == np.float64
        assert not np.isnan(scores).any()
        assert (scores <= 1e-9).all()
        assert (scores[:, 0] == scores[:, 5]).all()
        assert fitted.log_prob([texts[0]], [1.0])[0, 0] == pytest.approx(scores[1, 0], abs=1e-5)
        assert fitted.log_prob([], [0.5, 1.0]).shape == (2, 0)

    def test_it_can_score_what_it_learnt_from(self, fitted: Fitted) -> None:
        assert np.isfinite(fitted.log_prob(list(self.dataset().texts), [self.temperature])).all()

    def test_what_was_saved_is_the_same_model(self, fitted: Fitted, tmp_path: Path) -> None:
        """To the last bit: a later model may learn from it, and must not depend on whether the loop was interrupted."""
        texts = list(self.dataset().texts)
        fitted.save(tmp_path)
        loaded = self.prepared().load(tmp_path)
        scores = fitted.log_prob(texts, [self.temperature, 1.0])
        assert (loaded.log_prob(texts, [self.temperature, 1.0]) == scores).all()
        first, again = (model.sample(50, stream(1, "sampling")) for model in (fitted, loaded))
        assert again == first
        assert not list(tmp_path.glob("*.pkl")) + list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))

    def test_a_model_learns_from_saved_ones_as_from_those_at_hand(self, fitted: Fitted, tmp_path: Path) -> None:
        """To the last bit, and it leaves them as they were."""
        texts = list(self.dataset().texts)
        before = [model.log_prob(texts, [1.0]) for model in self.previous()]
        loaded = []
        for i, model in enumerate(self.previous()):
            folder = tmp_path / str(i)
            folder.mkdir()
            model.save(folder)
            loaded.append(self.prepared().load(folder))
        if not loaded:
            pytest.skip("it learns from its training set alone")
        again = self.prepared().fit(self.dataset(), Streams(1, 2), previous=loaded)
        assert (again.log_prob(texts, [1.0]) == fitted.log_prob(texts, [1.0])).all()
        assert all((m.log_prob(texts, [1.0]) == b).all() for m, b in zip(self.previous(), before, strict=True))

    def test_its_whole_distribution_is_the_one_that_it_samples_from(self, fitted: Fitted) -> None:
        """Where it is a list of texts. Chi-square over texts expected at least five times, the rest pooled; 0.1 % false
        alarms (Wilson-Hilferty), seed fixed."""
        probabilities = fitted.probabilities()
        if probabilities is None:
            pytest.skip("its distribution is no list of texts")
        assert sum(probabilities.values()) == pytest.approx(1)
        (scores,) = fitted.log_prob(list(probabilities), [self.temperature])
        assert np.exp(scores) == pytest.approx(list(probabilities.values()))
        n = 20_000
        counts = Counter(fitted.sample(n, stream(3, "sampling")).texts)
        assert counts.keys() <= {text for text, p in probabilities.items() if p > 0}
        common = {text: n * p for text, p in probabilities.items() if n * p >= 5}
        chi_square = sum((counts[text] - expected) ** 2 / expected for text, expected in common.items())
        rest = n - sum(common.values())
        if rest > 1:
            chi_square += (n - sum(counts[text] for text in common) - rest) ** 2 / rest
        degrees = len(common) - (rest <= 1)
        limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3
        assert chi_square < limit

    def test_one_repeated_text_is_a_dataset(self) -> None:
        """What a loop collapses to."""
        text = self.dataset().texts[0]
        model = self.fit(Dataset.of([text] * 20, Source.SAMPLED, 9))
        texts, log_probs = model.sample(30, stream(1, "sampling"))
        assert len(texts) == len(log_probs) == 30
        assert model.log_prob([text], [self.temperature])[0, 0] > -math.inf
        if (probabilities := model.probabilities()) is not None:
            assert sum(probabilities.values()) == pytest.approx(1)
            judged = base.Sample.of(list(probabilities), self.of_testbed())
            assert judged.size == len(probabilities)

    def test_a_training_says_what_it_came_to_and_reports_on_its_way(self) -> None:
        reports: list[tuple[int, float]] = []
        training = (
            self.prepared().fit(self.dataset(), Streams(1, 2), lambda step, nats: reports.append((step, nats))).training
        )
        if training is None:
            assert reports == []
            return
        assert reports
        steps = [step for step, _ in reports]
        assert steps == sorted(set(steps))
        assert all(math.isfinite(nats) for _, nats in reports)
        assert training.validation_nats >= min(nats for _, nats in training.validation_losses)
        assert len(training.train_losses) >= steps[-1]
        assert training.num_tokens >= len(training.train_losses)
