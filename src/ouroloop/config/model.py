"""What learns, and how it is sampled from."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ouroloop.config.named import NamedModel
from ouroloop.config.section import Added, Number, Proportion, Section, Temperature, Whole


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
    vocabulary_size: Annotated[Whole, Added()] = Field(default=4_096, ge=257, le=1_000_000)
    """The most tokens, where the language has no words of its own, as text: byte-level byte pairs are learnt from D_0,
    once. Unit: tokens."""
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    """One rate for every kind of dropout that the model type has, in training. Unit: share."""
    num_members: Annotated[Whole, Added()] = Field(default=1, ge=1, le=1_000)
    """M_t is the mean of the next-token distributions of this many networks, each trained on all of D_{t-1} from other
    weights and in another order. Unit: networks."""
    options: dict[str, bool | int | float | str] = Field(default={})
    """Further fields of this model type's transformers configuration, e.g. activation_function; {} for none."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")
        return self


class PretrainedModelConfig(Section):
    """A causal LM that exists already. Every generation is fine-tuned from it, or from the generation before
    (train.start=previous). Its shape, its dropout and its vocabulary are its own.
    """

    kind: Literal["transformers"] = "transformers"
    """What learns: a network of transformers."""
    pretrained: str = Field(min_length=1)
    """Only for a model that is fine-tuned: a folder of transformers with weights in safetensors and a tokenizer, or a
    name of the hub with its revision; null for a network from scratch."""
    revision: str | None = None
    """For a name of the hub, the commit: 40 hexadecimal digits. For a folder, a digest of what is in it, which a loop
    takes when it begins; if given, it is checked."""
    context_length: Whole | None = Field(default=None, ge=8, le=1_000_000)
    """How many of its positions are used, the start symbol's included; null for all of them. Unit: tokens."""
    lora_rank: Whole | None = Field(default=None, ge=1, le=4_096)
    """When given, weights stay as they are, and what is trained is a product of two matrices of this rank beside each
    linear layer (LoRA), added to them afterwards; null to train all weights. Unit: features."""
    lora_alpha: Whole = Field(default=16, ge=1, le=65_536)
    """That product is scaled by lora_alpha / lora_rank. Unit: factor."""
    num_members: Whole = Field(default=1, ge=1, le=1_000)
    """M_t is the mean of the next-token distributions of this many networks. Unit: networks."""

    @property
    def named(self) -> NamedModel:
        return NamedModel("model.pretrained", self.pretrained, self.revision)

    @model_validator(mode="after")
    def _is_fixed(self) -> Self:
        self.named.require_commit("model.revision")
        return self

    def _identified(self, given: dict[str, Any]) -> dict[str, Any]:
        """Names the model by what it is, wherever it lies."""
        given = super()._identified(given)
        del given["pretrained"]
        return given | {"revision": self.named.pinned}


class SamplingConfig(Section):
    """Every decoding parameter. There is no top-k and no top-p: both cut tails and would fake a collapse."""

    temperature: Temperature = 0.8
    """What logits are divided by: 1 samples the model as it is, less sharpens it. Unit: ratio."""
    min_p: Annotated[Proportion, Added()] = 0.0
    """Tokens less probable than this times the most probable one are not drawn; 0 cuts nothing (arXiv 2407.01082).
    Unit: ratio."""
    max_new_tokens: Whole = Field(default=200, ge=1, le=1_000)
    """The length at which a text that has not ended is cut off. Unit: tokens."""
    prompt_tokens: Annotated[Whole, Added()] = Field(default=0, ge=0, le=4_096)
    """S_t continues m real examples, which are neither trained on nor held out otherwise, after this many first tokens,
    or after half of a short one; 0 begins every text anew. Unit: words and punctuation marks."""
    batch_size: Whole = Field(default=4_096, ge=1)
    """How many texts are sampled at once, which bounds the memory of the key-value cache. Unit: texts."""


def _model_kind(value: Any) -> Any:
    given = value if isinstance(value, dict) else vars(value) if isinstance(value, Section) else {"kind": None}
    return "pretrained" if given.get("pretrained") is not None else given.get("kind", "transformers")


Model = Annotated[
    Annotated[ModelConfig, Tag("transformers")]
    | Annotated[PretrainedModelConfig, Tag("pretrained")]
    | Annotated[EmpiricalConfig, Tag("empirical")],
    Discriminator(
        _model_kind,
        custom_error_type="model_kind",
        custom_error_message="a model whose kind is 'transformers' or 'empirical'",
    ),
]
