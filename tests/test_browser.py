"""What a person sees, in a real Chromium, of a real store that a real sweep left.

Nothing may leave this machine, no console may complain, and no text that a model wrote may run.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ouroloop.cli import main
from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.presets import load_preset
from ouroloop.record.provenance import create_loop, loop_tags, record_origin
from ouroloop.record.run import Run, sample_tables
from ouroloop.record.track import Store
from ouroloop.report import methods
from ouroloop.report.figures import drawings, evenly
from ouroloop.report.leaderboard import board
from ouroloop.report.looks import PARTS, look
from ouroloop.report.outcomes import RESULTS, file_of, read_filed
from ouroloop.report.page import page
from ouroloop.report.tables import frame
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.metrics import as_metrics, measure
from ouroloop.study.config import StudyConfig
from ouroloop.testbed.base import Sample
from tests.conftest import REPOSITORY, TINY, copy_store
from tests.report.test_page import FACTS, tables

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `apt-get install chromium` brings one"),
    pytest.mark.browser,
]

HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "**[x](javascript:alert(3))** `"]

TEXTS = [
    *("<script>alert(1)</script>", "</td><img src=x onerror=alert(2)>", "\u202eevil\u202c", "שלום עולם"),
    *("\x1b[31mred\x1b[0m", "tab\tand\nline", "nul \0", "javascript:alert(3)"),
]


class Site(NamedTuple):
    address: str
    store: Store
    reports: Path

    def runs(self, level: str, study: str) -> list[Run]:
        return self.store.find(level=level, study=study)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Site]:
    """The MLflow UI and the reports of a tiny sweep, and of a loop whose models wrote hostile texts."""
    root = tmp_path_factory.mktemp("site")
    copy_store(empty_store, root)
    preset = root / "tiny.yaml"
    preset.write_text(yaml.safe_dump({"synthetic_proportions": [0.5, 1.0], "seeds": [5, 6], "loop": TINY}))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUROLOOP_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("OUROLOOP_OPTUNA_URL", raising=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        Store.open()
        server = subprocess.Popen(
            [sys.executable, "-m", "ouroloop", "ui", f"--port={port}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ.copy(),
        )  # fmt: skip
        try:
            assert main(["sweep", str(preset)]) == 0  # while the server starts
            hostile_loop(Store.open())
            poor_loops(Store.open())
            loop_on_text(Store.open(), root)
            for name in ("hostile", "flat", "empty", "text"):
                assert main(["report", name]) == 0
            assert server.stdout is not None
            address = next(line.split()[-1] for line in server.stdout if line.strip().startswith("runs"))
            wait_for(f"http://127.0.0.1:{port}/health", server)
            yield Site(address, Store.open(), root / "mlruns" / "reports")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
            assert server.stdout is not None
            server.stdout.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)


def wait_for(address: str, server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(address)


def hostile_loop(store: Store) -> None:
    """A loop as the real one records it, but for its texts."""
    config = LoopConfig.model_validate(TINY)
    original, written = (Sample.of(texts, config.data.testbed) for texts in (["( not False )", "True"], HOSTILE))
    run = create_loop(store, config, "hostile", "hostile", None)
    dataset = Dataset.of(list(original.counts), Source.ORIGINAL, 0)
    record_origin(run, config, "cpu", dataset, as_metrics(measure(original, original)))
    tags = {"level": "generation", "generation": "1", **loop_tags(config, "hostile")}
    child = store.create("gen-01", run, tags)
    points = {key: [(1, value)] for key, value in as_metrics(measure(written, original)).items()}
    child.log_tables(sample_tables(written))
    child.log_bytes("samples.tsv.gz", Dataset.of(HOSTILE, Source.SAMPLED, 1).to_bytes())
    child.describe("\n\n".join(HOSTILE))  # Markdown
    for one in (run, child):
        one.log_series(points)
        one.end("FINISHED")


def loop_on_text(store: Store, root: Path) -> None:
    """Of the ideal learner, which writes what the corpus has: HTML, controls, and text from right to left."""
    path = root / "corpus.jsonl"
    rows = [f"Row {i} of {i % 9}: {' | '.join(TEXTS)} in its {i % 13}th place." for i in range(200)]
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    data = {
        "kind": "text",
        "path": str(path),
        "num_examples": 60,
        "num_held_out": 20,
        "compared_tokens": 300,
        "block_tokens": 128,
    }
    given = {"num_generations": 2, "data": data, "model": {"kind": "empirical"}}
    run_loop(LoopConfig.model_validate(given), store, name="text", study="text")


def poor_loops(store: Store) -> None:
    """A loop whose D_0 has no diversity to compare with, and one that failed before it recorded anything."""
    config = LoopConfig.model_validate(TINY)
    create_loop(store, config, "empty", "empty", None).end("FAILED")
    flat = create_loop(store, config, "flat", "flat", None)
    shares = {"num_unique": (1.0, 1.0), "correctness": (1.0, 0.4), "false_rate": (0.0, 0.1), "error_rate": (0.0, 0.5)}
    flat.log_series({key: list(enumerate(values)) for key, values in shares.items()})
    flat.end("KILLED")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # whoever asks for another host gets nothing
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


# What MLflow's own pages log: they ask for a user that a store without accounts does not have, and resize late
TOLERATED = ("the server responded with a status of 404", "ResizeObserver loop")


def problems_of(opened: Any) -> list[str]:
    """What goes wrong from now on: all that a report logs or asks for, errors of MLflow's pages and other hosts."""
    problems: list[str] = []

    def is_report(address: str) -> bool:
        return address.startswith("file:")

    def complain(text: str) -> None:
        if is_report(opened.url) or not any(noise in text for noise in TOLERATED):
            problems.append(text)

    def logged(message: Any) -> None:
        if is_report(opened.url) or message.type == "error":
            complain(f"{message.type}: {message.text}")

    def asked(request: Any) -> None:
        is_page = request.is_navigation_request() and is_report(request.url)
        local = ("data:",) if is_report(opened.url) else ("data:", "blob:", "http://127.0.0.1")
        if not is_page and not request.url.startswith(local):
            problems.append(f"request: {request.url}")

    opened.on("console", logged)
    opened.on("pageerror", lambda error: complain(str(error)))
    opened.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    opened.on("request", asked)
    return problems


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page that may ask nobody but this machine, a report nobody at all, and in which nothing may go wrong."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    problems = problems_of(opened)
    yield opened
    context.close()
    assert problems == []


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.log('a word')", "log: a word"),
        ("console.warn('a warning')", "warning: a warning"),
        ("throw new Error('lost')", "lost"),
        ("new Image().src = 'http://127.0.0.1:9/x.png'", "request: http://127.0.0.1:9/x.png"),
        ("new Image().src = 'other.png'", "other.png"),
        ("alert('hello')", "dialog: hello"),
    ],
)
def test_a_report_that_speaks_or_asks_is_noticed(chromium: Any, tmp_path: Path, script: str, problem: str) -> None:
    """Else all that follows could not fail."""
    path = tmp_path / "report.html"
    path.write_text(f"<!doctype html><title>x</title><script>{script}</script>")
    context = chromium.new_context()
    opened = context.new_page()
    problems = problems_of(opened)
    opened.goto(path.as_uri())
    opened.wait_for_timeout(200)
    context.close()
    assert any(problem in one for one in problems), problems


def open_report(tab: Any, site: Site, name: str) -> None:
    tab.context.set_offline(True)
    tab.goto((site.reports / name / "report.html").as_uri())
    tab.locator("body[data-ready]").wait_for()


def test_the_report_answers_the_pointer_and_the_keyboard(site: Site, tab: Any) -> None:
    open_report(tab, site, "tiny")
    assert "4 loops, 2 settings with 2 seeds each" in tab.inner_text("#finding")
    chart, tip = tab.locator("#retention .chart").first, tab.locator("#retention .tip")
    lines = chart.locator(".mark-line path")
    assert lines.count() >= 2
    chart.hover(position={"x": 60, "y": 150})
    assert "generation 0" in tip.inner_text()
    assert tip.inner_text().count("100.0%") >= 2
    chart.press("ArrowRight")
    tab.get_by_text("generation 1", exact=True).first.wait_for()
    chart.press("Escape")
    tip.wait_for(state="hidden")
    before, drawn = lines.count(), lines.first.get_attribute("d")
    tab.locator("#retention").get_by_role("button", name="log").click()
    tab.wait_for_function(
        "before => document.querySelector('#retention .mark-line path').getAttribute('d') !== before", arg=drawn
    )
    tab.locator("#retention .legend button").first.click()
    tab.wait_for_function("n => document.querySelectorAll('#retention .mark-line path').length < n", arg=before)


def test_a_legend_shows_the_lines_and_marks_of_its_figure(site: Site, tab: Any) -> None:
    open_report(tab, site, "tiny")

    def those(within: str, *attributes: str) -> set[tuple[str | None, ...]]:
        found = tab.locator(f"#retention {within}").all()
        return {tuple(one.get_attribute(attribute) for attribute in attributes) for one in found}

    assert those(".legend path.line", "stroke", "stroke-dasharray") == {("var(--s0)", "1 0"), ("var(--s1)", "1 0")}
    marks = those(".legend path:not(.line)", "fill", "d")
    assert marks == {(look(i).color, look(i).mark) for i in range(2)}
    assert those(".chart .mark-line path", "stroke") == {("var(--s0)",), ("var(--s1)",)}
    drawn = those(".chart .mark-symbol path", "fill", "d")  # larger, and an arc is in pieces
    assert {color for color, _ in drawn} == {color for color, _ in marks}
    assert len(drawn) == 2


def test_the_report_shows_its_figures_without_scripts(site: Site, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((site.reports / "tiny" / "report.html").as_uri())
    for name in ("retention", "half_life", "kept", "composition", "unique", "depth"):
        assert opened.locator(f"#{name} .drawn svg path").count() > 0, name
    assert opened.locator("#loops tbody tr").count() == 4
    context.close()


@pytest.mark.parametrize("name", ["tiny", "text"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_reader_finds_no_serious_fault(site: Site, tab: Any, name: str, width: int, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    open_report(tab, site, name)
    for details in tab.locator("summary").all():
        details.click()
    found = axe.Axe().run(tab).response["violations"]
    serious = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in serious] == []


def test_the_report_shows_what_each_generation_wrote(site: Site, tab: Any) -> None:
    open_report(tab, site, "tiny")
    slider, rows = tab.locator("#expressions input[type=range]"), tab.locator("#expressions tbody tr")
    assert tab.inner_text("#expressions output") == "generation 3"
    end = rows.first.inner_text()
    slider.press("Home")
    assert tab.inner_text("#expressions output") == "D₀, original data"
    assert rows.first.inner_text() != end
    slider.press("ArrowRight")
    assert tab.inner_text("#expressions output") == "generation 1"
    last = tab.locator("#expressions select option").last.get_attribute("value")
    tab.locator("#expressions select").select_option(last)
    loop = next(run for run in site.runs("loop", "tiny") if run.entity.info.run_name == last)
    of_loop = (run for run in site.runs("generation", "tiny") if run.parent_id == loop.id)
    texts = next(run for run in of_loop if run.tag("generation") == "3").read_dataset("samples.tsv.gz").texts
    assert rows.first.locator(".expression").inner_text() in {*texts, "nothing"}
    tab.locator("#depth .chart").press("ArrowRight")
    assert "original data" in tab.locator("#depth .tip").inner_text()


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_a_phone_and_the_night(site: Site, tab: Any, width: int, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    open_report(tab, site, "tiny")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("retention", "half_life", "composition", "unique", "depth"):
        assert tab.locator(f"#{name} svg").count() > 0, name
    colors = tab.evaluate("(e => [e.color, e.backgroundColor])(getComputedStyle(document.body))")
    ink, paper = (sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(", "))) for color in colors)
    assert (ink < paper) == (scheme == "light")


@pytest.mark.parametrize(("name", "said"), [("flat", "could not be computed"), ("empty", "No generation has been")])
def test_a_report_of_next_to_nothing_says_so(site: Site, tab: Any, name: str, said: str) -> None:
    open_report(tab, site, name)
    assert said in tab.inner_text("#finding")
    assert tab.locator("#retention .absent").is_visible()
    assert tab.locator("#composition .chart .mark-area path").count() == (3 if name == "flat" else 0)
    assert tab.locator("#loops tbody tr").count() == 1  # the script went on to the end


def test_hostile_texts_are_shown_and_not_run(site: Site, tab: Any) -> None:
    open_report(tab, site, "hostile")
    shown = tab.locator("#expressions td.expression").all_inner_texts()
    assert [text.strip() for text in shown] == HOSTILE
    assert tab.locator("img").count() == 0
    assert tab.locator("#loops tbody tr").count() == 1  # the page goes on behind them


def test_a_page_of_text_shows_what_was_written_safely(site: Site, tab: Any) -> None:
    open_report(tab, site, "text")
    slider, rows = tab.locator("#texts input[type=range]"), tab.locator("#texts tbody tr")
    slider.press("Home")
    assert tab.inner_text("#texts output") == "D₀, original data"
    cells = tab.locator("#texts td.expression")
    shown = cells.all_inner_texts()
    (run,) = site.runs("loop", "text")
    original = run.read_dataset("original_data.tsv.gz").texts
    spelled = {"\t": "␉", "\n": "␊", "\0": "␀", "\x1b": "␛", "\u202e": "U+202E", "\u202c": "U+202C"}
    expected = {text.translate(str.maketrans(spelled)) for text in original}
    assert len(shown) == rows.count() > 8
    assert {text.strip() for text in shown} <= expected
    for hostile in ("alert(1)", "onerror", "U+202E", "שלום", "␛[31m", "␉and␊", "␀", "javascript:"):
        assert all(hostile in text for text in shown), hostile
    assert tab.locator("img, a[href^=javascript]").count() == 0
    assert tab.locator("script:not([src])", has_text="alert(").count() == 0
    assert cells.locator("bdi").count() == len(shown)  # a line from right to left turns nothing beside it
    said = tab.inner_text("body")
    assert "distinct-3" in said
    assert "malformed" not in said
    chart = tab.locator("#measures .chart").first
    assert chart.locator(".mark-line path").count() > 0
    chart.press("ArrowRight")
    tip = tab.locator("#measures .tip").first
    assert "generation 1" in tip.inner_text()
    assert "D₀ itself" in tip.inner_text()
    tab.locator("#measures .legend button").first.click()  # all that there is: the chart keeps its scale
    tab.locator("#measures summary", has_text="Data").click()
    tab.locator("#measures details tbody tr").nth(8).wait_for()
    terms = tab.locator("#measures dl.terms")
    assert not terms.is_visible()
    tab.locator("#measures summary", has_text="How each is computed").click()
    assert "all 3-grams; lower is less varied" in terms.inner_text()


def test_a_page_of_many_settings_says_what_it_leaves_out(tab: Any, tmp_path: Path) -> None:
    """Of 26 settings 24 small charts, the same as in the picture; of 800 generations each 8th or so."""
    shares = ("cell", "generation", "seeds", *PARTS, *(f"paper_{part}" for part in PARTS))
    rows = [(f"λ = {i / 25:g}", t, 1, 0.5, 0.25, 0.25, None, None, None) for i in range(26) for t in range(801)]
    given = tables(composition=frame(shares, rows))
    path = tmp_path / "report.html"
    path.write_text(page("many", [], FACTS, given, drawings({"composition": frame(shares, rows[:1])})))
    tab.goto(path.as_uri())
    tab.locator("body[data-ready]").wait_for()
    names = tab.locator("#composition b.name").all_inner_texts()
    assert names == evenly([f"λ = {i / 25:g}" for i in range(26)], 24)
    said = tab.inner_text("#composition")
    assert "24 of 26 settings, evenly chosen; all are in composition.csv." in said
    assert re.search(r"[\d,]+ of 20,826 rows are on this page; all are in composition\.csv\.", said)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_committed_board_fits_its_page(tab: Any, tmp_path: Path, width: int) -> None:
    config = load_preset("leaderboard", [], StudyConfig)
    filed = read_filed(file_of("leaderboard", REPOSITORY / RESULTS))
    standings = {"board": methods.table(board(config, None, "leaderboard", filed))}
    path = tmp_path / "report.html"
    path.write_text(page("leaderboard", [], FACTS, tables(**standings), methods.drawing(standings)))
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(path.as_uri())
    tab.locator("body[data-ready]").wait_for()
    shown = tab.locator("#board .scroll").first
    assert shown.evaluate("box => box.scrollWidth - box.clientWidth") == 0
    kept = shown.locator("tbody tr", has_text="keep M_1").filter(has_text="full synthetic")
    assert re.search(r"0\.454\s+\[0\.434, 0\.474\]", kept.inner_text())


def close_assistant(tab: Any) -> None:
    """MLflow opens a pane of its own on the first visit."""
    for button in tab.locator('button[aria-label*="lose"]').all():
        if button.is_visible():
            button.click()


def test_the_run_tree_has_three_levels(site: Site, tab: Any) -> None:
    tab.goto(site.address)
    tab.get_by_text("tiny", exact=True).first.wait_for()
    close_assistant(tab)
    expanders = tab.locator('button[data-component-id*="runnamecellrenderer"]')
    study = tab.locator('[role="row"]', has=tab.get_by_text("tiny", exact=True)).locator(expanders)
    study.first.click()
    loop = tab.get_by_text("incremental-0.5-T0.8-s5", exact=True).first
    loop.wait_for()
    tab.locator('[role="row"]', has=loop).locator(expanders).first.click()
    tab.get_by_text("gen-03", exact=True).first.wait_for()
    headers = tab.locator('[role="columnheader"]').all_inner_texts()
    assert {"diversity_retention", "correctness"} <= {header.strip() for header in headers}


def test_the_loops_lie_over_each_other(site: Site, tab: Any) -> None:
    tab.goto(site.address.replace("ouroloop-tree", "ouroloop-loops&compareRunsMode=CHART"))
    card = tab.locator('[data-testid="experiment-view-compare-runs-card"]', has_text="diversity_retention").first
    card.locator("path.js-line").nth(3).wait_for(state="attached")  # two proportions, two seeds
    tab.get_by_text("Figure 3: what is sampled").wait_for()


def test_a_loops_chart_is_the_figure(site: Site, tab: Any) -> None:
    (loop, *_) = site.runs("loop", "tiny")
    tab.goto(f"{site.address.split('#')[0]}#/experiments/{site.store.experiment_id}/runs/{loop.id}/model-metrics")
    tab.get_by_placeholder("Search metric charts").fill("diversity_retention$")  # of so many only those in sight exist
    card = tab.locator('[data-testid="experiment-view-compare-runs-card"]', has_text="diversity_retention").first
    curve = card.locator("path.js-line").first
    curve.wait_for(state="attached")
    assert curve.get_attribute("d").count("L") + curve.get_attribute("d").count(",") >= 3  # D_0 and three generations


@pytest.mark.parametrize("study", ["tiny", "hostile"])
def test_the_sample_table_renders(site: Site, tab: Any, study: str) -> None:
    generation = next(run for run in site.runs("generation", study) if run.tag("generation") == "1")
    rows = generation.read_text("samples.json")
    page = f"#/experiments/{site.store.experiment_id}/runs/{generation.id}"
    tab.goto(f"{site.address.split('#')[0]}{page}/artifacts/samples.json")
    tab.get_by_text("expression", exact=True).first.wait_for()
    if study == "hostile":
        assert "alert(1)" in rows
        tab.get_by_text(HOSTILE[0]).first.wait_for()
        tab.goto(f"{site.address.split('#')[0]}{page}")
        tab.get_by_text("gen-01").first.wait_for()
        tab.get_by_text("**[x]").or_(tab.get_by_text("x", exact=True)).first.wait_for()  # the description is there
        assert tab.locator('[href^="javascript"], [onerror]').count() == 0


def test_a_registered_model_shows_its_aliases(site: Site, tab: Any) -> None:
    """One model per cell, with an alias for each stage that it went through."""
    assert main(["register", "tiny"]) == 0
    (model, *_) = site.store.client.search_registered_models()
    aliases = site.store.client.get_registered_model(model.name).aliases
    assert aliases
    tab.goto(f"{site.address.split('#')[0]}#/models/{model.name}")
    for alias in aliases:
        tab.get_by_text(alias, exact=False).first.wait_for()
