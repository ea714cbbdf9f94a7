"""Tags and names that somebody edited in the UI: a report stands all the same, and shows them as text."""

import json
import re
from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.plain import as_text, visible
from ouroloop.record.provenance import create_loop, loop_tags
from ouroloop.record.track import Store
from ouroloop.report.folder import write_report
from ouroloop.report.results import read_results
from ouroloop.science.metrics import entered, may_enter
from tests.conftest import CommandLine

HOSTILE = "<script>alert(1)</script>"


KEYS = ("synthetic_proportion", "temperature", "seed", "generation")


def loop_with(store: Store, config: LoopConfig, key: str, value: str) -> None:
    run = create_loop(store, config, f"edited-{key}", "edited", None)
    child = store.create("gen-01", run, {"level": "generation", "generation": "1", **loop_tags(config, "edited")})
    keys = ("num_unique", "correctness", "false_rate", "error_rate", "diversity_retention", "unique_fraction")
    run.log_series({key: [(0, 1.0), (1, 0.5)] for key in keys})
    for one in (run, child):
        store.client.set_tag(one.id, f"ouroloop.{key}", value)
        one.end("FINISHED")


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("value", ["nan", "1e999", HOSTILE, ""])
def test_a_tag_that_is_no_number(tiny: LoopConfig, tmp_path: Path, value: str) -> None:
    store = Store.open()
    for seed, key in enumerate(KEYS):
        loop_with(store, tiny.changed(seed=seed), key, value)
    page = write_report(read_results(store, "edited"), tmp_path).read_text()
    findings = (tmp_path / "findings.json").read_text()
    assert "NaN" not in findings
    json.loads(findings)
    assert (tmp_path / "retention.png").exists()
    assert HOSTILE not in page
    for key in KEYS[:3] if value else ():
        assert f"its tag ouroloop.{key} is" in page


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["x\x01y", "\ufffe\u202e", HOSTILE])
def test_a_loop_that_was_renamed(ouroloop: CommandLine, ideal: LoopConfig, tmp_path: Path, name: str) -> None:
    """A control character ended the process of a report, by a signal."""
    store = Store.open()
    for seed in (1, 2):
        run = run_loop(ideal.changed(seed=seed), store, name="loop", study="lone")
        store.client.update_run(run.id, name=name)
        store.client.set_tag(run.id, "ouroloop.method", name)
    done = ouroloop("report", "lone", f"--folder={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert (tmp_path / "report" / "depth.png").exists()
    assert not {"\x01", "\ufffe"} & set("".join(re.findall("<svg.*?</svg>", page)))
    assert HOSTILE not in page


@pytest.mark.heavy
@pytest.mark.parametrize("method", ["<img src=x onerror=alert(1)>", "a/b:c", "\x1b[31mred\u202e"])
def test_a_method_that_no_study_would_take(ouroloop: CommandLine, ideal: LoopConfig, method: str) -> None:
    store = Store.open()
    run = run_loop(ideal, store, name="loop", study="lone")
    store.client.set_tag(run.id, "ouroloop.method", method)
    done = ouroloop("register", "lone")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()[1:]
    assert "skipped: its tag ouroloop.method is not a method's name: " in line
    assert "\x1b" not in line
    assert store.client.search_registered_models() == []
    store.client.update_run(run.id, name=method)
    told = ouroloop("compare", "lone")
    assert told.stderr.count("\n") == 1
    assert visible(method) in told.stderr


@pytest.mark.parametrize("text", [HOSTILE, "**b** [x](javascript:alert(1)) `c` | # !", "<img src=x onerror=a>\n# x"])
def test_markdown_of_a_name_is_text(text: str) -> None:
    shown = as_text(text)
    assert "\n" not in shown
    for sign in "<>[]*`|#":
        assert shown.count(sign) == shown.count(f"\\{sign}")


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("hhoodc", {"healthy": 1, "onset": 3, "decline": 5}),  # collapsed in the last one alone
        ("hohooddd", {"healthy": 1, "onset": 4, "decline": 6}),  # a dip is noise
        ("hddcc", {"healthy": 1, "decline": 2, "collapsed": 4}),  # onset was jumped over
        ("hodcc", {"healthy": 1, "onset": 2, "decline": 3, "collapsed": 4}),  # the next one is no better
        ("h-oo", {"healthy": 1, "onset": 3}),
        ("", {}),
    ],
)
def test_a_stage_rests_on_two_generations(stages: str, expected: dict[str, int]) -> None:
    names = {"h": "healthy", "o": "onset", "d": "decline", "c": "collapsed", "-": None}
    history = [names[letter] for letter in stages]
    found = entered(history)
    assert found == expected
    # The weights of whatever enters a stage were kept when it was not yet known whether it would
    kept = {t for t in range(1, len(history) + 1) if may_enter(history[:t])}
    assert set(found.values()) <= kept
