"""What a loop starts from: the testbed, and how much of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ouroloop.config.named import NamedModel
from ouroloop.config.section import Added, Section, Whole, with_new_names
from ouroloop.testbed.base import Testbed
from ouroloop.testbed.logic.grammar import TruthLabel, capacity
from ouroloop.testbed.logic.testbed import LogicTestbed
from ouroloop.testbed.text.testbed import TextTestbed


class LogicData(Section):
    """Logic expressions, whose truth is decidable."""

    kind: Literal["logic"] = "logic"
    """The testbed: `logic`, expressions whose truth is decidable, or `text`, a corpus of yours."""
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
    def testbed(self) -> LogicTestbed:
        return LogicTestbed(self.min_depth, self.max_depth, self.truth_label)

    @property
    def feature_model(self) -> None:
        """Nothing is asked of another model where truth is decidable."""

    @property
    def longest(self) -> tuple[int, str] | None:
        """Length of the longest expression in words, 2^d leaves and three for each of 2^d - 1 operators; its name."""
        return int(4 * 2**self.max_depth - 3), f"expression of depth {self.max_depth}"

    @property
    def variant(self) -> str:
        """What distinguishes it in names from the usual data, True expressions; empty for those."""
        return "" if self.truth_label is TruthLabel.TRUE_ONLY else self.truth_label.value

    @property
    def tags(self) -> dict[str, str]:
        return {"truth_label": self.truth_label.value}


class TextData(Section):
    """A corpus of natural language, read as a stream: only what D_0, fresh data and held-out text need is held."""

    kind: Literal["text"]
    """The testbed: a corpus."""
    path: str = Field(min_length=1)
    """For text only: a txt, jsonl, csv or parquet file, a folder of these; a dataset of the hub, NAME or NAME:CONFIG
    (needs ouroloop[text]); or docstrings, the sentences that document the libraries this program is built on."""
    text_column: str = "text"
    """Which field of a row is the text, in jsonl, csv, parquet and datasets of the hub."""
    block_tokens: Whole = Field(default=64, ge=4, le=4_096)
    """The length at which a longer document is cut into examples. Unit: words and punctuation marks."""
    num_examples: Whole = Field(ge=4, le=10_000_000)
    """m, the size of D_0 and of every S_t. Unit: examples."""
    num_held_out: Whole = Field(default=500, ge=2, le=1_000_000)
    """Real examples on which no generation trains, the same for every seed, to measure cross-entropy on. Unit:
    examples."""
    compared_tokens: Whole = Field(default=10_000, ge=10, le=100_000_000)
    """How much distinct-n, n-gram entropy, vocabulary and compression are computed over, of D_0 and S_t alike, since
    they depend on it; at most half of D_0. Unit: words and punctuation marks."""
    mauve_model: Annotated[str | None, Added()] = Field(default=None, min_length=1)
    """The model by whose features of a text's last token MAUVE compares S_t with held-out text: a folder of
    transformers with weights in safetensors and a tokenizer, or a name of the hub with its revision (needs
    ouroloop[mauve]); null to leave MAUVE out."""
    mauve_revision: Annotated[str | None, Added()] = None
    """The revision of that model, as model.revision is that of the one that learns."""

    @model_validator(mode="after")
    def _feature_model_is_fixed(self) -> Self:
        if self.feature_model is not None:
            self.feature_model.require_commit("data.mauve_revision")
        elif self.mauve_revision is not None:
            raise ValueError("mauve_revision is the revision of data.mauve_model, which is null")
        return self

    @property
    def feature_model(self) -> NamedModel | None:
        if self.mauve_model is None:
            return None
        return NamedModel("data.mauve_model", self.mauve_model, self.mauve_revision)

    def _identified(self, given: dict[str, Any]) -> dict[str, Any]:
        """Names the model by what it is, wherever it lies, since another one has other features."""
        given = super()._identified(given)
        if self.feature_model is None:
            return given
        del given["mauve_model"]
        return given | {"mauve_revision": self.feature_model.pinned}

    @property
    def testbed(self) -> TextTestbed:
        return TextTestbed(
            self.path, self.text_column, self.block_tokens, self.num_examples, self.num_held_out, self.compared_tokens
        )

    @property
    def longest(self) -> tuple[int, str] | None:
        """Not known: a model has tokens of its own."""
        return None

    @property
    def variant(self) -> str:
        return self.kind

    @property
    def tags(self) -> dict[str, str]:
        return {"corpus": self.path}


def _kind(value: Any) -> Any:
    return value.get("kind", "logic") if isinstance(value, dict) else getattr(value, "kind", None)


Data = Annotated[
    Annotated[LogicData, Tag("logic")] | Annotated[TextData, Tag("text")],
    Discriminator(_kind, custom_error_type="data_kind", custom_error_message="data whose kind is 'logic' or 'text'"),
]

USUAL_TESTBED: Testbed = LogicTestbed()
"""The testbed of a record that does not say which, as of data that names no kind."""
