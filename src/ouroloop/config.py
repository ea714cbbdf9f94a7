"""What a loop or a study *is*: frozen and validated, one schema and no free-form key.

Everything that is wrong with what was given ends in one `ConfigError` of one line: what was given,
what is allowed. Knows nothing about files: `preset.py` reads them.
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ouroloop.testbed.logic.grammar import Initialisation, capacity


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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Proportion = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(gt=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class DataConfig(_Section):
    num_examples: int = Field(ge=2, le=10_000_000)
    """m, in expressions: the size of D_0 and of every S_t."""
    min_depth: int = Field(default=1, ge=1, le=7)
    max_depth: int = Field(default=5, ge=1, le=7)
    initialisation: Initialisation = Initialisation.TRUE_ONLY

    @model_validator(mode="after")
    def _fits_the_grammar(self) -> Self:
        if self.min_depth > self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be at most max_depth {self.max_depth}")
        limit = capacity(self.min_depth, self.max_depth, self.initialisation)
        if self.num_examples > limit:
            raise ValueError(
                f"num_examples {self.num_examples:,} must be at most {limit:,}, all the unique "
                f"expressions of depth {self.min_depth} to {self.max_depth} ({self.initialisation.value})"
            )
        return self

    @property
    def max_length_tokens(self) -> int:
        """Words of the longest expression: 2^d leaves and three words for each of 2^d - 1 operators."""
        return int(4 * 2**self.max_depth - 3)


class CycleConfig(_Section):
    kind: DataCycle = DataCycle.FULL_SYNTHETIC
    synthetic_proportion: Proportion | None = None
    """λ. Incremental and fresh mix: portion of D_t taken from S_t. Expanding: portion of what is added.
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

    @property
    def proportion_label(self) -> str:
        """λ as shown in tags; full synthetic is incremental at λ = 1, balanced has none."""
        if self.kind is DataCycle.FULL_SYNTHETIC:
            return "1"
        return "none" if self.synthetic_proportion is None else f"{self.synthetic_proportion:g}"

    @property
    def effective_proportion(self) -> float:
        """λ as a number for every cycle: what models wrote of all that is new; 1 where nothing else is."""
        return 1.0 if self.synthetic_proportion is None else self.synthetic_proportion


class EmpiricalConfig(_Section):
    """The ideal learner: M_t is its training set, resampled at the temperature. It has nothing to train."""

    kind: Literal["empirical"]


class ModelConfig(_Section):
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


class TrainConfig(_Section):
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


class SamplingConfig(_Section):
    """Every decoding parameter. There is no top-k and no top-p: both cut tails and would fake a collapse."""

    temperature: Temperature = 0.8
    max_new_tokens: int = Field(default=200, ge=1, le=1_000)
    batch_size: int = Field(default=4_096, ge=1)
    """Expressions sampled at once, which bounds the memory of the key-value cache."""


class StageConfig(_Section):
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


class ResourceConfig(_Section):
    """What a machine of a cluster sets aside for one loop. Where a loop runs changes nothing in it."""

    num_cpus: float = Field(default=1.0, ge=0, le=4_096)
    num_gpus: float = Field(default=0.0, ge=0, le=64)
    """Parts are allowed: at 0.25 four loops share a GPU."""
    memory: int | None = Field(default=None, ge=1)
    """Bytes. A loop that takes more than its machine has is killed and tried again elsewhere."""


class LoopConfig(_Section):
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
    resources: ResourceConfig = ResourceConfig()

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
        longest, writes = self.data.max_length_tokens, self.sampling.max_new_tokens
        if writes < longest:
            raise ValueError(
                f"sampling.max_new_tokens {writes} must be at least {longest}, "
                f"the longest expression of depth {self.data.max_depth}"
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
        initialisation = self.data.initialisation
        start = "" if initialisation is Initialisation.TRUE_ONLY else f"-{initialisation.value}"
        learner = "" if self.model.kind == "transformers" else f"-{self.model.kind}"
        return f"{self.cycle.kind.value}{proportion}{start}{learner}-T{self.sampling.temperature:g}-s{self.seed}"

    def fingerprint(self) -> str:
        """SHA-256 of everything that the result depends on: equal fingerprints give equal results."""
        content = json.dumps(
            self.model_dump(mode="json", exclude={"description", "keep_weights", "resources"}), sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()


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
