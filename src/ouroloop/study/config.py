"""What a study *is*: which loops it spans, or chooses from, and what it looks for. The schema is like a loop's.

Each method that is compared says what it changes in a loop; what it may know is derived from what that declares.
"""

from collections.abc import Collection, Container, Iterable, Sequence
from functools import cached_property
from itertools import count, islice, product
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from ouroloop.config import (
    CycleConfig,
    DataCycle,
    LogicData,
    LoopConfig,
    Number,
    Oracle,
    Proportion,
    Section,
    Seed,
    Temperature,
    Whole,
    flatten,
    with_new_names,
)
from ouroloop.science.cycle import needs_fresh_data, num_fresh, num_synthetic
from ouroloop.study.method import MethodConfig, MethodError, MethodName, needs_network
from ouroloop.testbed.logic.grammar import TruthLabel

_CHANGEABLE = ("methods", "synthetic_proportions", "truth_labels", "seeds", "description", "keep_weights", "resources",
               "search.precision", "search.max_seeds", "pareto.num_trials")  # fmt: skip

Proportions = Annotated[
    Annotated[list[Proportion], Tag("all")] | Annotated[dict[DataCycle, list[Proportion]], Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, dict) else "all"),
]


class ProportionRange(Section):
    """The synthetic proportions that a study may choose: from `lowest` up, in steps of `precision`."""

    lowest: Proportion = 0.0
    """The least λ that is tried. Unit: share."""
    highest: Proportion = 1.0
    """The greatest λ that is tried. Unit: share."""
    precision: Number = Field(default=0.0625, gt=0, le=1)
    """The step from one λ that can be tried to the next. Unit: share."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest:g} must be below highest {self.highest:g}")
        return self

    def lattice(self) -> list[float]:
        steps = int((self.highest - self.lowest) / self.precision + 1e-6)
        return [round(self.lowest + step * self.precision, 9) for step in range(steps + 1)]


class SearchConfig(ProportionRange):
    """What is looked for: the largest λ at which the seeds' mean retention is still at least a target."""

    target_retention: Number = Field(default=0.5, gt=0, le=1)
    """What the mean over the seeds has to keep at the last generation. Unit: share of D_0's diversity."""
    max_rise: Number | None = Field(default=None, ge=0)
    """The most by which retention is assumed to rise from any generation to the last. A loop that can then no longer
    change the outcome ends early. Without it, only bounds that hold for certain end a loop early. Unit: share of D_0's
    diversity."""
    max_seeds: Whole | None = Field(default=None, ge=1, le=1_000)
    """The most seeds for a λ that fewer do not tell from λ*: at first the study's seeds, then twice as many, and so on
    up to this number. Without it, there are only the study's seeds. Unit: seeds."""


class ParetoConfig(ProportionRange):
    """Retention at the last generation against the share of fresh data, at points that Optuna's sampler chooses."""

    num_trials: Whole = Field(default=32, ge=1)
    """How many loops Optuna chooses. Unit: loops."""


class StudyConfig(Section):
    """Loops that differ in cycle, synthetic proportion, truth label, temperature and seed.

    A grid runs them all; a search bisects for the critical λ of each cycle and temperature; a pareto study
    lets Optuna weigh two objectives.
    """

    description: str = ""
    """What the study is for, in a sentence or two."""
    kind: Literal["grid", "search", "pareto"] = "grid"
    """Whether all loops are run, or the critical λ is searched for, or two objectives are weighed."""
    cycles: list[DataCycle] = Field(default=[DataCycle.INCREMENTAL], min_length=1)
    """The data cycles that are compared."""
    synthetic_proportions: Proportions = Field(default=[])
    """λ, for all cycles that have one or separately for each: {incremental: [0.1], expanding: [0.9]}. Unit: share."""
    truth_labels: list[TruthLabel] = Field(default=[TruthLabel.TRUE_ONLY], min_length=1)
    """Which expressions D_0 and fresh data hold; for data.kind logic only."""
    temperatures: list[Temperature] = Field(default=[0.8], min_length=1)
    """What logits are divided by when S_t is drawn. Unit: ratio."""
    seeds: list[Seed] = Field(default=[0], min_length=1)
    """The seeds that each cell is run with."""
    search: SearchConfig = SearchConfig()
    """For kind search: the range of λ, and the retention that is looked for."""
    pareto: ParetoConfig = ParetoConfig()
    """For kind pareto: the range of λ, and how many loops."""
    methods: dict[MethodName, MethodConfig] = Field(default={})
    """For a grid: methods that are compared, by name; each cell is run with each of them."""
    loop: LoopConfig
    """What all loops share; what the study spans (cycle, λ, truth label, temperature, seed) is not set here."""
    _elsewhere: frozenset[str] = PrivateAttr(frozenset())
    """Fingerprints of a grid's loops whose results lie elsewhere, and which it leaves out."""

    @property
    def elsewhere(self) -> frozenset[str]:
        return self._elsewhere

    def without(self, elsewhere: Collection[str]) -> "StudyConfig":
        """A grid that leaves these loops out, by fingerprint."""
        narrower = self.model_copy()
        narrower._elsewhere = frozenset(elsewhere)
        return narrower

    def only(self, methods: Iterable[str], cycles: Sequence[DataCycle]) -> Self:
        """The study with these of its methods and cycles."""
        given = self.model_dump()
        kept = {name: given["methods"][name] for name in methods}
        return self.model_validate(given | {"methods": kept, "cycles": cycles})

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:
        return with_new_names(value)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "grid":
            lacking = [kind.value for kind in self.cycles if kind.takes_proportion and not self.proportions(kind)]
            if lacking:
                raise ValueError(f"{lacking[0]} needs synthetic_proportions, numbers from 0 to 1")
        elif self.synthetic_proportions:
            raise ValueError(f"a {self.kind} takes no synthetic_proportions but {self.kind}.lowest and .highest")
        elif len(self.truth_labels) > 1:
            raise ValueError(f"a {self.kind} takes one of truth_labels, not {len(self.truth_labels)}")
        if not isinstance(self.loop.data, LogicData) and self.truth_labels != [TruthLabel.TRUE_ONLY]:
            raise ValueError(f"truth_labels do not go with data.kind={self.loop.data.kind}")
        for name, section in (("search", self.search), ("pareto", self.pareto)):
            if self.kind != name and section != type(section)():
                raise ValueError(f"a {self.kind} takes no {name}; it is for kind: {name}")
        allowed = {"grid": list(DataCycle), "search": [kind for kind in DataCycle if kind.takes_proportion],
                   "pareto": [DataCycle.EXPANDING, DataCycle.FRESH_MIX]}[self.kind]  # fmt: skip
        if self.search.max_seeds is not None and self.search.max_seeds < len(set(self.seeds)):
            raise ValueError(f"search.max_seeds {self.search.max_seeds} must be at least the number of seeds")
        wrong = [kind for kind in self.cycles if kind not in allowed]
        if wrong:
            raise ValueError(f"a {self.kind} cannot have cycle {wrong[0].value}; allowed: {', '.join(allowed)}")
        return self

    @model_validator(mode="after")
    def _methods_are_possible(self) -> Self:
        if self.methods and self.kind != "grid":
            raise ValueError(f"a {self.kind} compares no methods; that is for kind: grid")
        for name, kind in product(self.methods, self.cycles):
            proportion = next(iter(self.proportions(kind)), None)
            self.applied(name, self.loop_at(kind, self.temperatures[0], proportion, self.seeds[0]))
        if self.methods and not self._spanned:
            raise ValueError("none of its methods applies to any of its cycles with this learner")
        return self

    def proportions(self, kind: DataCycle) -> Sequence[float | None]:
        """λ of a grid's cells of this cycle; None for a cycle that has no λ."""
        if not kind.takes_proportion:
            return [None]
        spanned = self.synthetic_proportions
        return spanned.get(kind, []) if isinstance(spanned, dict) else spanned

    def each_truth_label(self) -> Sequence[TruthLabel | None]:
        """What D_0 may hold, each once; only None where the data has no truth label."""
        return list(dict.fromkeys(self.truth_labels)) if isinstance(self.loop.data, LogicData) else [None]

    def arms(self) -> list[tuple[DataCycle, float]]:
        """Each cycle at each temperature."""
        return list(product(dict.fromkeys(self.cycles), dict.fromkeys(self.temperatures)))

    def seed_batches(self) -> list[list[int]]:
        """The batches of seeds that a search looks at: its own, then twice as many, up to `search.max_seeds`."""
        seeds, batches = list(dict.fromkeys(self.seeds)), []
        most = self.search.max_seeds or len(seeds)
        further = (seed for seed in count(max(seeds) + 1) if seed not in seeds)
        batches.append(seeds)
        while len(seeds) < most:
            seeds = seeds + list(islice(further, min(len(seeds), most - len(seeds))))
            batches.append(seeds)
        return batches

    def loop_at(
        self,
        kind: DataCycle,
        temperature: float,
        proportion: float | None,
        seed: int,
        truth_label: TruthLabel | None = None,
    ) -> LoopConfig:
        """The loop with these values; without a truth label, with the study's first."""
        label = truth_label or self.each_truth_label()[0]
        return self.loop.changed(
            cycle=CycleConfig(kind=kind, synthetic_proportion=proportion),
            data={} if label is None else {"truth_label": label},
            sampling={"temperature": temperature},
            seed=seed,
        )

    def examples(self) -> list[LoopConfig]:
        """The loops of a grid; of a study that chooses them one of each cycle, at the λ that takes most fresh data."""
        if self.kind == "grid":
            return self.loops()
        λ = self.search.lowest if self.kind == "search" else self.pareto.lowest
        return [self.loop_at(kind, self.temperatures[0], λ, self.seeds[0]) for kind in self.cycles]

    def hungriest(self) -> LoopConfig:
        """One of the loops that take the most fresh data."""
        return max(self.examples(), key=lambda loop: num_fresh(loop.cycle, loop.data.num_examples))

    def applied(self, name: str, plain: LoopConfig) -> LoopConfig | None:
        """A plain loop with a method's changes; None where it is not for this cycle or not for the ideal learner.

        Raises:
            MethodError: its changes give no valid configuration.
        """
        method = self.methods[name]
        if method.cycles is not None and plain.cycle.kind not in method.cycles:
            return None
        try:
            return plain.changed(**method.changes)
        except ValidationError as error:
            if plain.model.kind == "empirical" and needs_network(error):
                return None
            raise MethodError(name, error) from None

    @property
    def plain_loops(self) -> list[LoopConfig]:
        """The distinct loops of a grid, without any method: all for the first seed, then all for the next one.

        So a study that is half done shows every one of them. A cycle without λ occurs once for each truth label,
        temperature and seed.
        """
        return list(self._plain.values())

    @cached_property
    def _plain(self) -> dict[str, LoopConfig]:
        found: dict[str, LoopConfig] = {}
        for seed, kind in product(self.seeds, self.cycles):
            arms = product(self.proportions(kind), self.each_truth_label(), self.temperatures)
            for proportion, truth_label, temperature in arms:
                loop = self.loop_at(kind, temperature, proportion, seed, truth_label)
                found.setdefault(loop.fingerprint(), loop)
        return found

    @cached_property
    def _spanned(self) -> dict[str, tuple[LoopConfig, str]]:
        """By fingerprint, each plain loop with each method, and its name: the first, if two give the same loop."""
        if not self.methods:
            return {key: (loop, "") for key, loop in self._plain.items()}
        found: dict[str, tuple[LoopConfig, str]] = {}
        for plain, name in product(self.plain_loops, self.methods):
            loop = self.applied(name, plain)
            if loop is not None:
                found.setdefault(loop.fingerprint(), (loop, name))
        return found

    def loops(self, known: Container[str] = ()) -> list[LoopConfig]:
        """The loops of a grid: each plain one with each method, except those whose fingerprint is `known`."""
        return [loop for key, (loop, _) in self._spanned.items() if key not in self._elsewhere and key not in known]

    def spans(self, loop: LoopConfig) -> bool:
        """Whether it is one of `loops`."""
        key = loop.fingerprint()
        return key in self._spanned and key not in self._elsewhere

    def method(self, fingerprint: str) -> str:
        """The name of the method of the loop with this fingerprint; empty where it has none."""
        return self._spanned[fingerprint][1] if self.methods and fingerprint in self._spanned else ""

    def label(self, loop: LoopConfig) -> str:
        """What a loop of the study is called: after its method, where methods are compared."""
        method = self.method(loop.fingerprint()) if self.methods else ""
        return loop.named(method) if method else loop.label

    def changes_from(self, before: "StudyConfig") -> dict[str, tuple[Any, Any]]:
        """What makes this another study than `before`, by dotted key; more values of what spans it do not."""
        old, new = before._fixed_as(self.kind), self.fixed
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        return {key: (old.get(key), new.get(key)) for key in changed}

    @property
    def fixed(self) -> dict[str, Any]:
        """What makes it this study and no other, by dotted key."""
        return self._fixed_as(self.kind)

    def _fixed_as(self, kind: str) -> dict[str, Any]:
        extensible = _CHANGEABLE if kind == "pareto" else (*_CHANGEABLE, "cycles", "temperatures")
        return {key: value for key, value in flatten(self).items() if not _within(key, extensible)}


def _within(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is, or lies in, one of these."""
    return any(f"{key}.".startswith(f"{name}.") or f".{name}." in f".{key}." for name in names)


KNOWLEDGE = (
    "data only",
    "sampler",
    "previous model",
    "statistics of D_0",
    "D_0 kept",
    "fresh data",
    "oracle",
)
"""What a method may know, each more than the one before; a method is ranked by the most that it knows."""

_OF_ORACLE = {
    Oracle.PREVIOUS_MODEL: "previous model",
    Oracle.ORIGINAL_STATISTICS: "statistics of D_0",
    Oracle.TRAINING_SET: "D_0 kept",  # D_{t-1} is D_0 at t = 1
    Oracle.ORIGINAL_DATA: "D_0 kept",
    Oracle.FRESH_DATA: "fresh data",
    Oracle.GRAMMAR: "oracle",
    Oracle.VERIFIER: "oracle",
}


def knowledge(loop: LoopConfig, usual: LoopConfig) -> str:
    """The most that the loop makes use of beside its texts: oracles, earlier models, the sampler or D_0.

    `usual` is the same loop without the method. What its cycle mixes in anyway is not counted as known to the method.
    """
    known = {_OF_ORACLE[oracle] for oracle in loop.curation.needs}
    if loop.cycle.canonical() != usual.cycle.canonical():
        known |= _mixed_in(loop.cycle, loop.data.num_examples)
    train = loop.train
    if train is not None and train.num_previous != 0:
        known.add("previous model")
    is_matched = train is not None and train.loss_temperature != 1
    if loop.sampling != usual.sampling or is_matched or any(step.uses_sampler for step in loop.curation.steps):
        known.add("sampler")
    return max(known, key=KNOWLEDGE.index, default=KNOWLEDGE[0])


def _mixed_in(cycle: CycleConfig, num_examples: int) -> set[str]:
    """What a cycle puts into its training sets beside S_t."""
    found = {"fresh data"} if needs_fresh_data(cycle, num_examples) else set[str]()
    is_kept = cycle.kind in (DataCycle.BALANCED, DataCycle.EXPANDING)
    is_kept |= cycle.kind is DataCycle.INCREMENTAL and num_synthetic(cycle, num_examples) < num_examples
    return found | ({"D_0 kept"} if is_kept else set())
