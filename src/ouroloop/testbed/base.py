"""What a testbed is: where the texts come from, how each one is judged, and what is known of their distribution.

The loop, the learners, the record and the report know a testbed only by these protocols. The words and verdicts of a
language are in its own package.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_GOLDEN = (5**0.5 - 1) / 2


class Estimate(NamedTuple):
    value: float
    stderr: float | None = None
    """One standard error over the samples; None where there is none."""


class Tokenizer(Protocol):
    """Texts <-> token ids."""

    @property
    def start_id(self) -> int:
        """Id of the symbol that a sequence starts with; in many vocabularies that is `<eos>` too."""

    @property
    def eos_id(self) -> int:
        """Id of `<eos>`, which ends a sequence and pads it."""

    @property
    def size(self) -> int:
        """Size of the vocabulary, `<eos>` included."""

    @property
    def max_tokens(self) -> int | None:
        """The length after which a text is cut, `<eos>` counted; None where none is."""

    def encode(self, text: str) -> list[int]:
        """Ids of start, text and `<eos>`: what a model is trained on. Raises KeyError on what it cannot spell."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, none of which is `<eos>`."""

    def build(self, context_length: int, continues: bool = False) -> "PreTrainedTokenizerFast":
        """The same mapping for transformers. One that `continues` decodes what follows a prompt, to be joined to it."""


class Forms(NamedTuple):
    """Texts grouped by form, where those of one form are equally probable under P; one entry for each form."""

    num: Array
    """How many texts have this form."""
    log_p: Array
    """Log-probability of each of them, in nats."""
    parts: Mapping[str, Mask]
    """Which forms each coverage is about, by its metric key."""


class Stratum(NamedTuple):
    """Texts that stand for a part of P: all of that part, or independent draws from it. Strata weigh equally."""

    texts: tuple[str, ...]
    log_p: Array
    """Log-probabilities under all of P, in nats."""
    weights: Array
    """The probability of each text given the stratum, or 1/n for n draws; they sum to 1."""
    is_exact: bool
    parts: Mapping[str, Mask]
    """Which texts each coverage is about, by its metric key."""


class Distribution(Protocol):
    """P, the distribution that original data is drawn from, where it is known in closed form."""

    @property
    def forms(self) -> Forms:
        """All of P."""

    @property
    def entropy_nats(self) -> float: ...

    @property
    def masses(self) -> Mapping[str, str]:
        """Metric key -> the part of P (a key of `parts`) whose mass under M it measures."""

    def supports(self, judgement: Any) -> bool:
        """Whether P gives the judged text a probability above 0."""

    def log_probabilities(self, texts: Sequence[str]) -> Array:
        """Log-probabilities of texts that P supports, in nats."""

    def forms_of(self, texts: Sequence[str], judgements: Mapping[str, Any]) -> Forms:
        """Each of these texts, which P supports, as a form of its own."""

    def strata(self, stream: Callable[[int], np.random.Generator], exact: bool) -> list[Stratum]:
        """A stratum for each part of P, complete where it can be enumerated; `stream(n)` makes the n-th one's draws.

        With `exact`, parts that take seconds to score are enumerated too. Draws are independent of D_0, hence may occur
        in it: leaving those out would bias the divergence.
        """

    def expected_unique(self, num_draws: int) -> float:
        """The expected number of distinct texts among that many independent draws."""

    def original_log_probabilities(self, num_examples: int) -> Array:
        """For each form, the log-probability of a text picked from an original dataset of `num_examples`."""


class Testbed(Protocol):
    """A language in which texts are drawn, written by models, and judged."""

    @property
    def name(self) -> str: ...

    @property
    def material(self) -> str:
        """What the texts are, in words: logic expressions."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the language has no vocabulary of its own: then the learner brings one."""

    @property
    def distribution(self) -> Distribution | None:
        """None where P has no closed form: then nothing is said about coverage and divergence."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the cells of `row` are; the last is what a text is called."""

    @property
    def composition(self) -> Mapping[str, str]:
        """Class -> the measure that is its share; each text is in one, so shares sum to 1. Empty without verdicts."""

    @property
    def headline(self) -> Mapping[str, str]:
        """Word -> measure: the few that a narrow table has room for."""

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Measure -> what it is, in words, for those that are shares of all texts."""

    @property
    def means(self) -> Mapping[str, str]:
        """Measure -> what it is, in words, for the others: each has a panel in a figure of them."""

    @property
    def definitions(self) -> Mapping[str, str]:
        """Measure -> how it is computed and which way is worse, in a sentence, for those of `means`."""

    @property
    def max_compared(self) -> int | None:
        """How many texts, evenly chosen, are compared pair by pair; None for all of them."""

    @property
    def is_finite(self) -> bool:
        """Whether fresh data runs out: then no more is asked for than a training set takes, and nothing repeats."""

    @property
    def digest(self) -> str:
        """Digest of what it draws from, where the configuration does not determine that; else empty."""

    @property
    def held_out(self) -> Sequence[str]:
        """Real texts on which no generation trains, where P is not known; else none."""

    def prepared(self, seed: int, num_original: int, num_fresh: int, num_prompts: int = 0) -> "Testbed":
        """The same testbed for one loop, which will ask for that many texts in all.

        Raises:
            ConfigError: it cannot give them.
        """

    def original(self, count: int, rng: np.random.Generator) -> list[str]:
        """D_0: `count` texts."""

    def fresh(self, count: int, generation: int, rng: np.random.Generator) -> list[str]:
        """F_t: `count` more."""

    def tokens(self, text: str) -> Sequence[str]:
        """What length and edit distance are counted in; `<eos>` is not among them."""

    def judge(self, text: str) -> Any:
        """What is known about any string; it never raises."""

    def row(self, text: str) -> tuple[str | int, ...]:
        """A cell for each of `columns`, the text itself last; an empty one where there is nothing to say."""

    def tally(self, sample: "Sample") -> list[tuple[str, int]]:
        """How many texts of a sample each class has, such as a depth; empty where there are no classes."""

    def measures(self, sample: "Sample", original: "Sample") -> dict[str, Estimate]:
        """What only this testbed measures of S_t, beside D_0."""

    def copied(self, sample: "Sample", training_set: Sequence[str]) -> dict[str, Estimate]:
        """What only this testbed measures of S_t, beside D_{t-1}."""

    def cross_check(self, texts: Sequence[str]) -> None:
        """Have an independent judge see these texts too. Raises AssertionError where it differs."""


class Endless:
    """What is common to testbeds whose source, such as a grammar, never ends and is all in the configuration."""

    means: Mapping[str, str] = MappingProxyType({})
    definitions: Mapping[str, str] = MappingProxyType({})
    max_compared: int | None = None
    is_finite = False
    digest = ""
    held_out: Sequence[str] = ()

    def prepared(self, seed: int, num_original: int, num_fresh: int, num_prompts: int = 0) -> Self:
        return self

    def copied(self, sample: "Sample", training_set: Sequence[str]) -> dict[str, Estimate]:
        return {}


@runtime_checkable
class Verifier(Protocol):
    """A testbed whose texts can be told right from wrong."""

    def verify(self, text: str, max_depth: int | None = None) -> bool | None:
        """Whether any given string is right; None where a verifier that sees no deeper than `max_depth` cannot tell."""


@runtime_checkable
class Prompting(Protocol):
    """A testbed with real texts that are neither trained on nor held out, for models to continue."""

    def beginnings(self, num_tokens: int) -> list[str]:
        """The first `num_tokens` tokens of each, at most half of it; the same in every generation."""


@runtime_checkable
class Featured(Protocol):
    """A testbed whose texts have a form that can be read off without knowing whether they are right."""

    def features(self, text: str) -> tuple[int, ...]:
        """For any string: how deeply it nests, then counts, its length last."""


def words_of(testbed: Testbed) -> dict[str, str]:
    """Measure -> its word, for those of a narrow table: the class if it is the share of one, else the headline's."""
    classes = {key: word for word, key in testbed.composition.items()}
    return {key: classes.get(key, word) for word, key in testbed.headline.items()}


def noun_of(testbed: Testbed) -> str:
    """What its texts are called, in the plural: expressions."""
    return f"{testbed.columns[-1]}s"


def is_share(key: str) -> bool:
    """Whether a measure of figures and tables is in [0, 1]; the key of one in nats, or of a ratio, says so."""
    return "nats" not in key and "ratio" not in key


def as_words(key: str, value: float) -> str:
    """A measure as people read it: a share as per cent."""
    return f"{value:.1%}" if is_share(key) else f"{value:.3f}"


@dataclass(frozen=True, eq=False)
class Sample:
    """Texts sampled from one model, reduced to distinct ones with counts, and judged by their testbed.

    The most frequent come first, and among equals the first sampled: the head is a fair sample.

    Raises:
        ValueError: there are no texts; nothing sampled is not "0 % correct".
    """

    counts: Mapping[str, int]
    testbed: Testbed

    @classmethod
    def of(cls, texts: Sequence[str], testbed: Testbed) -> "Sample":
        if not texts:
            raise ValueError("no texts: there is nothing to measure")
        return cls(dict(Counter(texts).most_common()), testbed)

    @cached_property
    def judgements(self) -> dict[str, Any]:
        return {text: self.testbed.judge(text) for text in self.counts}

    @cached_property
    def size(self) -> int:
        return sum(self.counts.values())

    @cached_property
    def spread(self) -> list[str]:
        """All sampled texts, repeats included, in an order in which every beginning is an even cross-section.

        It is that of the fractional parts of multiples of the golden ratio, which spread over [0, 1) as evenly as any.
        """
        texts = [text for text, count in self.counts.items() for _ in range(count)]
        return [texts[i] for i in np.argsort(np.arange(len(texts)) * _GOLDEN % 1, kind="stable")]

    def rate(self, texts: Sequence[str] | set[str]) -> Estimate:
        """Share of all sampled texts that are among `texts`, with the binomial standard error."""
        share = sum(self.counts[text] for text in texts) / self.size
        return Estimate(share, float(np.sqrt(share * (1 - share) / self.size)))

    def mean(self, values: Mapping[str, float]) -> Estimate:
        """Mean over the sampled texts that have a value, of which there is at least one, repeats counted."""
        value = np.array(list(values.values()), dtype=np.float64)
        weights = np.array([self.counts[text] for text in values], dtype=np.float64)
        n = weights.sum()
        mean = float(value @ weights / n)
        if n < 2:
            return Estimate(mean)
        return Estimate(mean, float(np.sqrt(weights @ (value - mean) ** 2 / (n - 1) / n)))

    def most_frequent(self, limit: int) -> list[tuple[Any, ...]]:
        """Rows of (count, share, what the testbed says of the text, the text), the head of the sample."""
        return [
            (count, count / self.size, *self.testbed.row(text)) for text, count in islice(self.counts.items(), limit)
        ]
