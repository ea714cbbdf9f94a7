"""The report of loops on text: its words are those of the testbed, and what a model wrote is shown as it is, safely."""

import base64
import gzip
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.record.track import Store
from ouroloop.report.findings import findings_json, summary
from ouroloop.report.folder import write_report
from ouroloop.report.models import find_model
from ouroloop.report.registry import register
from ouroloop.report.results import read_results
from ouroloop.report.stages import registered_name
from ouroloop.report.tables import measures
from ouroloop.study.config import StudyConfig
from ouroloop.study.driver import run_study
from tests.report.test_findings import with_history
from tests.report.test_summary import loop, results

UNIQUE = {"curation": {"steps": ["unique"]}}
HOSTILE = [
    "<script>alert(1)</script>",
    "\u202eevil\u202c",
    "\x1b[31mred\x1b[0m",
    "tab\tand\nline",
    "</script><img onerror=x>",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LoopConfig:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    texts = [f"Row {i} of {i % 9} has {HOSTILE[i % 5]} in its {i % 13}th place." for i in range(300)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = {"kind": "text", "path": str(path), "num_examples": 60, "num_held_out": 20, "compared_tokens": 300}
    return LoopConfig.model_validate({"num_generations": 3, "data": data, "model": {"kind": "empirical"}})


@pytest.fixture
def page(root: Path, config: LoopConfig) -> str:
    for seed in (1, 2):
        run_loop(config.changed(seed=seed), Store.open(), name=f"on-text-{seed}", study="on-text")
    results = read_results(Store.open(), "on-text")
    assert "fixed" not in summary(results)[-1]
    assert summary(results)[-1].startswith("Distinct-3 went from ")
    assert "true" not in findings_json(results).lower()
    return write_report(results, root / "report").read_text()


def test_beside_a_measure_is_that_of_d_0_and_of_a_half_beside_the_other(config: LoopConfig) -> None:
    """The interval of a share stays below 1; test_findings has its arithmetic."""
    loops = [
        with_history(loop("c", seed, [1.0, 1.0]), distinct_3=[0.95, value], control_distinct_3=[0.8, None])
        for seed, value in enumerate((0.9, 0.99, 0.97))
    ]
    (row,) = measures(results(*(replace(one, config=config) for one in loops))).to_dict("records")
    assert (row["measure"], row["generation"], row["seeds"]) == ("distinct_3", 1, 3)
    assert (row["lowest"], row["highest"], row["real"], row["control"]) == pytest.approx((0.9, 0.99, 0.95, 0.8))
    assert (row["mean"], row["interval_low"], row["interval_high"]) == pytest.approx((0.953, 0.593, 0.997), abs=0.001)


@pytest.mark.heavy
def test_methods_on_text_have_no_board_for_want_of_what_it_ranks_by(root: Path, config: LoopConfig) -> None:
    methods = {"all": {"description": "All"}, "unique": {"description": "One of each", "changes": UNIQUE}}
    study = {"cycles": ["full_synthetic"], "synthetic_proportions": {}, "loop": config.model_dump(mode="json")}
    study["seeds"] = [1]
    run_study(StudyConfig.model_validate(study | {"methods": methods}), "methods-on-text", Console(file=StringIO()))
    write_report(read_results(Store.open(), "methods-on-text"), root / "report")
    assert (root / "report" / "loops.csv").exists()
    assert not (root / "report" / "board.csv").exists()


@pytest.mark.heavy
def test_it_speaks_of_text_and_never_of_truth(page: str, root: Path) -> None:
    said = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    for word in ("Beside real text", "distinct-3", "self-BLEU", "one half of D<sub>0</sub> beside the other"):
        assert word in said
    assert "<dt>self-BLEU</dt><dd>BLEU-4 of a text against the others, 0 to 1; higher is more alike</dd>" in said
    assert "60 texts" in said
    assert (root / "report" / "measures.png").stat().st_size > 1_000
    assert (root / "report" / "measures.csv").read_text().count("distinct_3,distinct-3,") == 3
    assert "correctness" not in (root / "report" / "loops.csv").read_text()
    assert not (root / "report" / "composition.csv").exists()


LOGIC = re.compile(
    r"\bexpressions?\b|\bTrue\b|\bFalse\b|malformed|verdict|grammar|correctness|depth|initialisation|truth"
)


@pytest.mark.heavy
def test_no_file_of_its_folder_has_a_word_of_logic(page: str, root: Path) -> None:
    """Nor its name. What the page's scripts and styles call their own parts is for nobody to read."""
    files = {path.name: path for path in (root / "report").iterdir()}
    assert files.keys() >= {"report.html", "texts.csv", "measures.csv", "metrics.csv", "loops.csv", "findings.json"}
    for name, path in files.items():
        said = "" if path.suffix == ".png" else path.read_text()
        if name == "report.html":
            packed = re.search(r'id="data">([^<]*)<', said)
            assert packed is not None
            tables = json.loads(gzip.decompress(base64.b64decode(packed[1])))["tables"]
            said = re.sub(r"<script.*?</script>|<style.*?</style>", "", said, flags=re.DOTALL) + json.dumps(tables)
        assert not LOGIC.findall(f"{name} {said}"), name


@pytest.mark.heavy
def test_what_was_written_enters_the_page_as_data_alone(page: str) -> None:
    assert "alert(1)" not in page
    assert "<img onerror" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    packed = re.search(r'id="data">([^<]*)<', page)
    assert packed is not None
    tables = json.loads(gzip.decompress(base64.b64decode(packed[1])))["tables"]
    assert "expressions" not in tables
    assert tables["texts"]["columns"][5:] == ["tokens", "text"]
    texts = [row[-1] for row in tables["texts"]["rows"]]
    assert all(any(hostile in text for text in texts) for hostile in HOSTILE)


def test_a_model_of_text_has_a_name_of_its_own(config: LoopConfig) -> None:
    assert registered_name(config) == "ouroloop-full_synthetic-1.00-text"
    assert config.label == "full_synthetic-text-empirical-T0.8-s0"


@pytest.mark.heavy
def test_a_model_of_text_is_registered_with_its_own_tokens_and_sampled(config: LoopConfig, root: Path) -> None:
    model = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "context_length": 96, "vocabulary_size": 300}
    train = {"num_steps": 4, "batch_size": 4, "learning_rate": 0.01, "num_warmup_steps": 1, "validate_every": 2}
    small = LoopConfig.model_validate(
        config.model_dump() | {"model": model, "train": train, "num_generations": 2, "sampling": {"max_new_tokens": 20}}
    )
    store = Store.open()
    run_loop(small, store, name="network", study="network")
    assert [entry.outcome for entry in register(store, "network") if entry.alias == "healthy"] == ["registered"]
    found = find_model("models:/ouroloop-full_synthetic-1.00-text@healthy")
    texts = found.write(3, prompt="Row 1")
    assert len(texts) == 3
    assert all(text.startswith("Row 1") for text in texts)
    assert found.testbed.columns == ("tokens", "text")
    version = store.client.get_model_version_by_alias("ouroloop-full_synthetic-1.00-text", "healthy")
    assert "distinct_3" not in version.tags
    assert version.tags["heldout_t1_nats_per_token"]
    assert "on natural language" in version.description
    assert "Eight words" not in version.description
    folder = Path(version.source.removeprefix("file://"))
    for place in (folder, folder / "components" / "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place)
        assert tokenizer("Row 7 of 3").input_ids == found.fitted.tokenizer.encode("Row 7 of 3")[:-1]
