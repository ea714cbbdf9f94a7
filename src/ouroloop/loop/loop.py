"""The self-consuming loop, tracked and resumable.

     grammar ── D_0, and fresh data F_t ──┐
                                          v
     S_1 .. S_t ───────────────────────> cycle ── D_t ──> train ──> sample ──> measure ──> track
         ^                                        t+1      M_t        S_t                    │
         └────────────────────────────────────────────────────────────┘         one run per generation

Every random draw comes from a stream named by its purpose and generation, so a generation depends on
its inputs only. To resume is therefore to walk the loop again and to take S_t from the record where it
is there and intact: the datasets in between are put together anew, which costs no training.
"""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.loop.cache import CURVES, GenerationRecord, finished_generations, read_record
from ouroloop.loop.generation import Assessment, Observer, Product, assess, load_libraries, produce
from ouroloop.record.liveness import running
from ouroloop.record.provenance import cell_tags, code, commit, create_loop, loop_description, record_origin
from ouroloop.record.track import Run, Store, short_digest
from ouroloop.science.cycle import Dataset, DatasetError, Source, needs_fresh_data, next_dataset
from ouroloop.science.divergence import of_unique_set
from ouroloop.science.metrics import Sample, as_metrics, measure
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.distribution import Law
from ouroloop.testbed.logic.grammar import unique_set

_CURVE_POINTS = 100  # a training curve is thinned to this many means


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
    """Runs generations 1..T of the loop, or what is missing of them, and returns the finished loop run.

    A loop of equal configuration in the same study is taken up where it stopped, or returned when it is
    complete; `new` starts another one. Killed in between, nothing of a finished generation is lost.
    """
    observer = observer or Observer()
    observer.loop_started(config, name)
    original = draw_original(config)
    alike = [] if new else store.find(level="loop", study=study, fingerprint=config.fingerprint())
    existing = alike[0] if alike else None
    found = store.find(level="generation", parent=existing.id) if existing else []
    finished = {int(generation.tag("generation") or 0): generation for generation in found}
    numbers = range(1, config.num_generations + 1)
    if existing and existing.status == "FINISHED" and finished.keys() >= set(numbers):
        for number in numbers:
            observer.generation_finished(number, finished[number].metrics, resumed=True)
        return existing
    with running(lambda: existing or create_loop(store, config, name, study, parent)) as run:
        observer.run_taken(run)
        load_libraries(config)
        reference = Sample.of(original.texts)
        measures = measure(reference, reference, config.data)
        measures |= of_unique_set(Law.of(config.data), config.data.num_examples)
        record_origin(run, config, original, as_metrics(measures))
        twins = {} if new else finished_generations(store, config, run)
        loop = _Loop(config, study, run, reference, observer, recompute=new, twins=twins, reached=run.reached)
        dataset, samples = original, list[Dataset]()
        for number in numbers:
            child = finished.get(number)
            recorded = _recorded_samples(child)
            if child is not None and recorded is not None:
                samples.append(recorded)
                loop.stages.append(child.tag("stage"))
                observer.generation_finished(number, child.metrics, resumed=True)
            else:
                samples.append(loop.generation(number, dataset, unfinished=child))
            dataset = _next(config, number, original, dataset, samples)
            if config.cycle.kind is not DataCycle.BALANCED:  # the only one that goes back to earlier samples
                del samples[:-1]
        _record_outcome(run, config)
    return run


def _return_memory() -> None:
    """Gives the freed peaks of a generation back to the system, where glibc would keep them as holes in its heap."""
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _record_outcome(run: Run, config: LoopConfig) -> None:
    """The loop in one sentence, for whoever browses the runs."""
    last = run.store.get(run.id).metrics
    parts = [f"{last['diversity_retention']:.1%} of D_0's diversity is left"] if "diversity_retention" in last else []
    parts += [
        f"{last['correctness']:.1%} of the samples are True",
        f"{last['error_rate']:.1%} are malformed",
        f"{last['num_unique']:,.0f} are distinct",
    ]
    headline = f"**After {config.num_generations} generations {', '.join(parts)}.**"
    run.describe(f"{headline}\n\n{loop_description(config)}")


def draw_original(config: LoopConfig) -> Dataset:
    """D_0: the same for every cycle, proportion and temperature of one seed."""
    return _from_grammar(config, "data", 0, Source.ORIGINAL)


def _from_grammar(config: LoopConfig, name: str, generation: int, source: Source) -> Dataset:
    data = config.data
    texts = unique_set(
        data.num_examples,
        stream(config.seed, name, generation),
        min_depth=data.min_depth,
        max_depth=data.max_depth,
        initialisation=data.initialisation,
    )
    return Dataset.of(texts, source, generation)


def _next(config: LoopConfig, number: int, original: Dataset, previous: Dataset, samples: list[Dataset]) -> Dataset:
    fresh = None
    if needs_fresh_data(config.cycle, len(original)):
        fresh = _from_grammar(config, "fresh", number, Source.FRESH)
    rng = stream(config.seed, "cycle", number)
    return next_dataset(config.cycle, original=original, previous=previous, samples=samples, fresh=fresh, rng=rng)


def _recorded_samples(run: Run | None) -> Dataset | None:
    """S_t of a finished generation; None when the generation has to be computed (again)."""
    if run is None or run.status != "FINISHED":
        return None
    try:
        return run.read_dataset("samples.tsv.gz")
    except DatasetError:
        return None


@dataclass
class _Loop:
    """What every generation of a loop needs, and the stages that it has been through."""

    config: LoopConfig
    study: str
    run: Run
    reference: Sample
    """D_0."""
    observer: Observer
    recompute: bool
    """Whether everything is computed here, even if another loop began alike."""
    twins: dict[int, Run]
    """Generations that another loop has computed already."""
    reached: int
    """The last generation on the loop's record when it was taken up."""
    stages: list[str | None] = field(default_factory=list)

    def generation(self, number: int, training_set: Dataset, unfinished: Run | None) -> Dataset:
        """S_t, with everything about M_t and S_t in the record; a run that was begun is taken up."""
        start = perf_counter()
        self.observer.generation_started(number)
        tags = {"level": "generation", "generation": str(number), **cell_tags(self.config, self.study)}

        def take() -> Run:
            return unfinished or self.run.store.create(f"gen-{number:02d}", self.run, tags)

        with running(take) as run, TemporaryDirectory() as name:
            folder = Path(name)
            run.log_dataset(f"D_{number - 1:02d}", training_set)
            record = self._copied(number, training_set, folder) or self._computed(number, training_set, folder)
            self.observer.phase_started("record")
            run.log_bytes("samples.tsv.gz", record.samples.to_bytes())
            run.log_samples(record.sample)
            if record.model is not None:
                run.log_model(f"M_{number:02d}", record.model, number, tags={"generation": str(number)})
            stage = {} if record.stage is None else {"stage": record.stage}
            seconds = perf_counter() - start + record.seconds_elsewhere
            metrics = {"generation_seconds": seconds, **record.measures}  # a copy brings the seconds of its original
            measures = {key: [(number, value)] for key, value in metrics.items()}
            is_resumed = unfinished is not None
            run.log_series({**record.curves, **measures}, is_resumed, record.note, **stage, **record.tags)
            self.run.log_series(measures, is_resumed or number <= self.reached)
        self.stages.append(record.stage)
        _return_memory()
        self.observer.generation_finished(number, metrics, resumed="copied_from" in record.tags)
        return record.samples

    def _copied(self, number: int, training_set: Dataset, folder: Path) -> GenerationRecord | None:
        """From another loop; None when there is none of this training set, or without weights that are wanted here."""
        twin = self.twins.get(number)
        if twin is None or twin.training_set_digest != short_digest(training_set):
            return None
        wants_weights = keeps_weights(self.config, number, twin.tag("stage"), self.stages)
        try:
            return read_record(twin, folder if wants_weights else None)
        except DatasetError:  # damaged, or without its weights: it can be computed again
            return None

    def _computed(self, number: int, training_set: Dataset, folder: Path) -> GenerationRecord:
        product, seconds_elsewhere = self._product(number, training_set)
        assessment = assess(self.config, number, product, training_set, self.reference, self.observer)
        model = None
        if product.model is not None and keeps_weights(self.config, number, assessment.stage, self.stages):
            from ouroloop.learner.network.model import save_model

            model = folder
            save_model(product.model, model, self.config.sampling)
        curves = {}
        if product.training is not None:
            losses = (_thinned(product.training.train_losses), product.training.validation_losses)
            curves = dict(zip(CURVES, losses, strict=True))
        return GenerationRecord(
            Dataset.of(product.texts, Source.SAMPLED, number),
            assessment.sample,
            assessment.stage,
            curves,
            as_metrics(assessment.measures),
            _generation_headline(number, assessment, training_set),
            {"commit": commit(), "code": code()},
            model,
            seconds_elsewhere,
        )

    def _product(self, number: int, training_set: Dataset) -> tuple[Product, float]:
        """M_t and S_t, and, if another loop computed them, how many seconds more it took than they took here."""

        def compute() -> Product:
            return produce(self.config, number, training_set, self.observer)

        if number > 1 or self.recompute or self.config.model.kind == "empirical":
            return compute(), 0.0
        from ouroloop.loop.cache import first_generation

        start = perf_counter()
        product, is_reused = first_generation(self.config, training_set, compute)
        waited = perf_counter() - start  # for whoever was computing it: counted in its seconds already
        return product, sum(product.seconds.values()) - waited if is_reused else 0.0


def _generation_headline(number: int, assessment: Assessment, training_set: Dataset) -> str:
    rates = {key: f"{assessment.measures[key].value:.1%}" for key in ("correctness", "error_rate")}
    kept = assessment.measures.get("diversity_retention")
    stage = "" if kept is None else f"; {kept.value:.1%} of D_0's diversity is left (**{assessment.stage}**)"
    return (
        f"Of {assessment.sample.size:,} texts {rates['correctness']} are True, {rates['error_rate']} malformed{stage}."
        f"\n\nM_{number} was trained on D_{number - 1}: {len(training_set):,} examples, "
        f"{training_set.synthetic_share:.1%} of them written by models. `samples.json` shows what it writes."
    )


def keeps_weights(config: LoopConfig, number: int, stage: str | None, earlier: Sequence[str | None]) -> bool:
    """Whether M_t is kept: `stages` keeps the first model of each collapse stage, and the last one."""
    match config.keep_weights:
        case "all":
            return True
        case "none":
            return False
        case "last":
            return number == config.num_generations
    return number == config.num_generations or (stage is not None and stage not in earlier)


def _thinned(losses: list[float]) -> list[tuple[int, float]]:
    """(last optimizer step, mean) of at most `_CURVE_POINTS` stretches of equal length."""
    width = -(-len(losses) // _CURVE_POINTS)
    stretches = [(start, losses[start : start + width]) for start in range(0, len(losses), width)]
    return [(start + len(stretch), sum(stretch) / len(stretch)) for start, stretch in stretches]
