"""What the loop takes for granted of a curation step; the test class of each one inherits it.

    class TestMine(contract.StepContract):
        step = Mine()

The step is run as a loop runs it: the ideal learner's model is asked for texts until enough are kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from ouroloop.config import LoopConfig
from ouroloop.config.curation import Oracle, Step
from ouroloop.learner.base import Samples
from ouroloop.learner.empirical import EmpiricalLearner, EmpiricalModel
from ouroloop.loop.generation import compute
from ouroloop.loop.harvest import Harvest, _given, harvest
from ouroloop.loop.loop import draw_original
from ouroloop.loop.observer import Observer
from ouroloop.science.curation.step import CurationStep, Given, Pool, UndeclaredError
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Sample

M = 60
STREAMS = Streams(1, 3)
LIAR = "( not True )"
"""Well-formed, and False."""


class Editable(EmpiricalModel):
    """The ideal learner's model, which leaves texts as they are: nothing in it is a token."""

    def edit(self, texts: tuple[str, ...], threshold: float, rng: np.random.Generator) -> list[str]:
        rng.random(len(texts))
        return list(texts)


def config_of(step: CurationStep, max_drawn: float = 4.0) -> LoopConfig:
    """A loop with this step; of the ideal learner, even if that has no use for it."""
    given = {
        "num_generations": 3,
        "seed": 1,
        "data": {"num_examples": M},
        "model": {"kind": "empirical"},
        "curation": {"max_drawn": max_drawn},
    }
    config = LoopConfig.model_validate(given)
    curation = config.curation.model_copy(update={"steps": [step]})
    return config.model_copy(update={"curation": curation})


NOTHING = Pool(Dataset.of([], Source.SAMPLED, 3), np.array([]))


def kept_of(
    step: CurationStep,
    pool: Pool,
    fitted: EmpiricalModel | None = None,
    training_set: Dataset = NOTHING.data,
    streams: Streams = STREAMS,
) -> Pool:
    """What a step keeps of a pool, given what a loop gives it; D_0 is the same whatever the streams."""
    config = config_of(step)
    original = Sample.of(draw_original(config).texts, config.data.testbed)
    model = fitted or Editable({"( not False )": 1}, 0.8)
    given = _given(config, streams, model, training_set, original)
    return step.keep(pool, given.to(step, streams.numpy("test"), pool))


def pool_of(texts: Sequence[str], log_prob: float = 0.0) -> Pool:
    """Texts that M_t wrote, each as probable as the others."""
    return Pool(Dataset.of(texts, Source.SAMPLED, STREAMS.generation), np.full(len(texts), log_prob))


class EditableLearner(EmpiricalLearner):
    def fit(self, dataset: Dataset, *given: object) -> Editable:
        return Editable(dict(Counter(dataset.texts)), self.temperature)


class StepContract:
    step: ClassVar[CurationStep]
    of_samples = True
    """Whether what it keeps is among the texts that were drawn, but for original and fresh ones."""

    @classmethod
    def config(cls, max_drawn: float = 4.0) -> LoopConfig:
        return config_of(cls.step, max_drawn)

    @classmethod
    def original(cls) -> Dataset:
        return draw_original(cls.config())

    @classmethod
    def harvested(
        cls, texts: list[str] | None = None, max_drawn: float = 4.0, first: Samples | None = None
    ) -> tuple[Harvest, list[str]]:
        """What is kept of a model of these texts, and the m texts that were drawn first."""
        original = cls.original()
        learnt = texts or [*original.texts[:30], *original.texts[:10], *[LIAR] * 20]
        training_set = Dataset.of(learnt, Source.SAMPLED, 2)
        fitted = Editable({text: learnt.count(text) for text in dict.fromkeys(learnt)}, 0.8)
        drawn = first or fitted.sample(M, STREAMS.numpy("sampling"))
        reference = Sample.of(original.texts, cls.config().data.testbed)
        found = harvest(cls.config(max_drawn), STREAMS, fitted, drawn, training_set, reference)
        return found, drawn.texts

    def test_it_is_configured_by_its_name(self) -> None:
        again = LoopConfig.model_validate(
            self.config().model_dump(mode="json")
            | ({"model": {"kind": "transformers", "num_layers": 1, "num_heads": 1, "hidden_size": 8},
                "train": {"num_steps": 1, "batch_size": 1, "learning_rate": 0.1, "validate_every": 1}}
               if self.step.needs_network else {})
        )  # fmt: skip
        assert again.curation.steps == [self.step]
        assert Step.known[self.step.name] is type(self.step)
        assert again.fingerprint() != again.changed(curation={"steps": []}).fingerprint()

    def test_no_more_than_m_are_kept_and_no_more_drawn_than_allowed(self) -> None:
        found, _ = self.harvested()
        assert 0 < len(found.kept) <= M
        assert M <= found.num_drawn <= 4 * M
        assert 0 <= found.num_accepted <= found.num_drawn
        assert len(found.kept) == M or found.num_drawn == 4 * M
        assert bool(found.shortfall(M)) is (len(found.kept) < M)
        measures = found.measures()
        assert measures["drawn_per_kept"].value == found.num_drawn / len(found.kept)
        assert ("acceptance_rate" in measures) is (found.num_accepted > 0)
        assert found.num_accepted == 0 or 0 < measures["acceptance_rate"].value <= 1

    def test_every_text_says_who_made_it(self) -> None:
        found, _ = self.harvested()
        original, m = set(self.original().texts), self.config().data.num_examples
        for text, source, generation in zip(found.kept.texts, found.kept.sources, found.kept.generations, strict=True):
            match Source(source):
                case Source.ORIGINAL:
                    assert Oracle.ORIGINAL_DATA in self.step.needs
                    assert generation == 0
                    assert text in original
                case Source.FRESH:
                    assert Oracle.FRESH_DATA in self.step.needs
                    assert generation == STREAMS.generation
                case Source.SAMPLED:
                    is_now = generation == STREAMS.generation
                    assert is_now or (Oracle.TRAINING_SET in self.step.needs and 0 < generation < STREAMS.generation)
        assert len(found.kept) <= m

    def test_what_is_kept_of_samples_was_drawn(self) -> None:
        found, _ = self.harvested(["( not False )", "( not True )"] * 10)
        sampled = {text for text, s in zip(found.kept.texts, found.kept.sources, strict=True) if s == Source.SAMPLED}
        assert sampled <= {"( not False )", "( not True )"}

    def test_the_same_draws_give_the_same_texts_in_the_same_order(self) -> None:
        assert self.harvested()[0].kept.digest() == self.harvested()[0].kept.digest()

    def test_the_first_m_texts_are_those_of_a_loop_without_curation(self) -> None:
        """Drawing more has a stream of its own; and M_t is not asked otherwise because somebody will choose."""
        original, config = self.original(), self.config()
        without = config.changed(curation={"steps": []})
        curated, plain = (
            compute(one, EditableLearner(0.8), 3, original, Sample.of(original.texts, one.data.testbed), Observer())
            for one in (config, without)
        )
        assert curated.samples.digest() == plain.samples.digest()
        assert plain.curated is None
        assert curated.curated is not None
        measured = {key for key in plain.metrics if not key.endswith(("seconds", "per_second"))}
        assert {key: curated.metrics[key] for key in measured} == {key: plain.metrics[key] for key in measured}

    def test_a_model_that_writes_one_text_only(self) -> None:
        """Right or wrong, it is no error, and no more is drawn than allowed."""
        for text in ("( not False )", LIAR, "( ( (", ""):
            found, _ = self.harvested([text] * 20)
            assert len(found.kept) <= M
            assert found.num_drawn <= 4 * M
            assert set(found.kept.texts) - set(self.original().texts) <= {text} or Oracle.FRESH_DATA in self.step.needs

    def test_an_empty_harvest_is_an_empty_dataset_and_not_padded(self) -> None:
        kept = kept_of(self.step, NOTHING)
        assert not np.count_nonzero(kept.data.sources == Source.SAMPLED)

    def test_what_it_does_not_declare_it_does_not_get(self) -> None:
        original = Sample.of(self.original().texts, self.config().data.testbed)
        everything = self.config().model_copy(
            update={"curation": self.config().curation.model_copy(update={"steps": [Greedy(name="greedy")]})}
        )
        given = _given(everything, STREAMS, EmpiricalModel({"( not False )": 1}, 0.8), self.original(), original)
        own: Given = replace(given.to(self.step, given.rng, pool_of(["( not False )"])))
        asks = {
            Oracle.VERIFIER: lambda: own.verify("( not False )"),
            Oracle.GRAMMAR: lambda: own.is_in_grammar("( not False )"),
            Oracle.ORIGINAL_DATA: lambda: own.original_data,
            Oracle.FRESH_DATA: lambda: own.fresh_data(2),
            Oracle.PREVIOUS_MODEL: lambda: own.previous_model,
            Oracle.ORIGINAL_STATISTICS: lambda: own.original_statistics,
            Oracle.TRAINING_SET: lambda: own.training_set,
        }
        assert asks.keys() == set(Oracle)
        assert own.oracles.keys() == self.step.needs, "nor beside its properties"
        for oracle, ask in asks.items():
            if oracle in self.step.needs:
                assert ask() is not None
            else:
                with pytest.raises(
                    UndeclaredError, match=rf"asks for the {oracle.value}: let it declare needs = .*{oracle.name}"
                ):
                    ask()
        if self.step.uses_sampler or Oracle.PREVIOUS_MODEL in self.step.needs:
            assert own.log_probs_at_1(["( not False )"]).tolist() == [0.0]
        else:
            with pytest.raises(
                UndeclaredError,
                match=f"step {self.step.name} asks for log_probs_at_1: let it declare uses_sampler = True",
            ):
                own.log_probs_at_1(["( not False )"])
        if self.step.uses_sampler and Oracle.PREVIOUS_MODEL not in self.step.needs:
            with pytest.raises(UndeclaredError, match="of texts that M_t did not write: let it declare that it needs"):
                own.log_probs_at_1(["( not False )", LIAR])


class Greedy(CurationStep):
    """Declares everything."""

    needs: ClassVar = frozenset(Oracle)
