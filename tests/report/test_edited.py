"""Tags and names that somebody edited in the UI: a report stands all the same, and shows them as text."""

import json
from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.record.provenance import cell_tags, create_loop
from ouroloop.record.track import Store
from ouroloop.report.captions import as_text
from ouroloop.report.folder import write_report
from ouroloop.report.results import read_results
from ouroloop.science.metrics import entered, may_enter

HOSTILE = "<script>alert(1)</script>"


KEYS = ("synthetic_proportion", "temperature", "seed", "generation")


def loop_with(store: Store, config: LoopConfig, key: str, value: str) -> None:
    run = create_loop(store, config, f"edited-{key}", "edited", None)
    child = store.create("gen-01", run, {"level": "generation", "generation": "1", **cell_tags(config, "edited")})
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
