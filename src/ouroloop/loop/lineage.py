"""The earlier models of a loop, for a learner that learns from them.

Those that a later generation needs are kept on record, whatever `keep_weights` says, and dropped when none needs them
any more: a resumed loop gives its learner what an undisturbed one would have. A model that is lost all the same is
fitted again to its recorded training set: the same streams and the same earlier models give the same model.
"""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ouroloop.learner.base import Fitted, Learner
from ouroloop.record.run import Run
from ouroloop.record.track import NoSuchRunError
from ouroloop.science.dataset import DatasetError
from ouroloop.science.seeding import Streams


@dataclass
class Lineage:
    learner: Learner
    seed: int
    num_generations: int
    runs: dict[int, Run] = field(default_factory=dict)
    """Runs of the generations so far, without their metrics; none for a learner that uses no earlier models."""
    models: dict[int, Fitted] = field(default_factory=dict)
    """Of the models that the next generation may ask for, those in memory."""
    num_dropped: int = 0
    """How many generations, from the first on, have had their weights dropped from the record by this process."""

    def first(self, number: int) -> int:
        """The earliest model that M_t may learn from; `number` itself where it learns from none."""
        wanted = self.learner.num_previous
        return 1 if wanted is None else max(1, number - wanted)

    def previous(self, number: int) -> list[Fitted]:
        """The earlier models that M_t is given, oldest first.

        Raises:
            DatasetError: one of them is lost, and so is what it was fitted to.
        """
        return [self._model(earlier) for earlier in range(self.first(number), number)]

    def parent_key(self, number: int) -> str:
        """The cache key of M_{t-1}, which covers all models before it; empty where M_t learns from none."""
        return "" if self.first(number) == number else self.runs[number - 1].tag("key") or ""

    def is_needed(self, number: int) -> bool:
        """Whether a later generation of this loop learns from M_t."""
        return number < self.num_generations and self.first(number + 1) <= number

    def enter(self, number: int, run: Run, model: Fitted | None = None) -> None:
        """Note that a generation is on record, and keep its model if it was computed here and is still needed."""
        if self.learner.num_previous != 0:
            self.runs[number] = run.narrowed([])
        if model is not None and self.is_needed(number):
            self.models[number] = model

    def leave(self, number: int) -> None:
        """After this generation, forget the models that no later one learns from, and drop them from the record."""
        end = self.first(number + 1) if number < self.num_generations else number + 1
        self.models = {earlier: model for earlier, model in self.models.items() if earlier >= end}
        if self.learner.num_previous != 0:
            for earlier in range(self.num_dropped + 1, end):
                self.runs[earlier].drop_weights()
            self.num_dropped = end - 1

    def _model(self, number: int) -> Fitted:
        if number not in self.models:
            self.models[number] = self._recorded(number) or self._again(number)
        return self.models[number]

    def _recorded(self, number: int) -> Fitted | None:
        """M_t read from its own run, or from the one that it was copied from; None where neither has it."""
        store, own = self.runs[number].store, self.runs[number].id
        for run_id in filter(None, (own, store.get(own).tag("copied_from"))):
            with TemporaryDirectory() as folder:
                try:
                    store.get(run_id).save_weights(Path(folder))
                    return self.learner.load(Path(folder))
                except (DatasetError, NoSuchRunError):
                    continue
        return None

    def _again(self, number: int) -> Fitted:
        training_set = self.runs[number].read_dataset("training_set.tsv.gz")
        return self.learner.fit(training_set, Streams(self.seed, number), previous=self.previous(number))
