"""What leaves the store must be what is in it, whatever state the loops are in."""

import base64
import csv
import gzip
import json
import math
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ouroloop.config import ConfigError, CycleConfig, DataCycle, LoopConfig
from ouroloop.loop.loop import draw_original, run_loop
from ouroloop.loop.observer import Observer
from ouroloop.record.history import Writer, Written
from ouroloop.record.liveness import Interrupted
from ouroloop.record.provenance import create_loop, loop_tags, record_origin
from ouroloop.record.run import Run, sample_tables
from ouroloop.record.track import Store
from ouroloop.report.archive import read_folder
from ouroloop.report.figures import drawings, figures
from ouroloop.report.findings import findings_json
from ouroloop.report.folder import _facts, write_report
from ouroloop.report.page import _cell
from ouroloop.report.render import png
from ouroloop.report.results import read_results
from ouroloop.report.tables import figure_tables, metrics, write_csv
from ouroloop.report.tables import loops as loops_table
from ouroloop.science.metrics import as_metrics, measure
from ouroloop.testbed.base import Sample
from tests.conftest import CommandLine
from tests.report.test_summary import loop, results

FIGURES = ["retention", "half_life", "kept", "composition", "unique", "depth"]


def incremental(config: LoopConfig, proportion: float, seed: int) -> LoopConfig:
    cycle = CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=proportion)
    return config.changed(cycle=cycle, seed=seed)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def embedded(page: Path) -> dict[str, Any]:
    text = page.read_text()
    start = text.index('id="data">') + len('id="data">')
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text[start : text.index("</script>", start)])))
    return data


def _artifact(run: Run, name: str) -> Path:
    return Path(run.entity.info.artifact_uri.removeprefix("file://")) / name


class Stop(Observer):
    def generation_started(self, generation: int) -> None:
        if generation == 2:
            raise Interrupted(15)


@pytest.mark.usefixtures("root")
@pytest.mark.heavy
def test_a_study_in_every_state(ideal: LoopConfig, tmp_path: Path) -> None:
    store = Store.open()
    parent = store.create("test", None, {"level": "study", "study": "test"})

    def loop(config: LoopConfig, observer: Observer | None = None) -> Run:
        return run_loop(config, store, name=config.label, study="test", parent=parent, observer=observer)

    finished = [store.get(loop(incremental(ideal, 1.0, seed)).id) for seed in (5, 6)]
    with pytest.raises(Interrupted):
        loop(incremental(ideal, 0.5, 5), Stop())
    create_loop(store, incremental(ideal, 0.0, 5), "began", "test", parent).end("FAILED")  # before it recorded anything
    lost = next(run for run in store.find(level="generation", parent=finished[0].id) if run.tag("generation") == "2")
    shutil.rmtree(lost.entity.info.artifact_uri.removeprefix("file://"))
    _artifact(finished[0], "history.jsonl").unlink()  # else it would be known what they were

    path = write_report(read_results(store, "test"), tmp_path / "report")
    folder = path.parent
    assert {file.name for file in folder.iterdir()} == {
        "report.html", "findings.json", "loops.csv", "metrics.csv", "expressions.csv", "configuration.yaml",
        *(f"{name}.{kind}" for name in FIGURES for kind in ("csv", "png")),
    }  # fmt: skip
    assert [(row["cell"], row["state"], row["generation"]) for row in rows(folder / "loops.csv")] == [
        ("λ = 0", "failed", "0"), ("λ = 0.5", "killed", "1"), ("λ = 1", "finished", "3"), ("λ = 1", "finished", "3"),
    ]  # fmt: skip
    kept = {(row["cell"], row["generation"]): row for row in rows(folder / "retention.csv")}
    ends = [run.metrics["diversity_retention"] for run in finished]
    assert float(kept["λ = 1", "3"]["mean"]) == pytest.approx(sum(ends) / 2)
    assert (float(kept["λ = 1", "3"]["lowest"]), float(kept["λ = 1", "3"]["highest"])) == (min(ends), max(ends))
    assert kept["λ = 0.5", "1"]["interval_low"] == ""  # one seed
    cells = {cell["cell"]: cell for cell in json.loads((folder / "findings.json").read_text())["cells"]}
    assert {row["cell"] for row in rows(folder / "kept.csv")} == {"λ = 0.5", "λ = 1"} == cells.keys()
    for row in rows(folder / "kept.csv"):
        found = cells[row["cell"]]["retention"]
        assert (float(row["mean"]), int(row["seeds"])) == (pytest.approx(found["mean"], abs=1e-5), found["n"])
        own = [float(row[f"interval_{end}"] or "nan") for end in ("low", "high")]
        assert own == pytest.approx([found["low"] or math.nan, found["high"] or math.nan], abs=1e-5, nan_ok=True)
        assert int(row["generation"]) == cells[row["cell"]]["generation"]
    shares = rows(folder / "composition.csv")
    assert all(sum(float(row[part]) for part in ("True", "False", "malformed")) == pytest.approx(1) for row in shares)
    by_depth: dict[tuple[str, str], float] = {}
    for row in rows(folder / "depth.csv"):
        key = row["loop"], row["generation"]
        by_depth[key] = by_depth.get(key, 0.0) + float(row["share"])
    assert list(by_depth.values()) == [pytest.approx(1)] * len(by_depth)
    assert (finished[0].entity.info.run_name, "2") not in by_depth  # its samples are lost, and it is left out
    measured = rows(folder / "metrics.csv")
    assert measured[0]["share_in_training_set"] == ""  # D_0 has none, and that is not 0
    assert {row["loop"] for row in measured} == {
        "incremental-0.5-empirical-T0.8-s5",
        "incremental-1-empirical-T0.8-s5",
        "incremental-1-empirical-T0.8-s6",
    }
    assert '<p class="progress">1 failed, 2 finished, 1 killed</p>' in path.read_text()
    assert "<dt>cycle.synthetic_proportion</dt><dd>0.5, 1.0</dd>" in path.read_text()
    assert {item.path for item in store.client.list_artifacts(parent.id, "report")} == {
        "report/report.html", *(f"report/{name}.png" for name in FIGURES),
    }  # fmt: skip


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_a_lone_loop_by_name_and_by_id(tiny: LoopConfig, tmp_path: Path) -> None:
    store = Store.open()
    run = store.get(run_loop(tiny, store, name="loop", study="alone").id)
    by_name = write_report(read_results(store, "alone"), tmp_path / "a")
    by_id = write_report(read_results(store, run.id), tmp_path / "b")
    assert embedded(by_name) == embedded(by_id)
    metrics = rows(by_name.parent / "metrics.csv")
    assert [(int(row["generation"]), float(row["error_rate"])) for row in metrics] == run.history("error_rate")
    assert {item.path for item in store.client.list_artifacts(run.id)} >= {"report"}
    # Depths and texts come from tables that the loop left; judged anew from S_t they are the same

    def found() -> tuple[Any, ...]:
        (loop,) = read_results(store, "alone").loops
        return loop.written, loop.history, loop.commits

    whole = found()
    assert list(whole[0]) == [0, 1, 2, 3]
    assert whole[1]["error_rate"] == dict(run.history("error_rate"))
    _artifact(run, "history.jsonl").unlink()  # as of a loop of an earlier version
    assert found() == whole
    for child in store.find(level="generation", parent=run.id):
        _artifact(child, "depths.json").unlink()
    assert found() == whole


@pytest.mark.usefixtures("root")
def test_a_loop_without_retention(tiny: LoopConfig, tmp_path: Path) -> None:
    """D_0 of equal texts has no diversity to compare with."""
    store = Store.open()
    run = create_loop(store, tiny, "flat", "flat", None)
    child = store.create("gen-01", run, {"level": "generation", "generation": "1", **loop_tags(tiny, "flat")})
    run.log_series(
        {"correctness": [(0, 1.0), (1, 0.0)], "false_rate": [(0, 0.0), (1, 0.0)], "error_rate": [(0, 0.0), (1, 1.0)]}
    )
    child.end("FINISHED")
    path = write_report(read_results(store, "flat"), tmp_path)
    assert embedded(path)["tables"]["retention"]["rows"] == []
    assert "This figure needs a generation with <code>diversity_retention</code>" in path.read_text()
    assert not (tmp_path / "retention.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_36_loops_of_50_generations_take_less_than_15_seconds_of_the_processor(
    ideal: LoopConfig, tmp_path: Path
) -> None:
    """As a study leaves them, but for the models: what is sampled is D_0, ever less of it."""
    store = Store.open()
    config = ideal.changed(
        data={"num_examples": 200, "max_depth": 3}, sampling={"max_new_tokens": 30}, num_generations=50
    )
    for proportion in range(12):
        for seed in range(3):
            record(store, incremental(config, proportion / 11, seed), "big")
    command = [sys.executable, "-m", "ouroloop", "report", "big", f"--folder={tmp_path / 'report'}"]
    before = seconds_of_children()
    subprocess.run(command, check=True)
    assert seconds_of_children() - before < 15
    assert (tmp_path / "report" / "report.html").stat().st_size < 1_500_000


def seconds_of_children() -> float:
    """Of the processor: a loaded machine has no others that say anything."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def record(store: Store, config: LoopConfig, study: str) -> None:
    original = draw_original(config)
    reference = Sample.of(original.texts, config.data.testbed)
    run, measures = create_loop(store, config, config.label, study, None), as_metrics(measure(reference, reference))
    record_origin(run, config, "cpu", original, measures)
    with Writer.open() as history:
        history.add(0, measures, Written.of(reference))
        for t in range(1, config.num_generations + 1):
            sampled = Sample.of(list(original.texts[: 201 - 4 * t]) * 4, config.data.testbed)
            measures = as_metrics(measure(sampled, reference))
            tags = {"level": "generation", "generation": str(t), **loop_tags(config, study)}
            child = store.create(f"gen-{t:02d}", run, tags)
            child.log_tables(sample_tables(sampled))
            for one in (run, child):
                one.log_series({key: [(t, value)] for key, value in measures.items()})
            child.end("FINISHED")
            history.add(t, measures, Written.of(sampled))
        history.log(run)
    run.end("FINISHED")


@pytest.mark.heavy
def test_a_picture_is_the_same_every_time() -> None:
    def drawn(*kept: float) -> dict[str, bytes]:
        tables = figure_tables(results(*(loop("λ = 1", seed, [1.0, *kept]) for seed in (1, 2))))
        return {name: png(one) for name, one in drawings(tables).items()}

    pngs = drawn(0.5, 0.25)
    assert {"retention", "half_life"} <= pngs.keys()
    assert all(png.startswith(b"\x89PNG") for png in pngs.values())
    assert pngs == drawn(0.5, 0.25)
    assert pngs["retention"] != drawn(0.9, 0.8)["retention"]


@pytest.mark.parametrize(("lives", "expected"), [((9, 19), 9), ((2, None), 2), ((2, None, None), None)])
def test_the_median_in_the_chart_is_that_of_the_findings(lives: Sequence[int | None], expected: int | None) -> None:
    """The first generation by which half of the loops have halved, drawn as it is. (It was 14 for 9 and 19.)"""
    loops = [loop("λ = 1", n, [1.0] * (life or 20) + [0.4] * bool(life)) for n, life in enumerate(lives)]
    (cell,) = json.loads(findings_json(results(*loops)))["cells"]
    table = figure_tables(results(*loops))["half_life"]
    assert [cell["half_life"]["median"], *table["median"]] == [expected] * (1 + len(lives))
    table["proportion"] = 1.0
    spec = figures({"half_life": table})["half_life"]
    assert spec["layer"][0]["encoding"]["y"]["field"] == "median"
    found = re.match(r"<svg [^>]* height=\"(\d+)\"", drawings({"half_life": table})["half_life"])
    assert found is not None
    assert int(found[1]) < 400  # one that is not known is nowhere


def test_what_loops_share_took_its_time_once() -> None:
    """D_0 and M_1 of both are one: the second copied it, with the time that it took."""
    both = [loop("a", seed, [1.0, 0.9, 0.8]) for seed in (1, 2)]
    times = {1: 3_600.0, 2: 7_200.0}, {1: 3_600.0, 2: 10_800.0}
    timed = [
        replace(one, history={**one.history, "generation_seconds": own}) for one, own in zip(both, times, strict=True)
    ]
    assert "took 6 h" in _facts(results(*timed)).spent


def test_texts_are_numbered_from_the_most_frequent_which_is_1() -> None:
    written = Written([(6, 0.6, "True", 1, "( not False )"), (3, 0.3, "False", 0, "False")], {"0": 3, "1": 7})
    table = figure_tables(results(replace(loop("a", 1, [1.0, 0.9]), written={1: written})))["expressions"]
    assert table[["loop", "generation", "rank", "count", "share", "verdict", "depth"]].to_numpy().tolist() == [
        ["a-1", 1, 1, 6, 0.6, "True", 1],
        ["a-1", 1, 2, 3, 0.3, "False", 0],
    ]


def test_a_loops_row_has_its_last_measures_and_its_minutes() -> None:
    one = loop("a", 1, [1.0, 0.9, 0.8])
    one = replace(one, history={**one.history, "generation_seconds": {1: 600.0, 2: 300.0}})
    (row,) = loops_table(results(one)).to_dict("records")
    assert (row["generation"], row["diversity_retention"], row["minutes"]) == (2, 0.8, 15.0)


def test_what_is_half_gone_is_said_only_where_it_was_measured(tmp_path: Path) -> None:
    flat, halved, kept = (loop("a", n, [1.0, value]) for n, value in enumerate((0.9, 0.4, 0.9)))
    flat = replace(flat, history={key: own for key, own in flat.history.items() if key != "diversity_retention"})
    table = loops_table(results(flat, halved, kept)).to_dict("records")
    cells = [_cell("half_life", "half gone at", row, {}) for row in table]
    assert [re.sub("<.*?>", "", cell) for cell in cells] == ["–", "1", "&gt; 1"]


def test_a_folder_knows_what_a_search_ended(tmp_path: Path) -> None:
    pruned = results(loop("a", 1, [1.0, 0.9, 0.8]), loop("a", 2, [1.0, 0.4], "PRUNED"))
    for one in pruned.loops:
        one.run.entity.data.tags["ouroloop.cycle"] = "balanced"
    for name, table in {**figure_tables(pruned), "loops": loops_table(pruned), "metrics": metrics(pruned)}.items():
        write_csv(table, tmp_path / f"{name}.csv")
    (tmp_path / "configuration.yaml").write_text("{}")
    assert [row["state"] for row in rows(tmp_path / "loops.csv")] == ["finished", "ended early"]
    found = read_folder(tmp_path)
    assert [one.state for one in found.loops] == ["finished", "ended early"]
    assert json.loads(findings_json(found))["cells"] == json.loads(findings_json(pruned))["cells"]


@pytest.mark.usefixtures("root")
def test_to_have_no_option_is_a_setting_of_its_own(tiny: LoopConfig, ideal: LoopConfig) -> None:
    """What an older version did not record has today's default; of a network's the ideal learner has nothing anyway."""
    other = tiny.changed(model={**tiny.model.model_dump(), "options": {"layer_norm_epsilon": 0.5}})
    store, original = Store.open(), draw_original(tiny)
    for config, seed in ((tiny, 1), (other, 1), (tiny, 2), (ideal, 1)):
        run = create_loop(store, config.changed(seed=seed), f"loop-{seed}", "options", None)
        record_origin(run, config.changed(seed=seed), "cpu", original, {"num_unique": 40.0})
    older = create_loop(store, tiny.changed(seed=3), "loop-3", "options", None)
    recorded = tiny.changed(seed=3).model_dump(mode="json")
    recorded["train"].pop("accumulate")
    older.log_files({"config.yaml": yaml.safe_dump(recorded).encode()})
    older.log_params({"seed": 3})
    cells = Counter(loop.cell for loop in read_results(store, "options").loops)
    network = f"full synthetic, kind = {tiny.model.kind}"
    assert cells == {network: 3, f"{network}, layer_norm_epsilon = 0.5": 1, "full synthetic, kind = empirical": 1}


@pytest.mark.usefixtures("root")
def test_loops_of_a_method_share_a_cell_where_they_are_alike(ideal: LoopConfig) -> None:
    """A study may span more than methods, and what a method does may have been changed since."""
    store, original = Store.open(), draw_original(ideal)
    other = ideal.changed(data={"truth_label": "half_and_half"})
    tails = [ideal.changed(curation={"steps": [{"name": "original_buffer", "share": share}]}) for share in (0.1, 0.2)]
    for config, method in ((ideal, "none"), (other, "none"), (tails[0], "tail"), (tails[1], "tail")):
        for seed in (1, 2):
            run = create_loop(store, own := config.changed(seed=seed), f"{method}-{seed}", "both", None)
            run.log_tags(method=method)
            record_origin(run, own, "cpu", original, {"num_unique": 40.0})
    cells = Counter(loop.cell for loop in read_results(store, "both").loops)
    of_none = {f"full synthetic, none, truth_label = {label}": 2 for label in ("true_only", "half_and_half")}
    of_tail = [cell for cell in cells if "tail" in cell]
    assert cells == of_none | dict.fromkeys(of_tail, 2)
    assert [("0.1" in cell, "0.2" in cell) for cell in sorted(of_tail)] == [(True, False), (False, True)]


@pytest.mark.usefixtures("root")
def test_an_unknown_name_is_one_line(ouroloop: CommandLine) -> None:
    with pytest.raises(ConfigError, match="no study or loop 'x'"):
        read_results(Store.open(), "x")
    assert ouroloop("report", "it's").returncode == 2
