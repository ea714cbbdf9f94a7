"""A run of the record that a kill has left half-written is whole after the next attempt."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

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
def test_a_discarded_run_leaves_no_model(tmp_path: Path) -> None:
    store = Store.open()
    run = store.create("gen-01", None, {"level": "generation"})
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("M_1")
    run.log_model("M_01", folder, 1)
    (model,) = store.client.search_logged_models([store.experiment_id])
    store.get(run.id).discard()
    assert store.find(level="generation") == []
    assert store.client.search_logged_models([store.experiment_id]) == []
    assert not Path(url2pathname(urlsplit(model.artifact_location).path)).exists()


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("before", ["log_model_artifacts", "finalize_logged_model", "log_outputs"])
def test_a_model_that_was_being_logged_is_readable_after_the_next_attempt(before: str, tmp_path: Path) -> None:
    """MLflow gives a run's outputs in no order: one that is a deleted model's must not be among them."""
    store = Store.open()
    run = store.create("gen-01", None, {"level": "generation"})
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("M_1")
    killed = replace(run, store=replace(store, client=Killed(store.client, before)))
    with pytest.raises(KeyboardInterrupt):
        killed.log_model("M_01", folder, 1)
    for _ in range(2):  # once more changes nothing
        store.get(run.id).log_model("M_01", folder, 1)
        again = store.get(run.id)
        assert len(again.entity.outputs.model_outputs) == 1
        again.save_model(tmp_path / "read")
        assert (tmp_path / "read" / "config.json").read_text() == "M_1"
