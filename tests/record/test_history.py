"""The compact history of a loop says what MLflow's record says, to the last bit, and is asked instead of it."""

from pathlib import Path

import pytest

from ouroloop.config import LoopConfig
from ouroloop.loop.loop import run_loop
from ouroloop.loop.observer import Observer
from ouroloop.record.history import by_metric, history, read_entries, read_written
from ouroloop.record.liveness import Interrupted
from ouroloop.record.run import Run
from ouroloop.record.track import Store


class Stop(Observer):
    def generation_started(self, generation: int) -> None:
        if generation == 3:
            raise Interrupted(15)


def path_of(run: Run) -> Path:
    return Path(run.entity.info.artifact_uri.removeprefix("file://")) / "history.jsonl"


@pytest.mark.heavy
@pytest.mark.usefixtures("root")
def test_it_is_what_mlflow_has(ideal: LoopConfig) -> None:
    """Of a loop that was killed between generations as well: then two attempts wrote it."""
    store, recorded = Store.open(), []
    for name in ("whole", "resumed"):
        if name == "resumed":
            with pytest.raises(Interrupted):
                run_loop(ideal, store, name=name, study=name, new=True, observer=Stop())
            (killed,) = store.find(level="loop", study=name)
            assert read_entries(killed) is None
            assert list(history(killed)["num_unique"]) == [0, 1, 2]
        run = store.get(run_loop(ideal, store, name=name, study=name).id)
        entries = read_entries(run)
        assert entries is not None
        assert by_metric(entries) == {key: dict(run.history(key)) for key in sorted(run.metrics)}
        assert by_metric(entries, ["correctness", "nothing"]) == {
            "correctness": dict(run.history("correctness")),
            "nothing": {},
        }
        children = store.find(level="generation", parent=run.id)[::-1]
        assert [entry.written for entry in entries[1:]] == [
            read_written(child, ideal.data.testbed) for child in children
        ]
        assert [entry.commit for entry in entries] == ["", *(child.tag("commit") for child in children)]
        recorded.append([entry.written for entry in entries])
    assert recorded[0] == recorded[1]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("damage", [b"", b"\0\xff{", b'{"generation": 3}\n'])
def test_a_damaged_one_is_not_believed(ideal: LoopConfig, damage: bytes) -> None:
    store = Store.open()
    run = store.get(run_loop(ideal, store, name="loop", study="damaged").id)
    before, path = history(run), path_of(run)
    path.write_bytes(path.read_bytes().splitlines()[0])  # cut off
    assert read_entries(run) is None
    path.write_bytes(damage)
    assert read_entries(run) is None
    assert history(run) == before
