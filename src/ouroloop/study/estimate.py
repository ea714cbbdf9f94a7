"""What a loop or a study will take, in time and on disk, estimated from a few steps that are actually run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ouroloop.config import DataCycle, LoopConfig, flatten
from ouroloop.console import in_words, say
from ouroloop.learner import learner_of, require_runnable
from ouroloop.learner.base import Fitted, Learner
from ouroloop.loop.loop import draw_original, likeness_of, prepared_testbed
from ouroloop.schema import spelled
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.metrics import measure
from ouroloop.science.seeding import Streams
from ouroloop.study.config import StudyConfig
from ouroloop.testbed.base import Sample

_STREAMS = Streams(0, 0)
_STEPS = 20  # that are timed, fewer if one takes long
_BUDGET_SECONDS = 4.0
_EXAMPLES = 1_000  # that are measured, at most
_SAMPLES = 128  # that are drawn at first, from an untrained model

# Measured on 57 generations of `laptop`: rows of MLflow's database, samples.json
_DATABASE_BYTES = 68_000
_TABLE_BYTES = 26_000
_STAGES_KEPT = 5  # the first model of each of four stages and the last, at most


@dataclass(frozen=True)
class Cost:
    """What one generation takes, averaged over a loop, on this machine and with the configuration's threads."""

    train_seconds: float
    sample_seconds: float
    measure_seconds: float
    record_bytes: int
    """Samples, training set and database rows; without the model."""
    model_bytes: int

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.sample_seconds + self.measure_seconds


def cost(config: LoopConfig) -> Cost:
    """Estimate from some optimizer steps, some hundred samples and the measures of D_0, each scaled up.

    Sampling is scaled by tokens, to texts as long as D_0's; a loop that drifts to longer ones takes more.
    """
    m = config.data.num_examples
    testbed = prepared_testbed(config)
    original = draw_original(config, testbed, _EXAMPLES)
    scale = m / len(original)
    growth = (config.num_generations + 1) / 2 if config.cycle.kind is DataCycle.EXPANDING else 1.0
    reference = Sample.of(original.texts, testbed)
    start = perf_counter()
    measure(reference, reference)
    measured = (perf_counter() - start) * (scale**2 if testbed.max_compared is None else scale)  # all pairs: squared
    measured += _likeness_seconds(config, reference)
    steps = config.curation.steps
    measured *= 2 if steps else 1  # S_t, and what is kept of it
    drawn = max([1.0, *(step.num_candidates for step in steps)])  # of each text that is kept, at least

    num_tokens = _num_tokens(config, original.texts) * scale
    compressed = len(original.to_bytes()) * scale
    record_bytes = int(compressed * (1 + growth)) + _TABLE_BYTES + _DATABASE_BYTES
    if config.train is None:
        return Cost(0.0, 0.0, measured, record_bytes, 0)
    fitted = _loaded(config, original)
    train_seconds = _train_seconds(config, original, round(m * growth), fitted)
    seconds_per_token = _seconds_per_token(config, fitted)
    with TemporaryDirectory() as name:
        fitted.save(Path(name))
        model_bytes = sum(file.stat().st_size for file in Path(name).rglob("*"))
    return Cost(train_seconds, seconds_per_token * num_tokens * drawn, measured, record_bytes, model_bytes)


def _likeness_seconds(config: LoopConfig, original: Sample) -> float:
    """Seconds for MAUVE, without those for the real texts, which are read once for a loop."""
    likeness = likeness_of(config, learner_of(config), original.testbed)
    if likeness is None:
        return 0.0
    likeness.of(original)  # reads the real texts, and imports the library
    start = perf_counter()
    likeness.of(original)
    return perf_counter() - start


def _seconds_per_token(config: LoopConfig, fitted: Fitted) -> float:
    """Sampling time per token, from as many texts as there is time for: the more at once, the cheaper each one is."""
    count = min(config.data.num_examples, _SAMPLES)
    while True:
        start, texts = perf_counter(), fitted.sample(count, _STREAMS.numpy("sampling")).texts
        seconds = perf_counter() - start
        more = min(config.data.num_examples, int(count * _BUDGET_SECONDS / seconds))
        if more < 2 * count:
            return seconds / _num_tokens(config, texts)
        count = more


def _num_tokens(config: LoopConfig, texts: Sequence[str]) -> int:
    return sum(len(config.data.testbed.tokens(text)) + 1 for text in texts)


def _briefly(config: LoopConfig, num_steps: int, validate_every: int) -> Learner:
    assert config.train is not None
    tuned = {} if config.train.num_tuning_steps is None else {"num_tuning_steps": num_steps}
    return learner_of(config.changed(train={"num_steps": num_steps, "validate_every": validate_every, **tuned}))


def _loaded(loop: LoopConfig, dataset: Dataset) -> Fitted:
    """A model of one step on the least that the devices can share; libraries are loaded by then."""
    assert loop.train is not None
    devices = loop.train.devices
    least = loop.changed(train={"batch_size": devices})
    few = Dataset.of(dataset.texts[: 2 * devices], Source.ORIGINAL, 0)
    return _briefly(least, 1, 1).prepared(dataset.texts).fit(few, _STREAMS)


def _train_seconds(loop: LoopConfig, dataset: Dataset, num_examples: int, model: Fitted) -> float:
    """Training time per generation, on `num_examples` examples like the dataset's.

    All generations but the first may learn from a model like `model`.
    """
    config, later = loop.train, loop.num_generations - 1
    assert config is not None
    setting_up, steps = _fit_seconds(loop, dataset, num_examples, config.num_steps)
    first = setting_up + steps
    if config.num_previous == 0 or not later:
        return first
    written = Dataset.of(dataset.texts, Source.SAMPLED, 1)  # only what models wrote is taught by models
    taught, steps = _fit_seconds(loop, written, num_examples, config.num_tuning_steps or config.num_steps, [model])
    teaching = max(taught - setting_up, 0.0) * _num_teachers(loop) * num_examples / len(dataset)
    return (first + later * (setting_up + teaching + steps)) / loop.num_generations


def _num_teachers(loop: LoopConfig) -> float:
    """How many models teach a text, on average over the generations that have any to learn from."""
    config, later = loop.train, loop.num_generations - 1
    assert config is not None
    if config.targets != "soft" or config.teaching == "drawn":
        return 1.0
    return sum(min(t, config.num_teachers or t) for t in range(1, later + 1)) / later


def _fit_seconds(
    loop: LoopConfig, dataset: Dataset, num_examples: int, num_steps: int, previous: Sequence[Fitted] = ()
) -> tuple[float, float]:
    """Seconds to set up for the dataset, and those for `num_steps` steps with the validations between them."""
    config = loop.train
    assert config is not None

    def seconds(num_steps: int, validate_every: int) -> float:
        learner = _briefly(loop, num_steps, validate_every).prepared(dataset.texts)
        start = perf_counter()
        learner.fit(dataset, _STREAMS, previous=previous)
        return perf_counter() - start

    seconds(1, 1)  # the first pass over a real batch: what a process does only once is no part of a step
    once = seconds(1, 1)
    timed = max(1, min(_STEPS, int(_BUDGET_SECONDS / once)))
    step = max(seconds(1 + timed, 1 + timed) - once, 0.0) / timed
    validation = max(seconds(2, 1) - once - step, 0.0)
    setting_up = max(once - validation - step, 0.0)
    num_validations = math.ceil(num_steps / config.validate_every)
    scale = config.num_validation_examples(num_examples) / config.num_validation_examples(len(dataset))
    return setting_up, step * num_steps + validation * scale * num_validations


def num_kept(config: LoopConfig) -> int:
    """How many models of a loop stay on record, at most."""
    kept = {"all": config.num_generations, "stages": _STAGES_KEPT, "last": 1, "none": 0}[config.keep_weights]
    return min(kept, config.num_generations)


def loop_totals(config: LoopConfig, of: Cost) -> tuple[float, int]:
    """Seconds and bytes of one loop that shares nothing with others."""
    records = of.record_bytes * config.num_generations
    return of.seconds * config.num_generations, records + of.model_bytes * num_kept(config)


def study_cost(config: StudyConfig, say: Callable[[str], None] = lambda _: None) -> Cost:
    """What one generation takes on average over the loops of a study: timed for one of each kind of loop."""
    kinds: dict[str, list[LoopConfig]] = {}
    for loop in config.examples():
        kinds.setdefault(_kind(loop), []).append(loop)
    costs = []
    for place, alike in enumerate(kinds.values(), 1):
        say(f"timing a few steps of {config.label(alike[0])} ({place} of {len(kinds)})")
        costs.append((len(alike), cost(alike[0])))
    total = sum(count for count, _ in costs)

    def average(part: str) -> float:
        mean: float = sum(count * getattr(of, part) for count, of in costs) / total
        return mean

    return Cost(
        average("train_seconds"),
        average("sample_seconds"),
        average("measure_seconds"),
        round(average("record_bytes")),
        round(average("model_bytes")),
    )


def _kind(loop: LoopConfig) -> str:
    """What the cost of a loop depends on, besides the size of its study's data."""
    candidates = [step.num_candidates for step in loop.curation.steps]
    is_growing = loop.cycle.kind is DataCycle.EXPANDING
    return str((is_growing, loop.model, loop.train, max(candidates, default=0.0)))


def study_totals(config: StudyConfig, of: Cost) -> tuple[float, int]:
    """Seconds of one worker, and bytes, for the most loops that a study runs; M_1 once for loops that begin alike."""
    loops = most_loops(config)
    if config.kind == "grid":
        beginnings = len({str((loop.seed, loop.of_first, loop.curation)) for loop in config.loops()})
    else:
        beginnings = min(loops, len({*product(config.seeds, config.temperatures, config.each_truth_label())}))
    generations = loops * config.loop.num_generations
    seconds = of.seconds * (generations - loops + beginnings)
    return seconds, generations * of.record_bytes + loops * num_kept(config.loop) * of.model_bytes


def most_loops(config: StudyConfig) -> int:
    """How many loops a study needs at most: a bisection of n points asks for no more than ⌈log2(n + 1)⌉.

    A search with several seeds makes two, for the last λ that holds and the first that fails, with most points in
    common. Workers that would otherwise idle may begin further loops, which are not needed in the end.
    """
    match config.kind:
        case "grid":
            return len(config.loops())
        case "pareto":
            return config.pareto.num_trials
    seeds = len(config.seed_batches()[-1])
    points = len(config.search.lattice())
    steps = points.bit_length() if seeds == 1 else min(points, 2 * points.bit_length() - 1)
    return len(config.arms()) * seeds * steps


def plan_table(config: StudyConfig) -> Table:
    """What a study would run: the loops of a grid, or what another kind chooses from."""
    generations = f"loops of {config.loop.num_generations} generations"
    if config.kind == "grid":
        loops = config.loops()
        table = Table("loop", "fingerprint", title=f"{len(loops)} {generations}", title_justify="left")
        for loop in loops:
            table.add_row(Text(config.label(loop)), loop.fingerprint()[:12])
        return table
    points = (config.search if config.kind == "search" else config.pareto).lattice()
    title = f"{config.kind}: needs at most {most_loops(config)} {generations}"
    table = Table("cycle", "T", "λ is one of", "seeds", title=title, title_justify="left")
    for kind, temperature in config.arms():
        shown = f"{len(points)}, {points[0]:g} to {points[-1]:g}"
        table.add_row(kind.value, f"{temperature:g}", shown, ", ".join(map(str, config.seeds)))
    return table


def cost_line(totals: tuple[float, int], of: Cost, workers: int = 1) -> str:
    """The estimate in a sentence; each worker is assumed to have a core for every one of its threads."""
    seconds, size = totals
    shared = f" with {workers} workers" if workers > 1 else ""
    return (
        f"about {in_words(seconds / workers)}{shared} and {size / 1e6:,.0f} MB here: a generation trains "
        f"{of.train_seconds:.1f} s, samples {of.sample_seconds:.1f} s, measures {of.measure_seconds:.1f} s and leaves "
        f"{of.record_bytes / 1e6:.2f} MB, a kept model {of.model_bytes / 1e6:.2f} MB"
    )


def show_loop(config: LoopConfig, console: Console) -> None:
    """Show what would run, and what it would take."""
    learner = require_runnable(config)
    with console.status("timing a few steps"):
        of = cost(config)
    for key, value in flatten(config).items():
        say(console, f"{key} = {spelled(value)}")
    say(console, f"\n{learner.description}")
    say(console, cost_line(loop_totals(config, of), of))


def show_study(config: StudyConfig, console: Console, workers: int) -> None:
    """Show what would run, and what it would take with so many workers."""
    require_runnable(config.loop)
    with console.status("timing a few steps") as status:
        of = study_cost(config, status.update)
    console.print(plan_table(config))
    say(console, cost_line(study_totals(config, of), of, workers))
