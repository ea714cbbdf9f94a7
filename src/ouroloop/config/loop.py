"""One loop: all of the other sections, where its stages begin, and what does not determine it."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from ouroloop.config.curation import CurationConfig, Oracle
from ouroloop.config.cycle import CycleConfig
from ouroloop.config.data import Data, LogicData
from ouroloop.config.model import EmpiricalConfig, Model, ModelConfig, PretrainedModelConfig, SamplingConfig
from ouroloop.config.section import Added, Number, Proportion, Section, Seed, Whole
from ouroloop.config.train import TrainConfig

NO_PART = ("description", "keep_weights", "resources")
"""Fields that have no part in what a loop comes to: neither in its fingerprint nor in what tells it from others."""


class NeedsNetworkError(ValueError):
    """The ideal learner was asked for what only a network can do."""


class StageConfig(Section):
    """Thresholds on a measure r: healthy r >= healthy > onset r >= onset > decline r >= decline."""

    measure: Annotated[Literal["diversity_retention", "coverage"], Added()] = "diversity_retention"
    """What r is: diversity over D_0's, as in the paper, or coverage, the overlap with the true distribution, over
    M_1's. Retention stays above 0.7 in loops whose coverage has halved."""
    healthy: Proportion = 0.95
    """A loop is healthy from this r up. Unit: share of D_0's diversity, or of M_1's coverage."""
    onset: Proportion = 0.5
    """Below `healthy`, it is at the onset of collapse from this r up. Unit: as `healthy`."""
    decline: Proportion = 0.05
    """Below `onset`, it declines from this r up, and has collapsed below it. Unit: as `healthy`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.healthy > self.onset > self.decline:
            raise ValueError(f"need healthy > onset > decline, got {self.healthy}, {self.onset}, {self.decline}")
        return self


class ResourceConfig(Section):
    """What a machine of a cluster sets aside for one loop. Where a loop runs changes nothing in it."""

    num_cpus: Number = Field(default=1.0, ge=0, le=4_096)
    """Processors. Unit: cores."""
    num_gpus: Number = Field(default=0.0, ge=0, le=64)
    """Fractions are allowed: at 0.25 four loops share a GPU. Unit: GPUs."""
    memory: Whole | None = Field(default=None, ge=1)
    """Memory; a loop that takes more than its machine has is killed and tried again elsewhere. Unit: bytes."""


class LoopConfig(Section):
    """One self-consuming loop: everything that determines its result, bit for bit."""

    description: str = ""
    """What the loop is for, in a sentence or two; no part of what determines it."""
    seed: Seed = 0
    """What every random draw of the loop follows from."""
    num_generations: Whole = Field(ge=1, le=100_000)
    """How often a model is trained and sampled from. Unit: generations."""
    data: Data
    """D_0 and fresh data: what the grammar, or a corpus, gives."""
    cycle: CycleConfig = CycleConfig()
    """How the training set of the next generation is put together."""
    curation: Annotated[CurationConfig, Added()] = CurationConfig()
    """What becomes of S_t before it is learnt from."""
    model: Model
    """What learns."""
    train: TrainConfig | None = None
    """How a network is trained; the ideal learner has no use for it."""
    sampling: SamplingConfig = SamplingConfig()
    """How S_t is drawn from M_t."""
    stages: StageConfig = StageConfig()
    """Where a stage of the collapse begins."""
    exact_every: Whole = Field(default=25, ge=1)
    """Interval between exact evaluations of all expressions of depth 1 to 3, which take a network seconds. In between,
    what concerns depth 3 is estimated, with a standard error. Unit: generations."""
    keep_weights: Literal["all", "stages", "last", "none"] = "stages"
    """Which M_t are kept; `stages` keeps the first of each collapse stage and the last, as registering needs."""
    resources: ResourceConfig = ResourceConfig()
    """What a cluster sets aside for the loop; it changes no result."""

    @model_validator(mode="after")
    def _train_belongs_to_model(self) -> Self:
        if self.model.kind == "transformers" and self.train is None:
            raise ValueError("train is missing: a network needs train.num_steps and so on")
        if self.model.kind == "empirical" and self.train is not None:
            raise NeedsNetworkError(
                "model.kind empirical trains nothing; leave train out, or write train: null (--train=null)"
            )
        return self

    @model_validator(mode="after")
    def _every_batch_has_examples(self) -> Self:
        train, m = self.train, self.data.num_examples
        if train is not None and train.accumulate > 1:
            least, there = train.batch_size * (train.accumulate - 1), m - train.num_validation_examples(m)
            if there <= least:
                raise ValueError(
                    f"train.accumulate {train.accumulate} batches of {train.batch_size} take more than {least:,} "
                    f"examples, and only {there:,} of data.num_examples {m:,} are trained on"
                )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        longest, writes = self.data.longest, self.sampling.max_new_tokens
        if longest is not None and writes < longest[0] + 1:
            raise ValueError(
                f"sampling.max_new_tokens {writes} must be at least {longest[0] + 1}, "
                f"the longest {longest[1]} and its <eos>"
            )
        length = None if isinstance(self.model, EmpiricalConfig) else self.model.context_length
        if length is not None and length <= writes:
            raise ValueError(
                f"model.context_length {length} must be at least {writes + 1}: "
                "the start token and sampling.max_new_tokens"
            )
        return self

    @model_validator(mode="after")
    def _prompts_are_possible(self) -> Self:
        lacks = (
            (self.data.kind != "text", "real examples to go on with: choose data.kind=text"),
            (self.model.kind == "empirical", "a network: model.kind empirical draws whole texts"),
            (bool(self.curation.steps), "to know how many texts are drawn: leave curation out"),
            (self.train is not None and self.train.devices > 1, "train.devices=1"),
        )
        if self.sampling.prompt_tokens:
            for is_so, what in lacks:
                if is_so:
                    raise ValueError(f"sampling.prompt_tokens needs {what}")
        return self

    @model_validator(mode="after")
    def _curation_is_possible(self) -> Self:
        of_grammar = self.curation.needs & {Oracle.VERIFIER, Oracle.GRAMMAR, Oracle.FRESH_DATA}
        if of_grammar and self.data.kind != "logic":
            lacks = ", ".join(sorted(of_grammar))
            raise ValueError(f"curation: {self.data.kind} has no {lacks}, which {self.curation.label} needs")
        if self.stages.measure == "coverage" and self.data.testbed.distribution is None:
            raise ValueError(f"stages.measure coverage: the true distribution of {self.data.kind} is not known")
        if self.model.kind == "empirical":
            of_network = [step.name for step in self.curation.steps if step.needs_network]
            of_network += ["sampling.min_p"] if self.sampling.min_p else []
            if of_network:
                raise NeedsNetworkError(f"{of_network[0]} needs a network: model.kind empirical draws whole texts")
        return self

    @model_validator(mode="after")
    def _fields_have_a_use(self) -> Self:
        model, train = self.model, self.train
        if isinstance(model, ModelConfig) and isinstance(self.data, LogicData) and model.vocabulary_size != 4_096:
            raise ValueError("model.vocabulary_size is only for text: the words of data.kind=logic are its vocabulary")
        is_adapted = isinstance(model, PretrainedModelConfig) and model.lora_rank is not None
        if is_adapted and train is not None and train.muon_learning_rate is not None:
            raise ValueError(
                "model.lora_rank leaves Muon no weight matrices to train: write train.muon_learning_rate: null"
            )
        return self

    def pinned(self) -> "LoopConfig":
        """The same with the revisions of models that are folders, as the folders are now."""
        pins: dict[str, Any] = {}
        if isinstance(self.model, PretrainedModelConfig):
            pins["model"] = {"revision": self.model.named.pinned}
        if self.data.feature_model is not None:
            pins["data"] = {"mauve_revision": self.data.feature_model.pinned}
        return self.changed(**pins) if pins else self

    @property
    def of_first(self) -> tuple[Section | None, ...]:
        """What M_1 and S_1 follow from, besides the seed."""
        return self.data, self.model, self.sampling, self.train and self.train.of_first()

    @property
    def is_ideal(self) -> bool:
        """Whether the learner is its training set, which has no weights."""
        return self.model.kind == "empirical"

    @property
    def label(self) -> str:
        """Cycle, proportion, temperature and seed, and what is out of the ordinary: its name among similar loops."""
        parts = [self.curation.label] if self.curation.steps else []
        for section in (self.model, self.train, self.sampling):
            for key, value in ({} if section is None else section.unusual()).items():
                parts.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
        return self.named("-".join(parts))

    @property
    def setting(self) -> str:
        """Cycle and proportion, and data that are not the usual."""
        proportion = "" if self.cycle.synthetic_proportion is None else f"-{self.cycle.synthetic_proportion:g}"
        return f"{self.cycle.kind.value}{proportion}" + (f"-{self.data.variant}" if self.data.variant else "")

    def named(self, method: str) -> str:
        """A loop's name with this method, or whatever is out of the ordinary; with neither where `method` is empty."""
        learner = "" if self.model.kind == "transformers" else f"-{self.model.kind}"
        method = f"-{method}" if method else ""
        return f"{self.setting}{learner}-T{self.sampling.temperature:g}{method}-s{self.seed}"

    def _identified(self, given: dict[str, Any]) -> dict[str, Any]:
        found = super()._identified(given)
        if not self.curation.steps:  # how much may be drawn for no step decides nothing
            found.pop("curation", None)
        return found

    def fingerprint(self) -> str:
        """SHA-256 of everything that the result depends on: equal fingerprints give equal results."""
        given = self.identity()
        for changes_nothing in NO_PART:
            del given[changes_nothing]
        if isinstance(self.data, LogicData):  # a loop of 0.1 keeps its fingerprint
            del given["data"]["kind"]
            given["data"]["initialisation"] = given["data"].pop("truth_label")
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
