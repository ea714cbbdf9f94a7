"""The registry on a real store and really trained models: what is under a name must be M_t, for every tool."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ouroloop.config import ConfigError, CycleConfig, LoopConfig
from ouroloop.learner import learner_of
from ouroloop.learner.network.scoring import log_probabilities
from ouroloop.loop.loop import draw_original, run_loop
from ouroloop.record.provenance import create_loop
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report.models import find_model
from ouroloop.report.registry import register
from ouroloop.report.stages import Candidate, Cell, find_cells, find_stages, registered_name
from ouroloop.science.metrics import half_life
from ouroloop.science.seeding import Streams
from ouroloop.testbed.base import Array
from ouroloop.testbed.logic.grammar import WORDS
from ouroloop.testbed.logic.testbed import TOKENIZER
from tests.conftest import COLLAPSING, TINY, CommandLine

TEXTS = ["", "True", "( not True )", "( ( not False ) and ( not True ) )", ") ) or"]
NAMES = ["ouroloop-incremental-0.50-T0.1", "ouroloop-incremental-1.00-T0.1"]


def snapshot(store: Store) -> dict[str, Any]:
    """Everything that registering could change: models, versions with their times, and the files' bytes."""
    models = {model.name: dict(model) for model in store.client.search_registered_models()}
    versions = {(v.name, v.version): dict(v) for v in store.client.search_model_versions()}
    models = {name: {key: str(value) for key, value in model.items()} for name, model in models.items()}
    folders = {Path(v["source"].removeprefix("file://")) for v in versions.values()}
    files = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {"models": models, "versions": {key: str(value) for key, value in versions.items()}, "files": files}


def scores(model: PreTrainedModel) -> Array:
    (log_p,) = log_probabilities(model, TOKENIZER, TEXTS, [1.0])
    return log_p


def aliases(store: Store, name: str) -> dict[str, Any]:
    """Version by alias."""
    model = store.client.get_registered_model(name)
    return {alias: store.client.get_model_version(name, number) for alias, number in model.aliases.items()}


@pytest.mark.parametrize(
    ("cycle", "temperature", "name"),
    [
        ({"kind": "incremental", "synthetic_proportion": 0.25}, 0.8, "ouroloop-incremental-0.25"),
        ({"kind": "expanding", "synthetic_proportion": 0.5}, 1.0, "ouroloop-expanding-0.50-T1"),
        ({"kind": "fresh_mix", "synthetic_proportion": 0}, 0.8, "ouroloop-fresh_mix-0.00"),
        ({"kind": "incremental", "synthetic_proportion": 0.125}, 0.8, "ouroloop-incremental-0.125"),
        ({"kind": "incremental", "synthetic_proportion": 1e-5}, 0.8, "ouroloop-incremental-0.00001"),
        ({"kind": "full_synthetic"}, 0.8, "ouroloop-full_synthetic-1.00"),
        ({"kind": "balanced"}, 0.8, "ouroloop-balanced"),
    ],
)
def test_the_name_of_a_cell(tiny: LoopConfig, cycle: dict[str, Any], temperature: float, name: str) -> None:
    changed = tiny.changed(cycle=CycleConfig.model_validate(cycle), sampling={"temperature": temperature})
    assert registered_name(changed) == name
    assert registered_name(changed.changed(data={"truth_label": "false_only"})) == f"{name}-false_only"


@pytest.mark.usefixtures("root")
def test_a_stage_rests_on_two_generations(tiny: LoopConfig) -> None:
    """The reason says which generation it is that no weights were kept of: none is on record here."""
    run = create_loop(Store.open(), tiny, "loop", "study", None)

    def onset(*kept: float) -> str:
        cell = Cell("ouroloop-x", (Candidate(run, tiny, dict(enumerate(kept, 1))),))
        return next(one.reason for one in find_stages(cell) if one.stage == "onset")

    assert "weights of M_4 " in onset(0.99, 0.6, 0.99, 0.6, 0.6)
    assert "weights of M_2 " in onset(0.99, 0.6, 0.4, 0.3, 0.3)
    assert "was not in it for two generations in a row" in onset(0.99, 0.6, 0.99)
    assert "not reached by seed" in onset(0.99, 0.3, 0.3)


@pytest.mark.usefixtures("collapsing")
def test_each_alias_is_on_the_first_generation_of_its_stage_in_the_lower_median_seed() -> None:
    store = Store.open()
    loops = store.find(level="loop", study="collapsing")
    assert len(loops) == 4
    for name, proportion in zip(NAMES, ("0.5", "1"), strict=True):
        lives: dict[int, tuple[float, float]] = {}
        histories: dict[int, dict[int, float]] = {}
        for loop in loops:
            if loop.tag("synthetic_proportion") == proportion:
                seed = int(loop.tag("seed") or 0)
                histories[seed] = {t: r for t, r in loop.history("diversity_retention") if t > 0}
                lives[seed] = (half_life(histories[seed]) or np.inf, histories[seed][3])
        seed = min(lives, key=lambda seed: (*lives[seed], seed))  # of two, the lower median is the faster
        bounds = {"healthy": (0.3, np.inf), "onset": (0.2, 0.3), "decline": (0.1, 0.2), "collapsed": (-1, 0.1)}
        kept = histories[seed]
        expected = {
            stage: next(
                (t for t in sorted(kept) if low <= kept[t] < high and (high > 1 or kept.get(t + 1, 1) < high)), None
            )
            for stage, (low, high) in bounds.items()
        }
        found = aliases(store, name)
        assert {alias: int(version.tags["generation"]) for alias, version in found.items()} == {
            stage: t for stage, t in expected.items() if t is not None
        }
        assert {"healthy", "collapsed"} <= found.keys()
        for alias, version in found.items():
            assert (version.tags["stage"], version.tags["study"]) == (alias, "collapsing")
            assert version.tags["seed"] == str(seed)
            assert "median of 2 seeds" in version.tags["representative"]
            generation = store.get(version.run_id)
            assert generation.tag("stage") == alias
            for key in ("diversity_retention", "correctness"):
                assert float(version.tags[key]) == pytest.approx(generation.metrics[key], abs=1e-6)
            assert "healthy r >= 0.3" in version.tags["criterion"]


@pytest.mark.usefixtures("collapsing")
def test_registering_twice_changes_nothing(ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(Store.open())
    done = ouroloop("register", "collapsing")
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert {outcome for _, _, version, outcome in lines if version} == {"unchanged"}
    assert {outcome.partition(":")[0] for _, _, version, outcome in lines if not version} <= {"skipped"}
    assert len(lines) == 8
    assert snapshot(Store.open()) == before


@pytest.mark.heavy
@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize("name", NAMES)
def test_whatever_loads_it_gets_M_1(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """M_1 is trained again here; every way of loading gives its log-probabilities to 1e-6."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    version = aliases(Store.open(), name)["healthy"]
    assert version.tags["generation"] == "1"
    loop = LoopConfig.model_validate(COLLAPSING["loop"] | {"seed": int(version.tags["seed"])})
    loop = loop.changed(sampling={"temperature": 0.1})
    fitted = learner_of(loop).fit(draw_original(loop), Streams(loop.seed, 1))
    (expected,) = fitted.log_prob(TEXTS, [1.0])

    uri = f"models:/{name}@healthy"
    folder = mlflow.artifacts.download_artifacts(uri)
    pipeline = mlflow.transformers.load_model(uri)
    parts = mlflow.transformers.load_model(uri, return_type="components")
    pyfunc = mlflow.pyfunc.load_model(uri)
    loaded = {
        "plain transformers": AutoModelForCausalLM.from_pretrained(folder),
        "a pipeline": pipeline.model,
        "components": parts["model"],
        "pyfunc": pyfunc._model_impl.pipeline.model,
        "alias": find_model(uri).fitted.model,
        "version": find_model(f"models:/{name}/{version.version}").fitted.model,
        "run": find_model(f"runs:/{version.run_id}").fitted.model,
        "folder": find_model(folder).fitted.model,
    }
    for way, model in loaded.items():
        assert scores(model) == pytest.approx(expected, abs=1e-6, rel=0), way
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("( not", return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "( not"
    assert pipeline.task == "text-generation"
    for way in (pipeline, pyfunc._model_impl.pipeline):
        decoding = way.model.generation_config
        assert (decoding.do_sample, decoding.temperature, decoding.top_k, decoding.top_p) == (True, 0.1, 0, 1.0)
    for written in (pipeline("( not")[0]["generated_text"], *pyfunc.predict("( not")):
        words = written.split(" ")
        assert words[:2] == ["(", "not"]
        assert set(words) <= set(WORDS)


@pytest.mark.usefixtures("collapsing")
def test_no_file_is_a_pickle() -> None:
    """Every file is safetensors that open as such, or text."""
    store = Store.open()
    names = set()
    for version in store.client.search_model_versions():
        folder = Path(version.source.removeprefix("file://"))
        for path in (path for path in folder.rglob("*") if path.is_file()):
            names.add(path.name)
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as weights:
                    assert len(list(weights.keys())) > 3
            else:
                assert "\0" not in path.read_text(encoding="utf-8")
    assert {"model.safetensors", "tokenizer.json", "config.json", "MLmodel", "README.md"} <= names


@pytest.mark.usefixtures("collapsing")
def test_the_card_says_what_it_is() -> None:
    store = Store.open()
    version = aliases(store, NAMES[0])["collapsed"]
    card = version.description
    folder = Path(version.source.removeprefix("file://"))
    assert (folder / "README.md").read_text() == card
    number = int(version.tags["generation"])
    generation = store.get(version.run_id)
    mixture = generation.mixture
    assert f"| sampled-{number - 1:02d} | {mixture[f'sampled-{number - 1:02d}']} |" in card
    assert f"{generation.metrics['synthetic_share']:.1%} written by earlier models" in card
    assert f"models:/{NAMES[0]}@collapsed" in card
    assert version.tags["representative"] in card
    assert len(card) <= 5_000


def loops(study: str, seeds: list[int], store: Store, **changes: Any) -> list[Run]:
    base = LoopConfig.model_validate(TINY | {"num_generations": 2} | changes)
    return [run_loop(base.changed(seed=s), store, name=f"s{s}", study=study) for s in seeds]


NAME = "ouroloop-full_synthetic-1.00"


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_more_seeds_and_another_study_move_the_aliases_and_delete_no_version() -> None:
    store = Store.open()
    (only,) = loops("first", [3], store)
    (entry, *skipped) = register(store, "first")
    assert (entry.name, entry.alias, entry.version, entry.outcome) == (NAME, "healthy", "1", "registered")
    assert all(e.outcome.startswith("skipped: not reached by seed 3 in 2 generations") for e in skipped)

    runs = [only, *loops("first", [1, 2], store)]
    lasts = {int(run.tag("seed") or 0): dict(run.history("diversity_retention"))[2] for run in runs}
    median = sorted(lasts, key=lambda seed: lasts[seed])[1]  # none reached its half-life
    (entry, *_) = register(store, "first")
    if median == 3:
        assert (entry.version, entry.outcome) == ("1", "updated")
    else:
        assert (entry.version, entry.outcome) == ("2", "moved from version 1, seed 3 of first")
    version = aliases(store, NAME)["healthy"]
    assert version.tags["seed"] == str(median)
    assert "median of 3 seeds" in version.tags["representative"]
    number = entry.version

    loops("second", [3], store)
    (entry, *_) = register(store, "second")
    assert entry.outcome == f"moved from version {number}, seed {median} of first"
    (back, *_) = register(store, "first")
    assert back.version == number
    assert back.outcome == f"moved from version {entry.version}, seed 3 of second"
    assert len(store.client.search_model_versions(f"name='{NAME}'")) == int(entry.version)


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_an_alias_of_another_loop_does_not_stay_behind() -> None:
    """What the newly chosen loop did not reach is no alias any more: all of them are of one loop."""
    store = Store.open()
    loops("first", [3], store)
    register(store, "first")
    never = {"healthy": 1.0, "onset": 0.999, "decline": 0.998}
    loops("second", [3], store, stages=never, sampling={"max_new_tokens": 20, "temperature": 0.8})
    store.client.set_registered_model_alias(NAME, "collapsed", "1")
    entries = {entry.alias: entry.outcome for entry in register(store, "second")}
    assert entries["collapsed"].startswith("removed from version 1: not reached by seed 3")
    assert aliases(store, NAME).keys() == {"healthy"}


@pytest.mark.usefixtures("root")
def test_the_ideal_learner_has_no_weights_to_keep(ideal: LoopConfig) -> None:
    store = Store.open()
    run_loop(ideal, store, name="ideal", study="ideal")
    outcomes = {entry.alias: entry.outcome for entry in register(store, "ideal")}
    assert outcomes["healthy"] == "skipped: the ideal learner has no weights: it is its training set"


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_what_is_skipped_is_said_with_its_reason(ouroloop: CommandLine) -> None:
    store = Store.open()
    (run,) = loops("none", [3], store, keep_weights="none")
    outcomes = {entry.alias: entry.outcome for entry in register(store, "none")}
    assert outcomes["healthy"] == "skipped: the weights of M_1 were not kept (keep_weights: none)"
    assert store.client.search_registered_models() == []

    (kept,) = loops("lost", [3], store)
    (generation,) = [g for g in store.find(level="generation", parent=kept.id) if g.tag("generation") == "1"]
    assert generation.model_id is not None
    store.client.delete_logged_model(generation.model_id)
    done = ouroloop("register", "lost")
    assert done.returncode == 1
    assert "failed: M_1: " in done.stdout

    run.end("KILLED")
    assert [entry.outcome for entry in register(store, "none")] == ["skipped: the loop is not finished (KILLED)"]

    loops("mixed", [3], store)
    loops("mixed", [4], store, num_generations=1)
    cells, left_out = find_cells(store, "mixed")
    assert [candidate.config.seed for cell in cells for candidate in cell.candidates] == [4]
    assert [(e.name, e.outcome) for e in left_out] == [("s3", f"skipped: {NAME} is of newer loops with other settings")]
    with pytest.raises(ConfigError, match="no study or preset 'other' has run"):
        register(store, "other")
