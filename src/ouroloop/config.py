"""What a loop or a study *is*: frozen and validated, one schema and no free-form key.

Everything that is wrong with what was given ends in one `ConfigError` of one line: what was given,
what is allowed. Knows nothing about files: `presets.py` reads them.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from enum import StrEnum
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ouroloop.testbed.base import Testbed
from ouroloop.testbed.logic.grammar import TruthLabel, capacity
from ouroloop.testbed.logic.testbed import LogicTestbed


class ConfigError(ValueError):
    """One line for the person who wrote the preset or typed the command."""


class DataCycle(StrEnum):
    """How D_t is put together; the definitions are in `cycle.py`."""

    FULL_SYNTHETIC = "full_synthetic"
    BALANCED = "balanced"
    INCREMENTAL = "incremental"
    EXPANDING = "expanding"
    FRESH_MIX = "fresh_mix"

    @property
    def takes_proportion(self) -> bool:
        return self not in (DataCycle.FULL_SYNTHETIC, DataCycle.BALANCED)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def changed(self, **values: Any) -> Self:
        """With other values, validated anew; those of a section that is given as a mapping change that section."""
        given = self.model_dump()
        for key, value in values.items():
            inner = value.model_dump() if isinstance(value, BaseModel) else value
            given[key] = given[key] | value if isinstance(value, dict) and isinstance(given[key], dict) else inner
        return type(self).model_validate(given)


Proportion = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(gt=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class DataConfig(Section):
    kind: Literal["logic"] = "logic"
    """The testbed: logic expressions, whose truth is decidable."""
    num_examples: int = Field(ge=2, le=10_000_000)
    """m, in expressions: the size of D_0 and of every S_t."""
    min_depth: int = Field(default=1, ge=1, le=7)
    """Of the expressions of D_0 and F_t, in operators from the root to a leaf; the depth is uniform from here."""
    max_depth: int = Field(default=5, ge=1, le=7)
    """The same, up to and including."""
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY
    """Which expressions D_0 and F_t hold: all True, all False, or half of each."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:
        return renamed(value, "initialisation", "truth_label", "data")

    @model_validator(mode="after")
    def _fits_the_grammar(self) -> Self:
        if self.min_depth > self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be at most max_depth {self.max_depth}")
        limit = capacity(self.min_depth, self.max_depth, self.truth_label)
        if self.num_examples > limit:
            raise ValueError(
                f"num_examples {self.num_examples:,} must be at most {limit:,}, all the unique "
                f"expressions of depth {self.min_depth} to {self.max_depth} ({self.truth_label.value})"
            )
        return self

    @property
    def testbed(self) -> Testbed:
        return LogicTestbed(self.min_depth, self.max_depth, self.truth_label)

    @property
    def max_length_tokens(self) -> int:
        """Words of the longest expression: 2^d leaves and three words for each of 2^d - 1 operators."""
        return int(4 * 2**self.max_depth - 3)


def renamed(value: Any, old: str, new: str, where: str) -> Any:
    """A mapping in which a field still has the name that it had before 0.2.0, and says so once."""
    if not isinstance(value, dict) or old not in value:
        return value
    warnings.warn(f"{where}.{old} is called {where}.{new} since 0.2.0", FutureWarning, stacklevel=2)
    return {new if key == old else key: inner for key, inner in value.items()}


class CycleConfig(Section):
    kind: DataCycle = DataCycle.FULL_SYNTHETIC
    """How D_t is put together."""
    synthetic_proportion: Proportion | None = None
    """λ, a portion. Incremental and fresh mix: of D_t taken from S_t. Expanding: of what is added.
    Full synthetic and balanced have no λ."""

    @model_validator(mode="after")
    def _proportion_belongs_to_kind(self) -> Self:
        if self.kind.takes_proportion and self.synthetic_proportion is None:
            raise ValueError(f"{self.kind.value} needs cycle.synthetic_proportion, a number from 0 to 1")
        if not self.kind.takes_proportion and self.synthetic_proportion is not None:
            raise ValueError(
                f"{self.kind.value} takes no cycle.synthetic_proportion (given {self.synthetic_proportion:g}); "
                "leave it out or choose incremental, expanding or fresh_mix"
            )
        return self

    def canonical(self) -> "CycleConfig":
        """The one name of what has two: incremental at λ = 1 replaces all of D_{t-1}, which is full synthetic."""
        if self.kind is DataCycle.INCREMENTAL and self.synthetic_proportion == 1:
            return CycleConfig(kind=DataCycle.FULL_SYNTHETIC)
        return self

    @property
    def new_proportion(self) -> float:
        """λ as a number that every cycle has: what models wrote of the data that is new in D_t; 1 where it all is."""
        return 1.0 if self.synthetic_proportion is None else self.synthetic_proportion

    @property
    def proportion_label(self) -> str:
        """λ as shown in tags; full synthetic is incremental at λ = 1, balanced has none."""
        return "none" if self.kind is DataCycle.BALANCED else f"{self.new_proportion:g}"


class EmpiricalConfig(Section):
    """The ideal learner: M_t is its training set, resampled at the temperature. It has nothing to train."""

    kind: Literal["empirical"]


class ModelConfig(Section):
    """A causal LM of transformers, built from its configuration and never from a hub."""

    kind: Literal["transformers"] = "transformers"
    model_type: str = "gpt2"
    num_layers: int = Field(ge=1, le=200)
    num_heads: int = Field(ge=1, le=200)
    hidden_size: int = Field(ge=4, le=65_536)
    context_length: int = Field(default=256, ge=8, le=65_536)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    options: dict[str, bool | int | float | str] = {}
    """Further fields of this model type's transformers configuration, e.g. activation_function."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")
        return self


class TrainConfig(Section):
    """AdamW, or Muon and AdamW, with warm-up and a cosine decay; the weights of the lowest validation loss win."""

    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Expressions of a batch, drawn at random. num_steps x batch_size / m are the epochs, a tenth less validation."""
    batching: Literal["packed", "padded"] = "packed"
    """Whether a batch is one row of its tokens, or, the plain way, which works for any causal LM, a row for each
    expression, padded to the longest."""
    learning_rate: float = Field(gt=0, le=1)
    muon_learning_rate: float | None = Field(default=None, gt=0, le=1)
    """When given, the weight matrices of the blocks are Muon's with this learning rate, and only the rest AdamW's."""
    final_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """What the cosine ends at, over the peak."""
    num_warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.99, ge=0, lt=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    max_validation_examples: int | None = Field(default=None, ge=1)
    """What exceeds this of an expanding dataset is trained on."""
    validate_every: int = Field(ge=1)
    """Optimizer steps between two validations."""
    stop_gap_nats: float = Field(default=0.0, ge=0)
    """Training ends before its steps once the validation loss is so close, in nats per expression, to the
    entropy of the validation set, which no model can go below; 0 for never."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Lightning's, on one device of one process; `fsdp` is for models that need its sharding or offloading."""
    compile: bool = False
    num_threads: int = Field(default=1, ge=1, le=1024)
    """Threads of torch. Part of what a loop is: another number may round sums differently."""

    @model_validator(mode="after")
    def _precision_suits_optimizer(self) -> Self:
        if self.precision == "16-mixed" and self.muon_learning_rate is not None:
            raise ValueError(
                "16-mixed scales the gradients for one optimizer, and Muon is a second one: "
                "choose bf16-mixed, or train.muon_learning_rate=null"
            )
        return self

    def num_validation_examples(self, num_examples: int) -> int:
        """How many of a dataset's examples are validated on; at least one is, and one is left to train on."""
        wanted = min(max(1, round(self.validation_fraction * num_examples)), num_examples - 1)
        return wanted if self.max_validation_examples is None else min(wanted, self.max_validation_examples)


class SamplingConfig(Section):
    """Every decoding parameter. There is no top-k and no top-p: both cut tails and would fake a collapse."""

    temperature: Temperature = 0.8
    max_new_tokens: int = Field(default=200, ge=1, le=1_000)
    batch_size: int = Field(default=4_096, ge=1)
    """Expressions sampled at once, which bounds the memory of the key-value cache."""


class StageConfig(Section):
    """Thresholds on diversity retention r: healthy r >= healthy > onset r >= onset > decline r >= decline."""

    healthy: Proportion = 0.95
    onset: Proportion = 0.5
    decline: Proportion = 0.05

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.healthy > self.onset > self.decline:
            raise ValueError(f"need healthy > onset > decline, got {self.healthy}, {self.onset}, {self.decline}")
        return self


def _model_kind(value: Any) -> Any:
    return value.get("kind", "transformers") if isinstance(value, dict) else getattr(value, "kind", None)


Model = Annotated[
    Annotated[ModelConfig, Tag("transformers")] | Annotated[EmpiricalConfig, Tag("empirical")],
    Discriminator(
        _model_kind,
        custom_error_type="model_kind",
        custom_error_message="a model whose kind is 'transformers' or 'empirical'",
    ),
]


class LoopConfig(Section):
    """One self-consuming loop: everything that determines its result, bit for bit."""

    description: str = ""
    seed: Seed = 0
    num_generations: int = Field(ge=1, le=100_000)
    data: DataConfig
    cycle: CycleConfig = CycleConfig()
    model: Model
    train: TrainConfig | None = None
    """What a network needs and the ideal learner has no use for."""
    sampling: SamplingConfig = SamplingConfig()
    stages: StageConfig = StageConfig()
    exact_every: int = Field(default=25, ge=1)
    """Generations from one exact evaluation of all expressions of depth 1 to 3 to the next: seconds for a network.
    In between, what is asked of depth 3 is estimated, with a standard error."""
    keep_weights: Literal["all", "stages", "last", "none"] = "stages"
    """Which M_t are kept: `stages` the first of each collapse stage and the last, which is what registering needs."""

    @model_validator(mode="after")
    def _train_belongs_to_model(self) -> Self:
        if self.model.kind == "transformers" and self.train is None:
            raise ValueError("train is missing: a network needs train.num_steps and so on")
        if self.model.kind == "empirical" and self.train is not None:
            raise ValueError(
                "model.kind empirical trains nothing; leave train out, or write train: null (--train=null)"
            )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        ends, writes = self.data.max_length_tokens + 1, self.sampling.max_new_tokens
        if writes < ends:
            raise ValueError(
                f"sampling.max_new_tokens {writes} must be at least {ends}, "
                f"the longest expression of depth {self.data.max_depth} and its <eos>"
            )
        if isinstance(self.model, ModelConfig) and self.model.context_length <= writes:
            raise ValueError(
                f"model.context_length {self.model.context_length} must be at least {writes + 1}: "
                "the start token and sampling.max_new_tokens"
            )
        return self

    @property
    def label(self) -> str:
        """Cycle, proportion, temperature and seed, and what is out of the ordinary: its name among its like."""
        proportion = "" if self.cycle.synthetic_proportion is None else f"-{self.cycle.synthetic_proportion:g}"
        label = self.data.truth_label
        start = "" if label is TruthLabel.TRUE_ONLY else f"-{label.value}"
        learner = "" if self.model.kind == "transformers" else f"-{self.model.kind}"
        return f"{self.cycle.kind.value}{proportion}{start}{learner}-T{self.sampling.temperature:g}-s{self.seed}"

    def fingerprint(self) -> str:
        """SHA-256 of everything that the result depends on: equal fingerprints give equal results."""
        given = self.model_dump(mode="json", exclude={"description": True, "keep_weights": True, "data": {"kind"}})
        given["data"]["initialisation"] = given["data"].pop("truth_label")  # a loop of 0.1 keeps its fingerprint
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


Proportions = Annotated[
    Annotated[list[Proportion], Tag("all")] | Annotated[dict[DataCycle, list[Proportion]], Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, dict) else "all"),
]


class ProportionRange(Section):
    """The synthetic proportions that a study may choose: `lowest`, and every `precision` from there."""

    lowest: Proportion = 0.0
    highest: Proportion = 1.0
    precision: float = Field(default=0.0625, gt=0, le=1)

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

    target_retention: float = Field(default=0.5, gt=0, le=1)
    max_rise: float | None = Field(default=None, ge=0)
    """The most by which retention is taken to rise from any generation to the last. A loop that can no longer
    change the outcome then ends early. Without it only bounds that hold for certain end one."""


class ParetoConfig(ProportionRange):
    """Retention at the last generation against the share of fresh data, as Optuna's sampler chooses."""

    num_trials: int = Field(default=32, ge=1)


class StudyConfig(Section):
    """Loops that differ in cycle, synthetic proportion, truth label, temperature and seed.

    A grid runs them all; a search bisects for the critical λ of each cycle and temperature; a pareto study
    lets Optuna weigh two objectives.
    """

    description: str = ""
    kind: Literal["grid", "search", "pareto"] = "grid"
    cycles: list[DataCycle] = Field(default=[DataCycle.INCREMENTAL], min_length=1)
    synthetic_proportions: Proportions = []
    """λ, for every cycle that has one or for each its own: {incremental: [0.1], expanding: [0.9]}."""
    truth_labels: list[TruthLabel] = Field(default=[TruthLabel.TRUE_ONLY], min_length=1)
    temperatures: list[Temperature] = Field(default=[0.8], min_length=1)
    seeds: list[Seed] = Field(default=[0], min_length=1)
    search: SearchConfig = SearchConfig()
    pareto: ParetoConfig = ParetoConfig()
    loop: LoopConfig

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:
        return renamed(value, "initialisations", "truth_labels", "study")

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
        for name, section in (("search", self.search), ("pareto", self.pareto)):
            if self.kind != name and section != type(section)():
                raise ValueError(f"a {self.kind} takes no {name}; it is for kind: {name}")
        allowed = {"grid": list(DataCycle), "search": [kind for kind in DataCycle if kind.takes_proportion],
                   "pareto": [DataCycle.EXPANDING, DataCycle.FRESH_MIX]}[self.kind]  # fmt: skip
        wrong = [kind for kind in self.cycles if kind not in allowed]
        if wrong:
            raise ValueError(f"a {self.kind} cannot have cycle {wrong[0].value}; allowed: {', '.join(allowed)}")
        return self

    def proportions(self, kind: DataCycle) -> Sequence[float | None]:
        """λ of a grid's cells of this cycle; None for a cycle that has no λ."""
        if not kind.takes_proportion:
            return [None]
        spanned = self.synthetic_proportions
        return spanned.get(kind, []) if isinstance(spanned, dict) else spanned

    def arms(self) -> list[tuple[DataCycle, float]]:
        """Each cycle at each temperature."""
        return list(product(dict.fromkeys(self.cycles), dict.fromkeys(self.temperatures)))

    def cell(
        self,
        kind: DataCycle,
        temperature: float,
        proportion: float | None,
        seed: int,
        truth_label: TruthLabel | None = None,
    ) -> LoopConfig:
        """The loop of these values; without a truth label the study's first."""
        return self.loop.changed(
            cycle=CycleConfig(kind=kind, synthetic_proportion=proportion),
            data={"truth_label": truth_label or self.truth_labels[0]},
            sampling={"temperature": temperature},
            seed=seed,
        )

    def loops(self) -> list[LoopConfig]:
        """The distinct cells of a grid with the first seed, then with the next one: what is half done shows them all.

        A cycle without λ is there once for each start, temperature and seed.
        """
        cells: dict[str, LoopConfig] = {}
        for seed, kind in product(self.seeds, self.cycles):
            arms = product(self.proportions(kind), self.truth_labels, self.temperatures)
            for proportion, truth_label, temperature in arms:
                loop = self.cell(kind, temperature, proportion, seed, truth_label)
                cells[loop.fingerprint()] = loop
        return list(cells.values())


def flatten(config: BaseModel) -> dict[str, Any]:
    """Dotted keys and plain values, as the command line spells them."""

    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= walk(f"{prefix}.{key}" if prefix else key, inner)
        return flat

    return walk("", config.model_dump(mode="json"))
