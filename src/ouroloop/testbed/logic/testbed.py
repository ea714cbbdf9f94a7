"""The logic testbed: expressions, all True (or all False, or half of each), and what became of their truth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ouroloop.testbed.base import Endless, Estimate, Sample
from ouroloop.testbed.logic.distribution import LogicDistribution
from ouroloop.testbed.logic.grammar import OPERATORS, WORDS, TruthLabel, unique_set
from ouroloop.testbed.logic.verify import Judgement, Verdict, judge
from ouroloop.testbed.tokenizer import WordTokenizer

TOKENIZER = WordTokenizer(WORDS)


@dataclass(frozen=True)
class LogicTestbed(Endless):
    """Unique expressions of depth `min_depth`..`max_depth` with their truth label."""

    min_depth: int = 1
    max_depth: int = 5
    truth_label: TruthLabel = TruthLabel.TRUE_ONLY

    name = "logic"
    material = "logic expressions"
    tokenizer = TOKENIZER
    columns = ("verdict", "depth", "expression")
    composition: ClassVar[Mapping[str, str]] = {"True": "correctness", "False": "false_rate", "malformed": "error_rate"}
    headline: ClassVar[Mapping[str, str]] = {"true": "correctness", "errors": "error_rate"}
    descriptions: ClassVar[Mapping[str, str]] = {
        "correctness": "True, of all texts",
        "false_rate": "False",
        "error_rate": "malformed",
        "grammar_membership": "True and derivable by the grammar",
    }

    @property
    def distribution(self) -> LogicDistribution:
        return LogicDistribution(self.min_depth, self.max_depth, self.truth_label)

    def original(self, count: int, rng: np.random.Generator) -> list[str]:
        return unique_set(count, rng, min_depth=self.min_depth, max_depth=self.max_depth, truth_label=self.truth_label)

    def fresh(self, count: int, generation: int, rng: np.random.Generator) -> list[str]:
        return self.original(count, rng)

    def tokens(self, text: str) -> Sequence[str]:
        return text.split()

    def judge(self, text: str) -> Judgement:
        return judge(text)

    def row(self, text: str) -> tuple[str | int, ...]:
        judgement = judge(text)
        return str(judgement.verdict), "" if judgement.depth is None else judgement.depth, text

    def tally(self, sample: Sample) -> list[tuple[str, int]]:
        """(depth, number of texts of it), the shallowest first and `malformed`, which has no depth, last."""
        counts = _depth_counts(sample)
        ordered = sorted(counts.items(), key=lambda item: (item[0] is None, item[0]))
        return [("malformed" if depth is None else str(depth), count) for depth, count in ordered]

    def measures(self, sample: Sample, original: Sample) -> dict[str, Estimate]:
        """Rates count all sampled texts, so a malformed one counts against the model.

        `grammar_membership` is True and derivable by the grammar at the configured depths. `mean_depth` is over
        well-formed texts, and absent when there are none.
        """
        true = _with_verdict(sample, Verdict.TRUE)
        members = [t for t in true if sample.judgements[t].is_in_grammar(self.min_depth, self.max_depth)]
        depths = {text: j.depth for text, j in sample.judgements.items() if j.depth is not None}
        measures = {
            "correctness": sample.rate(true),
            "syntactic_correctness": sample.rate(_with_verdict(sample, Verdict.TRUE, Verdict.FALSE)),
            "false_rate": sample.rate(_with_verdict(sample, Verdict.FALSE)),
            "error_rate": sample.rate(_with_verdict(sample, Verdict.MALFORMED)),
            "grammar_membership": sample.rate(members),
            "depth_tv": Estimate(depth_total_variation(sample, original)),
        }
        return measures | {"mean_depth": sample.mean(depths)} if depths else measures

    def verify(self, text: str, max_depth: int | None = None) -> bool | None:
        """Whether it is True (False where all original data is False); a malformed text is wrong at any depth."""
        judgement = judge(text)
        if judgement.depth is None:
            return False
        if max_depth is not None and judgement.depth > max_depth:
            return None
        return judgement.verdict is (Verdict.FALSE if self.truth_label is TruthLabel.FALSE_ONLY else Verdict.TRUE)

    def features(self, text: str) -> tuple[int, ...]:
        """How deeply its brackets nest, how many of each operator it has, and how many words."""
        words, level, deepest = text.split(), 0, 0
        for word in words:
            level += (word == "(") - (word == ")")
            deepest = max(deepest, level)
        return deepest, *(words.count(operator) for operator in OPERATORS), len(words)

    def cross_check(self, texts: Sequence[str]) -> None:
        from ouroloop.testbed.logic import oracle  # sympy takes a third of a second to import

        oracle.cross_check(texts)


def _with_verdict(sample: Sample, *verdicts: Verdict) -> list[str]:
    return [text for text, judgement in sample.judgements.items() if judgement.verdict in verdicts]


def _depth_counts(sample: Sample) -> Counter[int | None]:
    counts: Counter[int | None] = Counter()
    for text, judgement in sample.judgements.items():
        counts[judgement.depth] += sample.counts[text]
    return counts


def depth_total_variation(sample: Sample, reference: Sample) -> float:
    """Half the summed difference of the two depth distributions, in [0, 1]; malformed is a class of its own."""
    ours, theirs = _depth_counts(sample), _depth_counts(reference)
    differences = (abs(ours[d] / sample.size - theirs[d] / reference.size) for d in ours.keys() | theirs.keys())
    return sum(differences) / 2
