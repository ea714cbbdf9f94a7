"""Every method of the board, whether it curates, samples or learns otherwise, as a loop of a tiny network."""

import numpy as np
import pytest

from ouroloop.config import LoopConfig
from ouroloop.learner import learner_of
from ouroloop.loop.loop import draw_original
from ouroloop.presets import load_preset
from ouroloop.record.liveness import Interrupted
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams
from ouroloop.study.config import StudyConfig, knowledge
from tests.conftest import TINY
from tests.loop.loops import StopAfter, forget, generations, loop, outcome, sampled

METHODS = load_preset("leaderboard", [], StudyConfig).methods
STUDY = StudyConfig.model_validate(
    {
        "cycles": ["full_synthetic"],
        "seeds": [5],
        "loop": {key: value for key, value in TINY.items() if key != "seed"},
        "methods": {name: method.model_dump() for name, method in METHODS.items()},
    }
)
PLAIN = STUDY.plain_loops[0]


OFTEN = {
    "verified and unique", "importance weights", "accumulate-subsample", "tail buffer 10", "token editing",
    "drawn ancestors", "ensemble of 4",
}  # fmt: skip
"""One of each kind. All of them take minutes."""


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.heavy if name in OFTEN else pytest.mark.slow) for name in METHODS]
)
def method(request: pytest.FixtureRequest) -> LoopConfig:
    found = STUDY.applied(request.param, PLAIN)
    assert found is not None
    steps = 100 if found.curation.steps else 12  # or too little would be right for a filter to leave two
    return found.changed(train={"num_steps": steps, "validate_every": steps // 4})


class TestEveryMethod:
    @pytest.mark.usefixtures("root")
    def test_sizes_provenance_and_the_same_after_a_stop_in_the_middle(self, method: LoopConfig) -> None:
        undisturbed = loop(method, study="undisturbed")
        forget()
        with pytest.raises(Interrupted):
            loop(method, study="disturbed", observer=StopAfter(2, "record"))
        again = loop(method, study="disturbed")
        assert outcome(again) == outcome(undisturbed)
        assert sampled(again) == sampled(undisturbed)
        m, original, written = method.data.num_examples, set(draw_original(method).texts), dict[int, set[str]]()
        keeps_original = knowledge(method, PLAIN) == "D_0 kept"
        for t, run in enumerate(generations(undisturbed), 1):
            learnt = run.read_dataset("training_set.tsv.gz")
            assert 2 <= len(learnt) <= m
            samples = run.read_dataset("samples.tsv.gz")
            assert len(samples) == m
            kept = run.read_dataset("curated.tsv.gz") if method.curation.steps else samples
            written[t] = {*samples.texts, *kept.texts}
            for text, source, made in zip(learnt.texts, learnt.sources, learnt.generations, strict=True):
                assert text in (original if source == Source.ORIGINAL else written[made])
                assert made == 0 if source == Source.ORIGINAL else 1 <= made < t
                assert made == t - 1 or keeps_original, "nothing of before the last generation"

    def test_a_model_that_writes_one_text_only_is_learnt_from(self, method: LoopConfig) -> None:
        """Twice: what learns from earlier models is given those."""
        learner, previous = learner_of(method), []
        for t in (1, 2):
            source = Source.ORIGINAL if t == 1 else Source.SAMPLED
            only = Dataset.of(["( not True )"] * 20, source, t - 1)
            wanted = learner.num_previous
            earlier = previous if wanted is None else previous[len(previous) - min(wanted, len(previous)) :]
            fitted = learner.fit(only, Streams(5, t), previous=earlier)
            drawn = fitted.sample(20, np.random.default_rng(t))
            assert len(drawn.texts) == 20
            assert np.isfinite(drawn.log_probs).all()
            previous.append(fitted)
