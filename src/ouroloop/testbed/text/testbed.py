"""The text testbed: examples of a corpus, and what becomes of their variety. Nothing is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from ouroloop.errors import ConfigError
from ouroloop.testbed.base import Estimate, Sample
from ouroloop.testbed.text import measures, tokens
from ouroloop.testbed.text.corpus import Corpus, Selection, select

_COMPARED_TEXTS = 500  # at most, for self-BLEU, whose value depends on their number


@dataclass(frozen=True)
class TextTestbed:
    """Examples of a corpus; without a path it only measures and describes texts."""

    path: str = ""
    text_column: str = "text"
    block_tokens: int = 64
    num_examples: int = 2
    num_held_out: int = 0
    compared_tokens: int = 10_000
    seed: int = 0
    num_fresh: int = 0
    num_prompts: int = 0

    name = "text"
    material = "natural language"
    tokenizer = None
    distribution = None
    columns = ("tokens", "text")
    max_compared = 1_000
    is_finite = True
    composition: ClassVar[Mapping[str, str]] = {}
    headline: ClassVar[Mapping[str, str]] = {
        "held-out cross-entropy": "heldout_t1_nats_per_token",
        "distinct-3": "distinct_3",
    }
    descriptions: ClassVar[Mapping[str, str]] = {}
    means: ClassVar[Mapping[str, str]] = {
        "heldout_t1_nats_per_token": "held-out cross-entropy, nats per token",
        "heldout_nats_per_token": "the same as sampled, at T",
        **{f"distinct_{n}": f"distinct-{n}" for n in measures.ORDERS},
        "self_bleu": "self-BLEU",
        "compression_ratio": "compression ratio",
        "ngram_entropy_nats": "bigram entropy, nats",
        "vocabulary_coverage": "coverage of the vocabulary",
        "rare_token_coverage": "of its rarest tenth",
        "repetition": "repetition within a text",
        "verbatim_share": "copied from the training set",
        "mauve": "MAUVE, beside held-out text",
    }

    definitions: ClassVar[Mapping[str, str]] = {
        "heldout_t1_nats_per_token": "of M_t at temperature 1 on real text that nobody trains on; higher is worse",
        "heldout_nats_per_token": "the same of M_t as it is sampled, at temperature T; higher is worse",
        **{f"distinct_{n}": f"different {n}-grams / all {n}-grams; lower is less varied" for n in measures.ORDERS},
        "self_bleu": "BLEU-4 of a text against the others, 0 to 1; higher is more alike",
        "compression_ratio": "bytes / bytes after zlib; higher is more alike",
        "ngram_entropy_nats": "of the bigrams; lower is less varied",
        "vocabulary_coverage": "of the types in as much of D_0, the share that is used; lower is narrower",
        "rare_token_coverage": "the same, of the rarest types, which make up a tenth of D_0's tokens",
        "repetition": "1 - different 4-grams / all 4-grams within a text, mean; higher is worse",
        "verbatim_share": "the longest span of a text that is in its training set / the text, mean; higher is worse",
        "mauve": "likeness to held-out text by the features of another model, 0 to 1; 1 is no difference",
    }

    @cached_property
    def _selected(self) -> Selection:
        return self._select(self.num_examples + self.num_prompts + self.num_fresh)

    def _select(self, count: int) -> Selection:
        corpus = Corpus(self.path, self.text_column, self.block_tokens)
        return select(corpus, self.num_held_out, count, self.seed)

    @property
    def digest(self) -> str:
        return self._selected.digest

    @property
    def held_out(self) -> Sequence[str]:
        return self._selected.held_out

    def prepared(self, seed: int, num_original: int, num_fresh: int, num_prompts: int = 0) -> "TextTestbed":
        """The same for one loop, after one pass over the corpus; one line says what is missing, and of what."""
        mine = replace(self, seed=seed, num_examples=num_original, num_fresh=num_fresh, num_prompts=num_prompts)
        selected = mine._selected
        there = len(selected.held_out) + len(selected.pool)
        lacking = self.num_held_out + num_original + num_fresh + num_prompts - there
        if lacking > 0:
            fresh = f", fresh data {num_fresh:,}" if num_fresh else ""
            fresh += f", prompts {num_prompts:,}" if num_prompts else ""
            raise ConfigError(
                f"data.path {self.path} has {there:,} distinct examples of at most {self.block_tokens} tokens, and "
                f"{lacking:,} are missing: D_0 takes {num_original:,}{fresh}, and {self.num_held_out:,} are held out"
            )
        half = sum(len(tokens.tokens(text)) for text in selected.pool[:num_original]) // 2
        if half < self.compared_tokens:
            raise ConfigError(f"data.compared_tokens {self.compared_tokens:,} must be at most {half:,}, half of D_0")
        return mine

    def original(self, count: int, rng: np.random.Generator) -> list[str]:
        """The first texts of the seed's order; `rng` draws nothing."""
        return self._beginning(count)

    def fresh(self, count: int, generation: int, rng: np.random.Generator) -> list[str]:
        """The next texts of that order, so none is in D_0 or in another F_t."""
        start = self.num_examples + self.num_prompts + (generation - 1) * count
        return self._beginning(start + count)[start:]

    def beginnings(self, num_tokens: int) -> list[str]:
        """The beginnings of the examples between D_0 and F_1."""
        examples = self._beginning(self.num_examples + self.num_prompts)[self.num_examples :]
        found = (tokens.tokens(text) for text in examples)
        return ["".join(of_one[: min(num_tokens, len(of_one) // 2)]) for of_one in found]

    def _beginning(self, count: int) -> list[str]:
        held = self._selected.pool
        pool = held if count <= len(held) else self._select(count).pool
        if len(pool) < count:
            raise ConfigError(f"data.path {self.path}: {count - len(pool):,} examples are missing")
        return list(pool[:count])

    def tokens(self, text: str) -> Sequence[str]:
        return tokens.tokens(text)

    def judge(self, text: str) -> None:
        """Nothing is known about a text but the text itself."""

    def row(self, text: str) -> tuple[str | int, ...]:
        return len(tokens.tokens(text)), text

    def tally(self, sample: Sample) -> list[tuple[str, int]]:
        return []

    def measures(self, sample: Sample, original: Sample) -> dict[str, Estimate]:
        num_texts = min(_COMPARED_TEXTS, self.num_examples // 2)  # so that a half of D_0 has as many
        return measures.lexical(sample, original, self.compared_tokens, num_texts)

    def copied(self, sample: Sample, training_set: Sequence[str]) -> dict[str, Estimate]:
        return measures.copied(sample, training_set)

    def cross_check(self, texts: Sequence[str]) -> None: ...
