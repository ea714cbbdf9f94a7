"""A study on text: what its answer says of a measure that decides nothing, and that its means are over one corpus."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ouroloop.config import ConfigError
from ouroloop.record.history import history
from ouroloop.record.track import Store
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("root")]


def corpus(path: Path, count: int = 300) -> None:
    texts = [f"Row {i} of {i % 9} has {i % 5} others in its {i % 13}th place." for i in range(count)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))


def run(path: Path, seeds: list[int]) -> str:
    data = {"kind": "text", "path": str(path), "num_examples": 60, "num_held_out": 20, "compared_tokens": 300}
    loop = {"num_generations": 2, "data": data, "model": {"kind": "empirical"}}
    given = {"synthetic_proportions": {"incremental": [0.5, 1.0]}, "seeds": seeds, "loop": loop}
    screen = StringIO()
    assert run_study(StudyConfig.model_validate(given), "on-text", Console(file=screen, width=200)) == 0
    return screen.getvalue()


def test_the_answer_has_beside_it_what_diversity_does_not_see(tmp_path: Path) -> None:
    corpus(tmp_path / "corpus.jsonl")
    said = run(tmp_path / "corpus.jsonl", [1, 2])
    assert (
        "incremental, T = 0.8: texts that fall apart keep their edit distances too, so read beside it, at t = 2:"
        in said
    )
    curves = {loop.name: history(loop, ["distinct_3"])["distinct_3"] for loop in Store.open().find(level="loop")}
    ends = {λ: [curve[2] for name, curve in curves.items() if f"-{λ}-" in name] for λ in ("0.5", "1")}
    means = ", ".join(f"{sum(values) / 2:.3f} at λ = {λ}" for λ, values in ends.items())
    first = sum(curve[1] for curve in curves.values()) / 4
    assert f"  distinct-3: {means}; M_1's is {first:.3f}\n" in said
    assert run(tmp_path / "corpus.jsonl", [1, 2]).splitlines()[-2:] == said.splitlines()[-2:]
    (study,) = Store.open().find(level="study")
    assert f"  distinct-3: {means}; M_1's is {first:.3f}" in json.loads(study.read_bytes("answer.json"))["answer"]


def test_a_study_does_not_go_on_with_another_corpus(tmp_path: Path) -> None:
    """Neither with more seeds, whose means would be over both, nor by showing the answer that is the old one's."""
    corpus(tmp_path / "corpus.jsonl")
    run(tmp_path / "corpus.jsonl", [1])
    corpus(tmp_path / "corpus.jsonl", 301)
    for seeds in ([1], [1, 2]):
        with pytest.raises(
            ConfigError, match=r"the corpus is not what it was when incremental-\S+ of study 'on-text' began"
        ):
            run(tmp_path / "corpus.jsonl", seeds)
    (study,) = Store.open().find(level="study")
    assert study.status == "FINISHED"
    corpus(tmp_path / "corpus.jsonl")
    assert "2 seeds" in run(tmp_path / "corpus.jsonl", [1, 2])
