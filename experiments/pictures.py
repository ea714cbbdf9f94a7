"""The screenshots in docs/: of a report and of the MLflow UI, by a headless Chromium.

    .venv/bin/python experiments/pictures.py

runs the study first if it is not on record: figure 5 with the ideal learner, 15 loops of 50 generations, which
takes some minutes. The other pictures that README and docs show are drawn from their CSV files: see
experiments/results.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ouroloop.record import stores
from ouroloop.record.track import Store

DOCS = Path(__file__).resolve().parent.parent / "docs"
STUDY = "fig5-ideal"
GENERATION = 15  # whose texts are shown: some are gone and some are left
PORT = 5_057
OUROLOOP = [sys.executable, "-m", "ouroloop"]


@contextmanager
def served() -> Iterator[str]:
    """Serve the MLflow UI; yield the address of its table of runs."""
    command = [*OUROLOOP, "ui", f"--port={PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield next(line.split()[-1] for line in server.stdout if line.strip().startswith("runs"))
        finally:
            server.terminate()


def photograph_report(browser: Any, page: Path, folder: Path) -> None:
    """Photograph a report by day, as it opens; and on a phone, with what models write, by night, beside it."""
    with closing(opened(browser, page.as_uri(), 1100, 1480)) as tab:
        tab.screenshot(path=folder / "report.png")
    with closing(opened(browser, page.as_uri(), 360, 900)) as tab:
        phone = Image.open(BytesIO(tab.screenshot()))
    with closing(opened(browser, page.as_uri(), 820, 900, color_scheme="dark")) as tab:
        tab.locator("#expressions input[type=range]").fill(f"{GENERATION}")
        tab.locator("#depth").evaluate("one => one.scrollIntoView({behavior: 'instant'})")
        night = Image.open(BytesIO(tab.screenshot()))
    both = Image.new("RGB", (phone.width + 20 + night.width, phone.height), "white")
    both.paste(phone, (0, 0))
    both.paste(night, (phone.width + 20, 0))
    both.save(folder / "report-phone.png", optimize=True)


def photograph_ui(browser: Any, tree: str, store: Store, folder: Path) -> None:
    """Photograph the study's tree down to a loop, the charts of one at λ = 1, the texts of one of its generations."""
    newest, *others = store.find(level="loop", study=STUDY)  # the newest is the first below its study
    loop = next(run for run in others if run.tag("synthetic_proportion") == "1")
    own = store.find(level="generation", parent=loop.id)
    generation = next(run for run in own if run.tag("generation") == f"{GENERATION}")
    with closing(opened(browser, tree, 1500, 860)) as tab:
        for name in (STUDY, str(newest.entity.info.run_name)):
            row = tab.locator('[role="row"]', has=tab.get_by_text(name, exact=True))
            row.locator('button[data-component-id*="runnamecellrenderer"]').first.click()
        tab.get_by_text("gen-50", exact=True).first.wait_for()
        photograph(tab, folder / "ui-run-tree.png")
    runs = f"{tree.partition('#')[0]}#/experiments/{store.experiment_id}/runs"
    with closing(opened(browser, f"{runs}/{loop.id}/model-metrics", 1500, 860)) as tab:
        tab.locator("path.js-line").nth(5).wait_for(state="attached")
        photograph(tab, folder / "ui-loop-charts.png")
    with closing(opened(browser, f"{runs}/{generation.id}/artifacts/samples.json", 1500, 860)) as tab:
        tab.get_by_text("expression", exact=True).first.wait_for()
        for place in tab.get_by_text("Path: file:").all():
            place.evaluate("one => { one.style.visibility = 'hidden'; }")  # it says on which machine this was
        photograph(tab, folder / "ui-samples.png")


def photograph(tab: Any, path: Path) -> None:
    """Photograph without MLflow's assistant, whose pane opens some time after the first visit."""
    tab.wait_for_timeout(3_000)
    for button in tab.locator('button[aria-label*="lose"]').all():
        if button.is_visible():
            button.click()
    tab.wait_for_timeout(3_000)  # until everything has its new place
    tab.screenshot(path=path)


def opened(browser: Any, address: str, width: int, height: int, **look: str) -> Any:
    """Open an address in a tab of its own."""
    tab = browser.new_page(viewport={"width": width, "height": height}, **look)
    tab.goto(address)
    if address.startswith("file:"):
        tab.locator("body[data-ready]").wait_for()
    return tab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DOCS, help="where to; docs without it")
    folder = parser.parse_args().folder
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("no Chromium on this machine; `apt-get install chromium` brings one")
    subprocess.run([*OUROLOOP, "sweep", STUDY], check=True)
    with served() as tree, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        photograph_report(browser, stores.runs_folder() / "reports" / STUDY / "report.html", folder)
        photograph_ui(browser, tree, Store.existing(), folder)
        browser.close()


if __name__ == "__main__":
    main()
