"""The self-consuming loop, tracked and resumable.

     testbed ── D_0, and fresh data F_t ──┐
                                          v
     S_1 .. S_t ───────────────────────> cycle ── D_t ──> train ──> sample ──> measure ──> track
         ^                                        t+1      M_t        S_t                    │
         └────────────────────────────────────────────────────────────┘         one run per generation

Every random draw comes from a stream named by its purpose and generation, so a generation depends on
its inputs only. To resume therefore means to walk the loop again and take S_t from the record where it
is there and intact; the datasets in between are put together again, which costs no training.
"""

import ctypes
import gc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from ouroloop.config import ConfigError, DataCycle, LoopConfig
from ouroloop.learner import learner_of, reader_of
from ouroloop.learner.base import Learner
from ouroloop.loop import cache
from ouroloop.loop.generation import CURVES, Generation, compute, description, prompts
from ouroloop.loop.harvest import NothingKeptError
from ouroloop.loop.lineage import Lineage
from ouroloop.loop.observer import Observer
from ouroloop.record.history import Writer, Written, read_written
from ouroloop.record.liveness import running
from ouroloop.record.provenance import create_loop, loop_description, loop_tags, record_origin
from ouroloop.record.run import Run, dataset_table, sample_tables, table_files
from ouroloop.record.track import Store
from ouroloop.science.cycle import needs_fresh_data, next_dataset, num_fresh
from ouroloop.science.dataset import Dataset, DatasetError, Source
from ouroloop.science.divergence import of_original
from ouroloop.science.likeness import Likeness
from ouroloop.science.metrics import RETENTION, as_metrics, control, may_enter, measure, stage_basis, stage_of
from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Estimate, Sample, Testbed


def run_loop(
    config: LoopConfig,
    store: Store,
    *,
    name: str,
    study: str,
    parent: Run | None = None,
    new: bool = False,
    observer: Observer | None = None,
) -> Run:
    """Run the generations of the loop, or those that are missing, and return the finished loop run.

    A loop of the same configuration in the same study is taken up where it stopped, or returned if it is
    complete; `new` starts another one. If the process is killed, nothing of a finished generation is lost.

    Raises:
        ConfigError: the learner cannot be made or cannot learn these texts, the testbed has not enough to give, or its
            corpus is not what it was when the loop began.
        NothingKeptError: curation left nothing to learn from.
        DatasetError: an earlier model that is learnt from is lost, and so is its training set.
    """
    observer, config = observer or Observer(), config.pinned()
    observer.loop_started(config, name)
    testbed = prepared_testbed(config)
    alike = [] if new else store.find(level="loop", study=study, fingerprint=config.fingerprint())
    existing = alike[0] if alike else None
    if existing and (existing.tag("corpus_digest") or "") != testbed.digest:
        raise ConfigError(f"the corpus is not what it was when {name} began; `run --new` starts over with the new one")
    if existing and existing.status == "FINISHED":
        recorded = store.generations(existing.id)
        if recorded.keys() >= set(range(1, config.num_generations + 1)):
            _show_complete(recorded, observer)
            return existing
    learner = learner_of(config)  # imports torch here, so that no generation is charged with it
    if existing:
        observer.run_taken(existing, learner.device)  # before looking at what is done: nobody else writes from here on
    recorded = store.generations(existing.id) if existing else {}
    original = draw_original(config, testbed)
    learner = learner.prepared(original.texts)
    likeness = likeness_of(config, learner, testbed)
    with running(lambda: existing or create_loop(store, config, name, study, parent, testbed.digest)) as run:
        observer.run_taken(run, learner.device)
        reference = Sample.of(original.texts, testbed)
        measures = as_metrics(_measure_original(config, reference, likeness)) | _lost(learner, original, observer)
        record_origin(run, config, learner.device, original, measures, prompts(config, testbed))
        with Writer.open() as history:
            history.add(0, measures, Written.of(reference))
            loop = _Loop(config, learner, study, run, reference, likeness, observer, history, new)
            is_frozen = gc.get_freeze_count() > 0
            gc.collect(1)  # or cycles that nobody needs any more are frozen too, and not looked at again
            gc.freeze()  # the libraries' half a million objects: collecting a generation's few takes 1 ms then, not 450
            try:
                loop.walk(original, recorded)
            finally:
                if not is_frozen:
                    gc.unfreeze()
            history.log(run)
        _describe_outcome(run, config)
    return run


def _show_complete(recorded: dict[int, Run], observer: Observer) -> None:
    observer.loop_is_complete()
    for number, generation in recorded.items():
        observer.generation_finished(number, generation.metrics, "on record")


def prepared_testbed(config: LoopConfig) -> Testbed:
    """The testbed, ready to give what the loop will ask for.

    Raises:
        ConfigError: it does not have that much.
    """
    m = config.data.num_examples
    fresh = num_fresh(config.cycle, m) * (config.num_generations - 1)
    return config.data.testbed.prepared(config.seed, m, fresh, m if config.sampling.prompt_tokens else 0)


def draw_original(config: LoopConfig, testbed: Testbed | None = None, at_most: int | None = None) -> Dataset:
    """D_0, or at most `at_most` examples of its kind: the same for every cycle, proportion and temperature of a seed.

    `testbed` is the prepared one, if there is one already: preparing it may mean reading a corpus.
    """
    count = config.data.num_examples if at_most is None else min(at_most, config.data.num_examples)
    texts = (testbed or prepared_testbed(config)).original(count, stream(config.seed, "data", 0))
    return Dataset.of(texts, Source.ORIGINAL, 0)


def likeness_of(config: LoopConfig, learner: Learner, testbed: Testbed) -> Likeness | None:
    """MAUVE, where it is asked for, on as many texts as both a half of D_0 and the held-out text have."""
    reader = reader_of(config, learner)
    if reader is None:
        return None
    return Likeness(reader, testbed.held_out, min(len(testbed.held_out), config.data.num_examples // 2))


def _measure_original(config: LoopConfig, reference: Sample, likeness: Likeness | None) -> dict[str, Estimate]:
    true, measures = reference.testbed.distribution, measure(reference, reference)
    if likeness is not None:
        measures |= likeness.of(reference) | likeness.control(reference)
    return measures | (control(reference) if true is None else of_original(true, config.data.num_examples))


def _lost(learner: Learner, original: Dataset, observer: Observer) -> dict[str, float]:
    """How many texts of D_0 the learner's own tokens change; absent where it has no tokens of its own."""
    count = learner.num_lost(original.texts)
    if count:
        observer.texts_lost(count, len(original))
    return {} if count is None else {"num_lost": float(count)}


def _describe_outcome(run: Run, config: LoopConfig) -> None:
    """The loop in one sentence, for whoever browses the runs."""
    last = run.store.get(run.id).metrics
    parts = [f"{last[RETENTION]:.1%} of D_0's diversity is left"] if RETENTION in last else []
    parts += [f"{last[key]:.1%} of the samples are {word}" for word, key in config.data.testbed.composition.items()]
    parts.append(f"{last['num_unique']:,.0f} are distinct")
    after = f"{config.num_generations} generation{'s' * (config.num_generations > 1)}"
    headline = f"**After {after} {', '.join(parts)}.**"
    run.describe(f"{headline}\n\n{loop_description(config)}")


@dataclass
class _Loop:
    """What every generation of a loop needs, and the stages that it has been through."""

    config: LoopConfig
    learner: Learner
    study: str
    run: Run
    reference: Sample
    """D_0."""
    likeness: Likeness | None
    observer: Observer
    history: Writer
    new: bool
    """Whether everything is computed here, even if it is on record."""
    stages: list[str | None] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)
    """The metrics of generation 1."""
    lineage: Lineage = field(init=False)
    reached: int = field(init=False)
    """The last generation on the loop's record when it was taken up."""
    num_copied: int = field(init=False)
    """How many generations on its record were copied rather than computed."""

    def __post_init__(self) -> None:
        self.reached, self.num_copied = self.run.reached, int(self.run.value("copied") or 0)
        self.lineage = Lineage(self.learner, self.config.seed, self.config.num_generations)

    def walk(self, original: Dataset, recorded: dict[int, Run]) -> None:
        dataset, samples = original, list[Dataset]()
        for number in range(1, self.config.num_generations + 1):
            child = recorded.get(number)
            written = self._recorded_samples(child)
            if child is not None and written is not None:
                self.stages.append(child.tag("stage"))
                self.first = self.first or child.metrics
                self._remember(number, child)
                self.lineage.enter(number, child)
                self.observer.generation_finished(number, child.metrics, "on record")
            else:
                written = self.generation(number, dataset, recorded=child)
            samples.append(written)
            if number == self.config.num_generations:
                self.lineage.leave(number)  # again, if it is on record: its process may have died before this
                return
            dataset = self._next(number, original, dataset, samples)
            if self.config.cycle.kind is not DataCycle.BALANCED:  # the only cycle that uses earlier samples
                del samples[:-1]

    def _recorded_samples(self, run: Run | None) -> Dataset | None:
        """What a finished generation leaves of S_t to learn from; None when it has to be computed (again)."""
        if run is None or run.status != "FINISHED":
            return None
        try:
            samples = run.read_dataset("samples.tsv.gz")
            return run.read_dataset("curated.tsv.gz") if self.config.curation.steps else samples
        except DatasetError:
            return None

    def _next(self, number: int, original: Dataset, previous: Dataset, samples: list[Dataset]) -> Dataset:
        config, fresh = self.config, None
        if needs_fresh_data(config.cycle, len(original)):
            rng, testbed, m = stream(config.seed, "fresh", number), self.reference.testbed, config.data.num_examples
            texts = testbed.fresh(num_fresh(config.cycle, m) if testbed.is_finite else m, number, rng)
            fresh = Dataset.of(texts, Source.FRESH, number)
        rng = stream(config.seed, "cycle", number)
        mixed = next_dataset(config.cycle, original=original, previous=previous, samples=samples, fresh=fresh, rng=rng)
        if len(mixed) < 2:
            raise NothingKeptError(
                f"D_{number} has {len(mixed)} examples: curation ({config.curation.label}) left nothing to learn from"
            )
        return mixed

    def generation(self, number: int, training_set: Dataset, recorded: Run | None) -> Dataset:
        """What there is of S_t to learn from, with everything about M_t on record.

        `recorded` is its run that was cut off, or that has lost its samples.
        """
        self.observer.generation_started(number)
        corpus, parent = self.reference.testbed.digest, self.lineage.parent_key(number)
        key = cache.key(self.config, self.learner.device, training_set, number, corpus, parent)
        own = {"level": "generation", "generation": str(number), "key": key}
        tags = own | loop_tags(self.config, self.study)

        def take() -> Run:
            if recorded is not None:
                has_ended = recorded.status == "FINISHED" or recorded.model_id is not None
                # The duration that MLflow shows is since a run began, however long nobody was at it: hence a new one,
                # but not in place of one whose model somebody may have registered
                if has_ended or not recorded.discard():
                    return recorded
            return self.run.store.create(f"gen-{number:02d}", self.run, tags)

        with cache.holding(key):
            with running(take) as run, TemporaryDirectory() as aside:
                start = perf_counter()
                made = self._copied(key, number, run, Path(aside)) or self._computed(number, training_set)
                self.observer.phase_started("record")
                metrics = {"generation_seconds": perf_counter() - start, **made.metrics}  # a copy keeps the original's
                self._record(number, run, training_set, made, metrics)
            if not made.source:
                cache.enter(key, run)
        self.lineage.enter(number, run, made.model)
        self.lineage.leave(number)
        self.stages.append(self._stage(metrics))
        self.first = self.first or metrics
        _return_memory()
        self.observer.generation_finished(number, metrics, made.source and f"copied from {made.source}")
        return made.samples if made.curated is None else made.curated

    def _copied(self, key: str, number: int, run: Run, folder: Path) -> Generation | None:
        if self.new:
            return None
        found = cache.find(run.store, key, run, lambda metrics: self._keeps(number, metrics), folder)
        if found is not None and "ran_short" in found.tags:
            self.observer.ran_short(number, found.tags["ran_short"])
        return found

    def _computed(self, number: int, training_set: Dataset) -> Generation:
        previous = self.lineage.previous(number)
        real, likeness = self.reference, self.likeness
        return compute(self.config, self.learner, number, training_set, real, self.observer, previous, likeness)

    def _stage(self, metrics: dict[str, float]) -> str | None:
        """The stage of collapse; None without a basis: D_0 has no diversity, or there is no true distribution."""
        kept = stage_basis(self.config.stages.measure, metrics, self.first or metrics)
        return None if kept is None else str(stage_of(kept, self.config.stages))

    def _keeps(self, number: int, metrics: dict[str, float]) -> bool:
        is_kept = keeps_weights(self.config, number, self._stage(metrics), self.stages)
        return self.learner.is_registrable and is_kept

    def _record(
        self, number: int, run: Run, training_set: Dataset, made: Generation, metrics: dict[str, float]
    ) -> None:
        """Record a generation in few writes, each of many things: MLflow takes some 10 ms for any one of them."""
        sample = made.sample or Sample.of(made.samples.texts, self.reference.testbed)
        tables = {**dataset_table(training_set), **sample_tables(sample)}
        sets = {"training_set.tsv.gz": training_set.to_bytes(), "samples.tsv.gz": made.samples.to_bytes()}
        sets |= {} if made.curated is None else {"curated.tsv.gz": made.curated.to_bytes()}
        run.log_files(sets | table_files(tables))
        run.log_input(f"D_{number - 1:02d}", training_set)
        if made.save is not None and self._keeps(number, metrics):
            with TemporaryDirectory() as folder:
                made.save(Path(folder))
                run.log_model(f"M_{number:02d}", Path(folder), number)
        elif made.model is not None and self.lineage.is_needed(number):
            run.log_weights(made.model.save)
        stage, note = self._stage(metrics), description(number, made, sample, training_set)
        points = {key: [(number, value)] for key, value in metrics.items()}
        tags = {**made.tags, **({} if stage is None else {"stage": stage})}
        is_taken_up = bool(run.metrics)  # when it was read; a new run has none
        run.log_series({**made.curves, **points}, is_taken_up, note, tables, **tags)
        self.num_copied += bool(made.source)
        copied = {"copied": str(self.num_copied)} if made.source else {}
        self.run.log_series(points, number <= self.reached, **copied)
        self.history.add(number, metrics, Written.of(sample), made.tags["commit"])

    def _remember(self, number: int, child: Run) -> None:
        """Put into the history what another attempt has recorded."""
        metrics = {key: value for key, value in child.metrics.items() if key not in CURVES}
        written = read_written(child, self.reference.testbed)
        assert written is not None  # its samples have just been read
        self.history.add(number, metrics, written, child.tag("commit") or "")


def keeps_weights(config: LoopConfig, number: int, stage: str | None, earlier: Sequence[str | None]) -> bool:
    """Whether M_t is kept: `stages` keeps the model that enters a collapse stage, or may, and the last one."""
    match config.keep_weights:
        case "all":
            return True
        case "none":
            return False
        case "last":
            return number == config.num_generations
    return number == config.num_generations or may_enter([*earlier, stage])


def _return_memory() -> None:
    """Free what a generation leaves in reference cycles, such as Lightning's Trainer, and return its peak memory to the
    system, which glibc would keep as holes in its heap.
    """
    gc.collect()
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
