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

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from ouroloop.config import LoopConfig
from ouroloop.cycle import Dataset, DatasetError, Source, needs_fresh_data, next_dataset
from ouroloop.figure import PANEL_KEYS, loop_png
from ouroloop.generation import Generation, Observer, run_generation
from ouroloop.grammar import unique_set
from ouroloop.measure import Sample, as_metrics, measure
from ouroloop.model import save_model
from ouroloop.seeding import stream
from ouroloop.track import Run, Store, cell_tags, create_loop, loop_description, record_origin

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
    existing = [] if new else store.find(level="loop", study=study, fingerprint=config.fingerprint())
    run = existing[0] if existing else create_loop(store, config, name, study, parent)
    finished = {int(g.tag("generation") or 0): g for g in store.find(level="generation", parent=run.id)}
    if run.status == "FINISHED":
        for number in range(1, config.num_generations + 1):
            observer.generation_finished(number, finished[number].metrics, resumed=True)
        return run
    with run.running():
        reference = Sample.of(original.texts)
        record_origin(run, config, original, as_metrics(measure(reference, reference, config.data)))
        dataset, samples = original, list[Dataset]()
        for number in range(1, config.num_generations + 1):
            child = finished.get(number)
            recorded = _recorded_samples(child)
            if child is not None and recorded is not None:
                samples.append(recorded)
                observer.generation_finished(number, child.metrics, resumed=True)
            else:
                samples.append(_generation(config, store, run, child, number, dataset, reference, study, observer))
            dataset = _next(config, number, original, dataset, samples)
        _record_outcome(run, config)
    return run


def _record_outcome(run: Run, config: LoopConfig) -> None:
    """The loop in one picture and one sentence, for whoever browses the runs."""
    history = {key: run.history(key) for key in PANEL_KEYS}
    last = {key: points[-1][1] for key, points in history.items() if points}
    run.log_bytes("curves.png", loop_png(history, config))
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


def _generation(
    config: LoopConfig,
    store: Store,
    loop: Run,
    unfinished: Run | None,
    number: int,
    training_set: Dataset,
    reference: Sample,
    study: str,
    observer: Observer,
) -> Dataset:
    start = perf_counter()
    observer.generation_started(number)
    tags = {"level": "generation", "generation": str(number), **cell_tags(config, study)}
    run = unfinished or store.create(f"gen-{number:02d}", loop, tags)
    with run.running():
        generation = run_generation(config, number, training_set, reference, observer)
        observer.phase_started("record")
        _record(run, config, generation, training_set)
        metrics = as_metrics(generation.measures) | {"generation_seconds": perf_counter() - start}
        again = unfinished is not None
        run.log_series({key: [(number, value)] for key, value in metrics.items()}, skip_existing=again)
        loop.log_series({key: [(number, value)] for key, value in metrics.items()}, skip_existing=again)
        if generation.stage is not None:
            run.log_tags(stage=generation.stage.value)
    observer.generation_finished(number, metrics, resumed=False)
    return generation.samples


def _record(run: Run, config: LoopConfig, generation: Generation, training_set: Dataset) -> None:
    number = generation.number
    run.log_bytes("samples.tsv.gz", generation.samples.to_bytes())
    run.log_samples(generation.sample)
    run.log_dataset(f"D_{number - 1:02d}", training_set)
    with TemporaryDirectory() as folder:
        save_model(generation.model, Path(folder), config.sampling)
        run.log_model(f"M_{number:02d}", Path(folder), number, tags={"generation": str(number)})
    curves = {
        "train_loss_nats_per_token": _thinned(generation.training.train_losses),
        "validation_loss_nats": generation.training.validation_losses,
    }
    run.log_series(curves, skip_existing=True)


def _thinned(losses: list[float]) -> list[tuple[int, float]]:
    """(last optimizer step, mean) of at most `_CURVE_POINTS` stretches of equal length."""
    width = -(-len(losses) // _CURVE_POINTS)
    stretches = [(start, losses[start : start + width]) for start in range(0, len(losses), width)]
    return [(start + len(stretch), sum(stretch) / len(stretch)) for start, stretch in stretches]
