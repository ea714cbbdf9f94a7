"""What leaves the store must be what is in it."""

import csv
from pathlib import Path

import pytest

from ouroloop.config import ConfigError, LoopConfig
from ouroloop.figure import PANEL_KEYS, loop_png
from ouroloop.loop import run_loop
from ouroloop.report import find_loops, write_report
from ouroloop.track import Store
from tests.conftest import CommandLine


@pytest.mark.usefixtures("root")
def test_a_report_holds_the_record(tiny: LoopConfig, tmp_path: Path) -> None:
    store = Store.open()
    run = store.get(run_loop(tiny, store, name="loop", study="test").id)
    (loop,) = find_loops(store, "test")
    assert [found.id for found in find_loops(store, run.id)] == [loop.id] == [run.id]
    write_report(loop, tmp_path / "report", [1, 3])
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "curves.csv",
        "curves.png",
        "samples-t01.tsv",
        "samples-t03.tsv",
    }
    with (tmp_path / "report" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["generation"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["validation_nats"] == ""  # D_0 has none, and that is not 0
    assert [(i, float(row["error_rate"])) for i, row in enumerate(rows)] == run.history("error_rate")
    samples = (tmp_path / "report" / "samples-t03.tsv").read_text().splitlines()
    assert samples[0] == "count\tshare\tverdict\tdepth\texpression"
    assert int(samples[1].split("\t")[0]) >= int(samples[2].split("\t")[0])


def test_the_picture_is_the_same_every_time(tiny: LoopConfig) -> None:
    history = {key: [(0, 1.0), (1, 0.5), (2, 0.25)] for key in PANEL_KEYS}
    png = loop_png(history, tiny)
    assert png.startswith(b"\x89PNG")
    assert png == loop_png(history, tiny)
    assert png != loop_png(history | {"diversity_retention": [(0, 1.0), (1, 0.9), (2, 0.8)]}, tiny)


@pytest.mark.usefixtures("root")
def test_an_unknown_name_is_one_line(ouroloop: CommandLine) -> None:
    with pytest.raises(ConfigError, match="no study or loop 'x'"):
        find_loops(Store.open(), "x")
    assert ouroloop("report", "it's").returncode == 2
