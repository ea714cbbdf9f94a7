"""A signal ends what runs, and cuts nothing in two that must be whole."""

import os
import signal
import subprocess
import sys

import pytest

from ouroloop.record.liveness import SIGNALS, Interrupted, Steady, held

pytestmark = pytest.mark.usefixtures("caught_signals")


class Client:
    """Is sent a signal in the middle of a commit."""

    version = 3
    committed = False

    def commit(self, signum: int) -> None:
        os.kill(os.getpid(), signum)
        self.committed = True


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_raises_where_it_finds_the_process(signum: int) -> None:
    client = Client()
    with pytest.raises(Interrupted) as raised:
        client.commit(signum)
    assert (raised.value.signum, client.committed) == (signum, False)


@pytest.mark.parametrize("signum", SIGNALS)
def test_an_uncut_call_ends_first(signum: int) -> None:
    client = Client()
    with pytest.raises(Interrupted) as raised:
        Steady(client).commit(signum)
    assert (raised.value.signum, client.committed) == (signum, True)
    assert Steady(client).version == 3


def test_a_signal_waits_for_the_outermost_and_raises_once() -> None:
    client = Client()

    def nested() -> None:
        with held():
            Steady(client).commit(signal.SIGTERM)
            client.version = 4

    with pytest.raises(Interrupted):
        nested()
    assert client.version == 4


def test_what_is_raised_while_runs_are_closed_is_raised_once() -> None:
    client = Client()

    def work() -> None:
        try:
            client.commit(signal.SIGTERM)
        except Interrupted:
            with held():
                client.version = 4
            raise

    with pytest.raises(Interrupted):
        work()
    assert client.version == 4


TWICE = """
import os, signal, time
from ouroloop.record.liveness import Interrupted, catch_signals
catch_signals()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Interrupted:
    os.kill(os.getpid(), signal.SIGHUP)  # as a terminal that closes does: at once
    time.sleep({pause})
    os.kill(os.getpid(), signal.SIGINT)
    print("goes on", flush=True)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(("pause", "outcome"), [(0.0, (0, "goes on\n")), (0.4, (130, ""))])
def test_a_second_signal_ends_the_process_unless_it_comes_with_the_first(
    pause: float, outcome: tuple[int, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE.format(pause=pause)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == outcome


@pytest.mark.heavy
def test_what_nohup_ignores_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom ouroloop.record.liveness import catch_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ncatch_signals()\nos.kill(os.getpid(), signal.SIGHUP)\nprint(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_server_is_waited_for_without_holding_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits on its own, and its client may try for minutes to reach it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    client = Client()
    with pytest.raises(Interrupted):
        Steady(client).commit(signal.SIGTERM)
    assert not client.committed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_finalizer_swallows_is_raised_at_the_next_call() -> None:
    """Python prints what `__del__` raises and goes on; a loop would run to its end then, deaf to every signal."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    Finalized()
    client = Client()
    with pytest.raises(Interrupted), held():
        client.version = 4
    assert client.version == 4
