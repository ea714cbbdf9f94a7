"""What a loop or a study *is*: frozen and validated, one schema and no free-form key.

Everything that is wrong with what was given ends in one `ConfigError` of one line: what was given,
what is allowed. Knows nothing about files: `presets.py` reads them.
"""

import hashlib
import json
import warnings
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Strict, Tag, model_validator

from ouroloop.errors import ConfigError as ConfigError
from ouroloop.testbed.base import Testbed
from ouroloop.testbed.logic.grammar import TruthLabel, capacity
from ouroloop.testbed.logic.testbed import LogicTestbed


class DataCycle(StrEnum):
    """How D_t is put together; the definitions are in `science/cycle.py`."""

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
            before = given[key]
            is_change = isinstance(value, dict) and isinstance(before, dict)
            is_change = is_change and value.get("kind") in (None, before.get("kind"))  # another kind has other fields
            given[key] = before | value if is_change else inner
        return type(self).model_validate(given)


RENAMED = {"initialisation": "truth_label", "initialisations": "truth_labels"}
"""What fields were called before 0.2.0, and what they are called now."""


def with_new_names(value: Any) -> Any:
    """A section that may still have old names, which are read with a note."""
    old = [key for key in value if key in RENAMED] if isinstance(value, dict) else []
    for key in old:
        warnings.warn(f"{key} is called {RENAMED[key]} since 0.2.0", FutureWarning, stacklevel=2)
    return {RENAMED.get(key, key): inner for key, inner in value.items()} if old else value


# Strict: `true` is no number, and 1.0 no whole one
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Proportion = Annotated[Number, Field(ge=0, le=1)]
Temperature = Annotated[Number, Field(gt=0, le=10)]
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]


class DataConfig(Section):
    kind: Literal["logic"] = "logic"
    """The testbed: logic expressions, whose truth is decidable."""
    num_examples: Whole = Field(ge=2, le=10_000_000)
    """m, the size of D_0 and of every S_t. Unit: expressions."""
    min_depth: Whole = Field(default=1, ge=1, le=7)
    """Least depth of an expression of the grammar. Unit: operators from root to leaf."""
    max_depth: Whole = Field(default=5, ge=1, le=7)
    """Greatest depth of an expression of the grammar. Unit: operators from root to leaf."""
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY
    """Which expressions D_0 and fresh data hold: True ones only, False ones only, or half of each."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:
        return with_new_names(value)

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


class CycleConfig(Section):
    kind: DataCycle = DataCycle.FULL_SYNTHETIC
    """How D_t is put together of D_0, fresh data and what the models wrote."""
    synthetic_proportion: Proportion | None = None
    """λ. Incremental and fresh mix: portion of D_t taken from S_t. Expanding: portion of what is added.
    Full synthetic and balanced have no λ. Unit: share."""

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
    def effective_proportion(self) -> float:
        """λ as a number that every cycle has: what models wrote of the data that is new in D_t; 1 where it all is."""
        return 1.0 if self.synthetic_proportion is None else self.synthetic_proportion

    @property
    def proportion_label(self) -> str:
        """λ as shown in tags; full synthetic is incremental at λ = 1, balanced has none."""
        return "none" if self.kind is DataCycle.BALANCED else f"{self.effective_proportion:g}"


class EmpiricalConfig(Section):
    """The ideal learner: M_t is its training set, resampled at the temperature. It has nothing to train."""

    kind: Literal["empirical"]
    """The ideal learner, which has no other field."""


class ModelConfig(Section):
    """A causal LM of transformers, built from its configuration and never from a hub."""

    kind: Literal["transformers"] = "transformers"
    """What learns: a network of transformers, or `empirical`, the ideal learner."""
    model_type: str = "gpt2"
    """A causal LM of transformers, by the name of its type: gpt2, gpt_neox, llama and so on."""
    num_layers: Whole = Field(ge=1, le=200)
    """Depth of the network. Unit: blocks."""
    num_heads: Whole = Field(ge=1, le=200)
    """Attention heads of each block. Unit: heads."""
    hidden_size: Whole = Field(ge=4, le=65_536)
    """Width of the network, a multiple of the heads. Unit: features."""
    context_length: Whole = Field(default=256, ge=8, le=65_536)
    """Positions that the network has, the start symbol's included. Unit: tokens."""
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    """Of every kind that the model type has, in training. Unit: share."""
    options: dict[str, bool | int | float | str] = {}
    """Further fields of this model type's transformers configuration, e.g. activation_function; {} for none."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")
        return self


class TrainConfig(Section):
    """AdamW, or Muon and AdamW, with warm-up and a cosine decay; the weights of the lowest validation loss win."""

    num_steps: Whole = Field(ge=1)
    """Length of the training of each generation, at most. Unit: optimizer steps."""
    batch_size: Whole = Field(ge=1)
    """What a step sees, drawn at random. num_steps x batch_size / m are the epochs, a tenth less validation. Unit:
    expressions."""
    batching: Literal["packed", "padded"] = "packed"
    """Whether a batch is one row of its tokens, or, the plain way, which works for any causal LM, a row for each
    expression, padded to the longest."""
    learning_rate: Number = Field(gt=0, le=1)
    """Peak of AdamW's learning rate. Unit: per optimizer step."""
    muon_learning_rate: Number | None = Field(default=None, gt=0, le=1)
    """When given, the weight matrices of the blocks are Muon's with this peak learning rate, and only the rest AdamW's.
    Unit: per optimizer step."""
    final_learning_rate_ratio: Number = Field(default=0.1, ge=0, le=1)
    """What the cosine ends at, over the peak. Unit: ratio."""
    num_warmup_steps: Whole = Field(default=50, ge=0)
    """Steps in which the learning rate rises to its peak. Unit: optimizer steps."""
    weight_decay: Number = Field(default=0.1, ge=0)
    """Decoupled, of matrices only: each step takes this times the learning rate off a weight. Unit: factor."""
    adam_beta1: Number = Field(default=0.9, ge=0, lt=1)
    """What AdamW's running mean of the gradient keeps of itself in a step. Unit: factor."""
    adam_beta2: Number = Field(default=0.99, ge=0, lt=1)
    """What AdamW's running mean of the squared gradient keeps of itself in a step. Unit: factor."""
    gradient_clip: Number = Field(default=1.0, gt=0)
    """Longer gradients are scaled down to this. Unit: L2 norm over all weights."""
    validation_fraction: Number = Field(default=0.1, gt=0, lt=1)
    """What is held back of a training set to choose the weights by. Unit: share."""
    max_validation_examples: Whole | None = Field(default=None, ge=1)
    """What exceeds this of an expanding dataset is trained on; null for no limit. Unit: expressions."""
    validate_every: Whole = Field(ge=1)
    """From one validation to the next. Unit: optimizer steps."""
    stop_gap_nats: Number = Field(default=0.0, ge=0)
    """Training ends before its steps once the validation loss is so close to the entropy of the validation set,
    which no model can go below; 0 for never. Unit: nats per expression."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What it is trained on; `auto` takes a GPU where there is one."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Of the arithmetic in training, as Lightning names it."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Lightning's, on one device of one process; `fsdp` is for models that need its sharding or offloading."""
    compile: bool = False
    """Whether torch.compile builds kernels for the network first."""
    num_threads: Whole = Field(default=1, ge=1, le=1024)
    """Of torch. Part of what a loop is: another number may round sums differently. Unit: threads."""

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
    """What logits are divided by: 1 samples the model as it is, less sharpens it. Unit: ratio."""
    max_new_tokens: Whole = Field(default=200, ge=1, le=1_000)
    """Where a text is cut off that has not ended. Unit: tokens."""
    batch_size: Whole = Field(default=4_096, ge=1)
    """What is sampled at once, which bounds the memory of the key-value cache. Unit: expressions."""


class StageConfig(Section):
    """Thresholds on diversity retention r: healthy r >= healthy > onset r >= onset > decline r >= decline."""

    healthy: Proportion = 0.95
    """A loop is healthy from this retention on. Unit: share of D_0's diversity."""
    onset: Proportion = 0.5
    """Below `healthy`, it is at the onset of collapse from this retention on. Unit: share of D_0's diversity."""
    decline: Proportion = 0.05
    """Below `onset`, it declines from this retention on, and has collapsed below it. Unit: share of D_0's diversity."""

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


class ResourceConfig(Section):
    """What a machine of a cluster sets aside for one loop. Where a loop runs changes nothing in it."""

    num_cpus: Number = Field(default=1.0, ge=0, le=4_096)
    """Processors. Unit: cores."""
    num_gpus: Number = Field(default=0.0, ge=0, le=64)
    """Parts are allowed: at 0.25 four loops share a GPU. Unit: GPUs."""
    memory: Whole | None = Field(default=None, ge=1)
    """A loop that takes more than its machine has is killed and tried again elsewhere. Unit: bytes."""


class LoopConfig(Section):
    """One self-consuming loop: everything that determines its result, bit for bit."""

    description: str = ""
    """What the loop is for, in a sentence or two; no part of what determines it."""
    seed: Seed = 0
    """What every random draw of the loop follows from."""
    num_generations: Whole = Field(ge=1, le=100_000)
    """How often a model is trained and sampled from. Unit: generations."""
    data: DataConfig
    """D_0 and fresh data: what the grammar gives."""
    cycle: CycleConfig = CycleConfig()
    """How the training set of the next generation is put together."""
    model: Model
    """What learns."""
    train: TrainConfig | None = None
    """What a network needs and the ideal learner has no use for."""
    sampling: SamplingConfig = SamplingConfig()
    """How S_t is drawn from M_t."""
    stages: StageConfig = StageConfig()
    """Where a stage of the collapse begins."""
    exact_every: Whole = Field(default=25, ge=1)
    """From one exact evaluation of all expressions of depth 1 to 3 to the next: seconds for a network. In between,
    what is asked of depth 3 is estimated, with a standard error. Unit: generations."""
    keep_weights: Literal["all", "stages", "last", "none"] = "stages"
    """Which M_t are kept: `stages` the first of each collapse stage and the last, which is what registering needs."""
    resources: ResourceConfig = ResourceConfig()
    """What a cluster sets aside for the loop; it changes no result."""

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
        given = self.model_dump(
            mode="json", exclude={"description": True, "keep_weights": True, "resources": True, "data": {"kind"}}
        )
        given["data"]["initialisation"] = given["data"].pop("truth_label")  # a loop of 0.1 keeps its fingerprint
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


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
