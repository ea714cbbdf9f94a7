"""A run that nobody closes looks alive for ever, and one that is closed too early looks dead while it runs."""

import os
import signal

import pytest

from ouroloop.config import LoopConfig
from ouroloop.record import stores
from ouroloop.record.liveness import Interrupted, catch_signals, close_dead_runs, running
from ouroloop.record.provenance import create_loop
from ouroloop.record.track import Run, Store


@pytest.mark.usefixtures("root", "caught_signals")
def test_a_signal_while_a_run_is_created_closes_it() -> None:
    store = Store.open()

    def take() -> Run:
        run = store.create("loop", None, {"level": "loop"})
        os.kill(os.getpid(), signal.SIGTERM)
        return run

    with pytest.raises(Interrupted), running(take):
        pytest.fail("it was interrupted before")
    catch_signals()
    assert [run.status for run in store.find(level="loop")] == ["KILLED"]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (Interrupted(2), "KILLED")])
def test_a_run_ends_as_its_work_does(error: BaseException | type[BaseException] | None, status: str) -> None:
    store = Store.open()
    try:
        with running(lambda: store.create("loop", None, {"level": "loop"})) as run:
            assert store.get(run.id).status == "RUNNING"
            if error is not None:
                raise error
    except (ValueError, Interrupted):
        pass
    assert store.get(run.id).status == status


@pytest.mark.usefixtures("root")
def test_only_what_no_process_holds_is_closed(tiny: LoopConfig) -> None:
    store = Store.open()
    dead, alive = (create_loop(store, tiny, "loop", study, None) for study in ("dead", "alive"))
    generations = [store.create("gen-01", loop, {"level": "generation"}) for loop in (dead, alive)]
    elsewhere = create_loop(store, tiny, "loop", "elsewhere", None)
    elsewhere.log_tags(place="another machine:/its/folder")
    with stores.locked("alive", tiny.fingerprint()):
        close_dead_runs(store)
    states = [store.get(run.id).status for run in (dead, generations[0], alive, generations[1], elsewhere)]
    assert states == ["KILLED", "KILLED", "RUNNING", "RUNNING", "RUNNING"]
