"""What a study or a lone loop found, as tables: the page, the pictures and the CSV files show the same ones.

Loops that differ in nothing but the seed form a cell. A mean is over the seeds of a cell, and so is its
95 % interval (science/statistics.py, absent for one seed): it says how another seed would turn out, which the
standard errors of a single loop do not. `end_of` says which loops are in it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

from ouroloop.config import NO_PART, USUAL_TESTBED, ConfigError, DataCycle, LoopConfig, StageConfig, flatten
from ouroloop.record.history import Written, by_metric, history, read_entries, read_written
from ouroloop.record.provenance import recorded_config
from ouroloop.record.run import Run
from ouroloop.record.track import NoSuchRunError, Store
from ouroloop.science.dataset import DatasetError
from ouroloop.science.metrics import ALWAYS, RETENTION, entered, half_life, stages_of
from ouroloop.science.statistics import SHARE, Bounds, Interval, Survival, bounds_of_kept, interval, most_kept, survival
from ouroloop.study.config import StudyConfig
from ouroloop.study.recorded import recorded_studies
from ouroloop.testbed.base import Sample, Testbed, is_share

FIXED_SHARE = 0.99
"""The share from which a loop counts as fixed on a text: a model that writes one for good still slips at times."""

SPANNED = {"seed", "num_generations", "cycle.kind", "cycle.synthetic_proportion", "sampling.temperature"}
"""What may differ between the loops of a study while they are still one experiment; the rest names a cell."""


class FixedText(NamedTuple):
    """A text that is at least 99 % of what a loop's models write, from some generation on to the last."""

    since: int
    said: Mapping[str, Any]
    """What its testbed says of it, such as verdict and depth."""
    text: str

    def as_record(self) -> dict[str, Any]:
        return {"since": self.since, **self.said, "text": self.text}


def all_values(records: list[dict[str, str]]) -> dict[str, str]:
    """Every key with all the values that it has in the records, each once, numbers in their order."""
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: ", ".join(sorted({one[key] for one in records if key in one}, key=_numerically)) for key in keys}


def _numerically(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


@dataclass(frozen=True, repr=False)
class Loop:
    run: Run
    cell: str
    history: Mapping[str, Mapping[int, float]]
    """Metric -> generation -> value."""
    written: Mapping[int, Written]
    """By generation, D_0 under 0; without those whose samples are lost."""
    config: LoopConfig | None
    """None when it was recorded under another schema, or not at all."""
    commits: Sequence[str] = ()
    """Of the software that computed its generations, in their order."""
    label: str = ""
    """What it is called where its run's name is also another loop's; empty for that name."""

    def __repr__(self) -> str:
        return f"<Loop {self.name!r}: {self.reached} generations>"

    @property
    def testbed(self) -> Testbed:
        return self.config.data.testbed if self.config else USUAL_TESTBED

    @cached_property
    def generations(self) -> dict[int, Run]:
        """The runs of its generations, by number and in their order."""
        return self.run.store.generations(self.run.id)

    def generation(self, which: int | str) -> Run | None:
        """The finished run of generation t, or of the one that entered the stage, which is what the registry has."""
        t = self._entered.get(which) if isinstance(which, str) else which
        run = None if t is None else self.generations.get(t)
        return run if run is not None and run.status == "FINISHED" else None

    @cached_property
    def _entered(self) -> dict[str, int]:
        rule = self.config.stages if self.config else StageConfig()
        return entered(stages_of(self.history.get(rule.measure, {}), rule))

    def texts(self, generation: int) -> Sequence[str] | None:
        """S_t, or D_0 for 0; None where it is not on record, or lost."""
        run = self.generation(generation) if generation else self.run
        try:
            return run.read_dataset("samples.tsv.gz" if generation else "original_data.tsv.gz").texts if run else None
        except DatasetError:
            return None

    @property
    def name(self) -> str:
        return self.label or self.run.name

    @property
    def seed(self) -> str:
        return self.run.tag("seed") or ""

    @property
    def proportion(self) -> float | None:
        """λ, from the configuration where the run's tag does not say it."""
        known = self.run.value("synthetic_proportion")
        return self.config.cycle.synthetic_proportion if known is None and self.config else known

    @property
    def problem(self) -> str:
        """What is wrong with the tags of its run, which anybody can edit; empty if nothing is."""
        for key in ("synthetic_proportion", "temperature", "seed"):
            label = self.run.tag(key)
            if label and label != "none" and self.run.value(key) is None:
                return f"its tag ouroloop.{key} is {label[:40]!r}, not a number"
        return ""

    @property
    def state(self) -> str:
        """The state of its run, in words."""
        return "ended early" if self.run.is_pruned else self.run.status.lower()

    @cached_property
    def reached(self) -> int:
        """The last generation that is on record, 0 for D_0 alone."""
        return max(self.history.get(ALWAYS, {0: 0.0}))

    @property
    def half_life(self) -> int | None:
        return half_life(self.history.get(RETENTION, {}))

    @property
    def fixed(self) -> FixedText | None:
        """The one text that is left, but for slips; None while there are several, or if what was written is lost."""
        since, found = self.reached, None
        while since in self.written and since > 0:
            _, share, *said, text = self.written[since].most_frequent[0]
            if share < FIXED_SHARE or (found is not None and text != found.text):
                break
            found = FixedText(since, dict(zip(self.testbed.columns[:-1], said, strict=True)), text)
            since -= 1
        return found


@dataclass(frozen=True)
class Results:
    """What a study or a lone loop found, so far."""

    name: str
    study: Run | None
    loops: list[Loop]
    """In order of cycle, proportion, temperature and seed."""

    @property
    def title(self) -> str:
        """Its name; where that is the id of a loop's run, the name of the loop."""
        lone = self.loops[0] if len(self.loops) == 1 else None
        return lone.name if lone is not None and lone.run.id == self.name else self.name

    @property
    def testbed(self) -> Testbed:
        """That of its loops: a study has one."""
        return next((loop.testbed for loop in self.loops if loop.config), USUAL_TESTBED)

    @cached_property
    def compared(self) -> StudyConfig | None:
        """The configuration of a study that compares methods; None of any other, and where it is not known."""
        return _compared(self.study, self.name)

    @cached_property
    def cells(self) -> dict[str, list[Loop]]:
        """The loops that measured a generation, by what they have in common; of a seed, the one that came furthest."""
        cells: dict[str, dict[str, Loop]] = {}
        for loop in self.loops:
            if loop.reached:
                of_cell, seed = cells.setdefault(loop.cell, {}), loop.seed or loop.run.id
                other = of_cell.get(seed, loop)
                of_cell[seed] = max(other, loop, key=lambda one: (one.reached, one.state == "finished"))
        return {cell: list(of_cell.values()) for cell, of_cell in cells.items()}


class End(NamedTuple):
    """Where a cell is read last."""

    generation: int
    loops: list[Loop]
    """Those that came so far."""


def end_of(loops: Sequence[Loop]) -> End:
    """The last generation reached by all loops of a cell that finished or that a search ended; by all, if none did.

    Every mean, at the end and on the way there, is over the loops that reached this end, and n says how many they are.
    One that stopped or failed before it is in none of them: otherwise a curve would move because a loop stopped, and
    its two ends would not be of the same loops. One that a search ended is never left out: it was ended for what it
    kept, so the mean of the others would be biased. The cell ends where that loop did.
    """
    ended = [loop for loop in loops if loop.run.is_pruned or loop.state == "finished"]
    last = min((loop.reached for loop in ended or loops), default=0)
    return End(last, [loop for loop in loops if loop.reached >= last])


def counted_at(loops: Sequence[Loop], generation: int) -> list[Loop]:
    """The loops of a cell that a mean is over: those that reached its end and, beyond that, came so far.

    None beyond the end of one that a search ended.
    """
    if any(loop.run.is_pruned and loop.reached < generation for loop in loops):
        return []
    return [loop for loop in end_of(loops).loops if loop.reached >= generation]


def bounds_of(key: str) -> Bounds:
    """The bounds of a measure that figures and tables show, except for what is kept."""
    return SHARE if is_share(key) else (0.0, inf)


def most_of(loops: Sequence[Loop]) -> float:
    """`most_kept` of these loops."""
    return most_kept(kept for loop in loops for kept in loop.history.get(RETENTION, {}).values())


def kept_at(loops: Sequence[Loop], generation: int) -> Interval | None:
    """Mean retention of a cell; None where none of the loops that count measured it."""
    counted = counted_at(loops, generation)
    values = [kept[generation] for loop in counted if generation in (kept := loop.history.get(RETENTION, {}))]
    return interval(values, bounds_of_kept(values, most_of(loops))) if values else None


def halving(loops: Sequence[Loop]) -> Survival | None:
    """When half of D_0's diversity is gone, by the loops that measured it; those that did not come so far count too.

    None where a search ended a loop before that: it was ended for what it kept, and not by chance.
    """
    measured = [loop for loop in loops if loop.history.get(RETENTION)]
    if not measured or any(loop.run.is_pruned and loop.half_life is None for loop in measured):
        return None
    return survival([loop.half_life for loop in measured], [loop.reached for loop in measured])


def read_results(store: Store, name: str) -> Results:
    """The newest loop of each configuration of a study or lone preset, or the loop run with this id.

    Raises:
        ConfigError: there is none.
    """
    newest_last = reversed(_named(store, name))
    found = {run.tag("fingerprint") or run.id: run for run in newest_last}
    if not found:
        raise ConfigError(f"no study or loop {name!r}; `ouroloop status` lists the studies, the MLflow UI every run")
    runs = sorted(found.values(), key=in_order)
    studies = store.find(level="study", study=name)
    with ThreadPoolExecutor(8) as pool:  # the time goes into waiting for files, or for a server
        loops = list(pool.map(_read_loop, runs))
    labels = _cell_labels(loops, _compared(studies[0] if studies else None, name))
    names = Counter(loop.run.name for loop in loops)  # they say nothing of most settings, and anybody can edit them
    loops = [
        replace(loop, cell=cell, label=f"{loop.name} ({loop.run.id[:8]})" if names[loop.name] > 1 else "")
        for loop, cell in zip(loops, labels, strict=True)
    ]
    return Results(name, studies[0] if studies else None, loops)


def compares_methods(study: Run | None) -> bool:
    return study is not None and "methods" in study.entity.data.params


def _compared(study: Run | None, name: str) -> StudyConfig | None:
    if not compares_methods(study):
        return None
    try:
        return next((one.config for one in recorded_studies() if one.name == name), None)
    except ConfigError:  # recorded by another version, or another Optuna store's: the loops are there all the same
        return None


def _named(store: Store, name: str) -> list[Run]:
    """The loops of the study of this name, newest first, or the loop run with this id."""
    if loops := store.find(level="loop", study=name):
        return loops
    try:
        run = store.get(name)
    except NoSuchRunError:
        return []
    return [run] if run.is_active and run.tag("level") == "loop" else []


def in_order(run: Run) -> tuple[Any, ...]:
    numbers = (run.value(key) for key in ("synthetic_proportion", "temperature", "seed"))
    return run.tag("cycle") or "", *(-1.0 if number is None else number for number in numbers), run.name


def _cell_labels(loops: Sequence[Loop], study: StudyConfig | None = None) -> list[str]:
    """For each loop: cycle and proportion, and what else tells it from the others.

    Where nothing else tells loops apart, lacking an option counts as a setting too: the ideal learner has none of a
    network's.
    """
    settings = [_settings(loop) for loop in loops]
    keys = sorted({key for own in settings for key in own} - SPANNED)
    differing = {key for key in keys if len({own[key] for own in settings if key in own}) > 1}

    def alike(labels: Sequence[str]) -> dict[str, list[Mapping[str, str]]]:
        found: dict[str, list[Mapping[str, str]]] = {}
        for loop, own, label in zip(loops, settings, labels, strict=True):
            if loop.config is not None:  # otherwise its options are not known
                found.setdefault(label, []).append(own)
        return found

    called = alike(_labels(loops, settings, differing, study)).values()
    lacked = {key for own in called for key in keys if len({key in one for one in own}) > 1}
    labels = _labels(loops, settings, differing | lacked, study)
    # a method's name does not say what else its study spans, nor what the method was before it was changed
    unsaid = {label: [k for k in keys if len({one.get(k) for one in own}) > 1] for label, own in alike(labels).items()}
    return [", ".join([label, *_said(own, unsaid.get(label, ()))]) for label, own in zip(labels, settings, strict=True)]


def _said(own: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    return [f"{key.rpartition('.')[2]} = {own[key]}" for key in sorted(keys) if key in own]


def _labels(
    loops: Sequence[Loop], settings: Sequence[Mapping[str, str]], differing: Collection[str], study: StudyConfig | None
) -> list[str]:
    several_kinds = len({loop.run.tag("cycle") for loop in loops}) > 1
    several_temperatures = len({loop.run.tag("temperature") for loop in loops}) > 1
    labels = []
    for loop, own in zip(loops, settings, strict=True):
        run, kind = loop.run, loop.run.tag("cycle") or ""
        has_proportion = kind in {cycle.value for cycle in DataCycle if cycle.takes_proportion}
        parts = [f"λ = {run.tag('synthetic_proportion')}"] if has_proportion else []
        if several_kinds or not parts:
            parts.insert(0, kind.replace("_", " "))
        if several_temperatures:
            parts.append(f"T = {run.tag('temperature')}")
        # earlier runs have no such tag
        method = run.tag("method") or (study and study.method(run.tag("fingerprint") or ""))
        parts += [method] if method else _said(own, differing)
        labels.append(", ".join(parts))
    return labels


def _settings(loop: Loop) -> dict[str, str]:
    """From its configuration as it is read today: what an earlier version did not record has its default."""
    if loop.config is None:
        return dict(loop.run.entity.data.params)
    settings = flatten(loop.config).items()
    return {key: str(value) for key, value in settings if key.partition(".")[0] not in NO_PART}


def _read_loop(run: Run) -> Loop:
    """The loop of a run, as yet without its cell."""
    config = recorded_config(run)
    entries = read_entries(run)
    if entries is not None:
        commits = list(dict.fromkeys(entry.commit for entry in entries if entry.commit))
        written = {entry.generation: entry.written for entry in entries}
        return Loop(run, "", by_metric(entries), written, config, commits)
    loop = Loop(run, "", history(run), {}, config)
    commits = list(dict.fromkeys(commit for child in loop.generations.values() if (commit := child.tag("commit"))))
    return replace(loop, written=_written(loop), commits=commits)


def _written(loop: Loop) -> dict[int, Written]:
    """What each finished generation wrote, read from its own run."""
    written: dict[int, Written] = {}
    if (original := loop.texts(0)) is not None:
        written[0] = Written.of(Sample.of(original, loop.testbed))
    for t, child in loop.generations.items():
        if t and child.status == "FINISHED" and (found := read_written(child, loop.testbed)) is not None:
            written[t] = found
    return written
