"""A signal ends what runs, and cuts nothing in two that must be whole."""

import os
import signal
from collections.abc import Iterator

import pytest

from ouroloop.signals import Interrupted, Uncut, catch_signals, held


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    catch_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    with held():
        pass
