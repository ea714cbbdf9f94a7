"""The MLflow UI as a daily tool: which columns and charts it opens with.

MLflow keeps a saved view as a tag of the experiment: a name, and the state of the page, deflated. Ours have
fixed names, so writing them again changes nothing; they are in the menu "Views" of the runs page.
"""

import base64
import json
import os
import subprocess
import sys
import zlib
from typing import Any

from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted
from ouroloop.record.track import Store

_PREFIX = "mlflow.sharedViewState."
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
    "Training": ("validation_nats", "synthetic_share", "generation_seconds"),
}

# The UI nests runs only in the order in which they were started
_BY_START = {"orderByKey": "attributes.start_time", "orderByAsc": False}
_BY_RETENTION = {"orderByKey": "metrics.`diversity_retention`", "orderByAsc": True}

_ABOUT = """The self-consuming loop on logic expressions: **study → loop → generation**, each below the one before it.

A loop's *Model metrics* run over generations and are the paper's figures. A generation's *Artifacts* hold what its
model wrote (`samples.json`), and its dataset is the training set with the origin of every example. The menu **Views**
has the tree, and all loops over each other.
"""


def prepare(store: Store) -> tuple[str, str]:
    """Writes the views and the description of the experiment; returns the pages of the tree and of the loops."""
    views = {
        _TREE: ("1 Studies, loops and generations", _state("", _BY_START)),
        _LOOPS: ("2 Loops over each other", _state("tags.`ouroloop.level` = 'loop'", _BY_RETENTION) | _charts()),
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


def serve(port: int) -> int:
    """MLflow's server on loopback, until it ends or Ctrl-C ends it; its exit code, 0 after Ctrl-C."""
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--artifacts-destination", str(stores.runs_folder() / "artifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    store = {"MLFLOW_BACKEND_STORE_URI": stores.tracking_uri()}  # its password is nothing for a list of processes
    server = subprocess.Popen(command, env=os.environ | quiet | store)
    try:
        return server.wait()
    except Interrupted:
        server.terminate()
        server.wait()
        return 0
