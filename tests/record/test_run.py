"""A run that a kill has left half-written leaves nothing, and is written once where it goes on."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from ouroloop.record.track import Store


class Killed:
    """A client of MLflow whose process dies as it would make a call."""

    def __init__(self, client: Any, before: str) -> None:
        self._client, self._before = client, before

    def __getattr__(self, name: str) -> Any:
        if name == self._before:
            raise KeyboardInterrupt
        return getattr(self._client, name)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("before", ["log_model_artifacts", "finalize_logged_model", "log_outputs", "get_run"])
def test_a_discarded_run_leaves_no_model_and_no_file(before: str, tmp_path: Path) -> None:
    """Wherever the kill cut it off; the last is after its model."""
    store = Store.open()
    run = store.create("gen-01", None, {"level": "generation"})
    run.log_bytes("samples.tsv.gz", b"half")
    run.log_weights(lambda folder: (folder / "config.json").write_text("M_1"))
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("M_1")
    with suppress(KeyboardInterrupt):
        replace(run, store=replace(store, client=Killed(store.client, before))).log_model("M_01", folder, 1)
    (model,) = store.client.search_logged_models([store.experiment_id])
    assert store.get(run.id).discard()
    assert store.find(level="generation") == []
    assert store.client.search_logged_models([store.experiment_id]) == []
    for uri in (model.artifact_location, run.entity.info.artifact_uri):
        assert not Path(url2pathname(urlsplit(uri).path)).exists()
    assert store.get(run.id).entity.info.end_time is not None


@pytest.mark.usefixtures("root")
def test_who_may_not_delete_runs_keeps_them() -> None:
    """MLflow's permission to edit has no right to delete in it."""

    class Forbidding(Killed):
        def delete_run(self, run_id: str) -> None:
            raise MlflowException("Permission denied", PERMISSION_DENIED)

    store = Store.open()
    run = store.create("gen-01", None, {"level": "generation"})
    run.log_bytes("samples.tsv.gz", b"half")
    assert not replace(run, store=replace(store, client=Forbidding(store.client, ""))).discard()
    assert store.get(run.id).read_bytes("samples.tsv.gz") == b"half"


@pytest.mark.usefixtures("root")
def test_a_model_is_logged_once(tmp_path: Path) -> None:
    store = Store.open()
    run = store.create("gen-01", None, {"level": "generation"})
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("M_1")
    for _ in range(2):  # once more changes nothing
        store.get(run.id).log_model("M_01", folder, 1)
        again = store.get(run.id)
        assert len(again.entity.outputs.model_outputs) == 1
        again.save_model(tmp_path / "read")
        assert (tmp_path / "read" / "config.json").read_text() == "M_1"
