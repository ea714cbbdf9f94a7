"""The MLflow UI as a daily tool: which columns and charts it opens with.

MLflow keeps a saved view as a tag of the experiment: a name, and the state of the page, deflated. Ours have
fixed names, so writing them again changes nothing; they are in the menu "Views" of the runs page.
"""

import base64
import errno
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from contextlib import suppress
from typing import Any

from ouroloop.errors import ConfigError
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted
from ouroloop.record.track import Store
from ouroloop.record.urls import is_server, masked

_PREFIX = "mlflow.sharedViewState."
_PATIENCE = 120  # seconds to wait until the server answers; it takes 5 to 20
_TREE, _LOOPS = "ouroloop-tree", "ouroloop-loops"

_COLUMNS = {  # and their widths in pixels
    "attributes.`Run Name`": 250,
    "metrics.`diversity_retention`": 150,
    "metrics.`correctness`": 110,
    "metrics.`error_rate`": 100,
    "metrics.`num_unique`": 110,
    "tags.`ouroloop.stage`": 120,
    "metrics.`synthetic_share`": 130,
    "tags.`ouroloop.cycle`": 130,
    "tags.`ouroloop.synthetic_proportion`": 220,
    "tags.`ouroloop.temperature`": 170,
    "tags.`ouroloop.seed`": 120,
    "attributes.`Dataset`": 260,
}
_CHARTS = {
    "The paper's figures 4 to 6: diversity": ("diversity_retention", "diversity_levenshtein"),
    "Figure 3: what is sampled": ("correctness", "false_rate", "error_rate"),
    "Figure 7: distinct texts, and form": ("num_unique", "mean_depth", "mean_length_tokens", "depth_tv"),
    "On text: beside real text": ("heldout_t1_nats_per_token", "distinct_3", "self_bleu", "rare_token_coverage"),
    "Training": ("validation_nats", "synthetic_share", "generation_seconds"),
}

# The UI nests runs only in the order in which they were started
_BY_START = {"orderByKey": "attributes.start_time", "orderByAsc": False}
_BY_RETENTION = {"orderByKey": "metrics.`diversity_retention`", "orderByAsc": True}

_ABOUT = """The self-consuming loop, on logic expressions or on text: **study → loop → generation**, each below the one
before it.

A loop's *Model metrics* run over generations and are the paper's figures. A generation's *Artifacts* hold what its
model wrote (`samples.json`), and its dataset is the training set with the origin of every example. The menu **Views**
has the tree, and the curves of all loops overlaid.
"""


def prepare(store: Store) -> tuple[str, str]:
    """Write the views and the description of the experiment; return the pages of the tree and of the loops."""
    views = {
        _TREE: ("1 Studies, loops and generations", _state("", _BY_START)),
        _LOOPS: ("2 Loops overlaid", _state("tags.`ouroloop.level` = 'loop'", _BY_RETENTION) | _charts()),
    }
    store.tag_experiment("mlflow.note.content", _ABOUT)
    for key, (name, state) in views.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        envelope = {"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
        store.tag_experiment(_PREFIX + key, json.dumps(envelope))
    page = f"/#/experiments/{store.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey="
    return f"{page}{_TREE}", f"{page}{_LOOPS}&compareRunsMode=CHART"


def _state(query: str, order: dict[str, Any]) -> dict[str, Any]:
    return order | {
        "searchFilter": query,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(_COLUMNS),
        "columnOrder": list(_COLUMNS),
        "columnWidths": _COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _charts() -> dict[str, Any]:
    sections, charts = [], []
    for number, (title, keys) in enumerate(_CHARTS.items()):
        place = f"section-{number}"
        sections.append(
            {"uuid": place, "name": title, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        )
        charts += [_line_chart(key, place) for key in keys]
    return {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}


def _line_chart(key: str, section: str) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{key}",
        "type": "LINE",
        "runsCountToCompare": 40,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "metricKey": key,
        "selectedMetricKeys": [key],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": True,
        "selectedYAxisMetricKey": "metric",
    }


def open_ui(store: Store, port: int) -> int:
    """Run MLflow's server on loopback until it ends or Ctrl-C ends it; return its exit code, 0 after Ctrl-C.

    The links are printed last, once it answers; what it says itself goes into a file.

    Raises:
        ConfigError: the port is taken, or may not be used; or the record may not be written.
    """
    stores.require_writable()  # for the views, and the server's log
    tree, loops = prepare(store)
    if is_server(address := stores.tracking_uri()):
        _print(_followed(address), f"{masked(address)}, a server that is already there", tree, loops)
        return 0
    _require_free(port)
    log = stores.runs_folder() / "logs" / f"ui-{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ouroloop.report.server", str(port), tree.removeprefix("/")]
    with log.open("w", encoding="utf-8") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        if not _answers(server, port):
            raise ConfigError(f"MLflow's server does not answer on port {port}; its log is {log}")
        host = f"http://127.0.0.1:{port}"
        _print(host, f"{masked(address)}; Ctrl-C ends it, its log is {log}", tree, loops)
        return server.wait()
    except Interrupted:
        return 0
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def _followed(address: str) -> str:
    """A server's address as a browser can follow it: it asks for a password itself."""
    return re.sub(r"(?<=//)[^/@]*@", "", address).rstrip("/")


def _print(host: str, over: str, tree: str, loops: str) -> None:
    print(
        f"MLflow UI over {over}\n  loops overlaid  {host}{loops}\n  runs            {host}{tree}",
        flush=True,
    )


def _require_free(port: int) -> None:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            free.bind(("127.0.0.1", port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            other = port + 1 if port < 65_535 else port - 1
            raise ConfigError(f"--port={port} {reason}; another one, such as --port={other}, may be free") from None


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _PATIENCE
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), directly.open(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
        time.sleep(0.2)
    return False
