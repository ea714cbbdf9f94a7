"""A signal ends what runs, and cuts nothing in two that must be whole."""

import os
import signal

import pytest

from ouroloop.record.liveness import Interrupted, Uncut, held

pytestmark = pytest.mark.usefixtures("caught_signals")


class Client:
    """Is sent a signal in the middle of a commit."""

    version = 3
    committed = False

    def commit(self, signum: int) -> None:
        os.kill(os.getpid(), signum)
        self.committed = True


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_where_it_finds_the_process(signum: int) -> None:
    client = Client()
    with pytest.raises(Interrupted) as raised:
        client.commit(signum)
    assert (raised.value.signum, client.committed) == (signum, False)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_uncut_call_ends_first(signum: int) -> None:
    client = Client()
    with pytest.raises(Interrupted) as raised:
        Uncut(client).commit(signum)
    assert (raised.value.signum, client.committed) == (signum, True)
    assert Uncut(client).version == 3


def test_a_signal_waits_for_the_outermost_and_raises_once() -> None:
    client = Client()

    def nested() -> None:
        with held():
            Uncut(client).commit(signal.SIGTERM)
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


def test_a_second_signal_does_not_disturb_the_closing_of_runs() -> None:
    """Whatever handlers a library has put back by then."""
    client = Client()
    handler = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        try:
            client.commit(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, handler)
            os.kill(os.getpid(), signal.SIGTERM)
            client.version = 4

    with pytest.raises(Interrupted):
        work()
    assert client.version == 4


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
