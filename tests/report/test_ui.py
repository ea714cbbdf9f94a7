"""A server that answers to whom it should not, and a port that cannot be had."""

import asyncio
import socket
from typing import Any

import pytest

from ouroloop.errors import ConfigError
from ouroloop.record.track import Store
from ouroloop.report.server import gate
from ouroloop.report.ui import _followed, open_ui
from tests.conftest import CommandLine


def asked(path: str = "/ajax-api/2.0/x", query: bytes = b"", kind: str = "http", **headers: str) -> tuple[int, bytes]:
    """Status and body that a request to port 5077 gets; 299 stands for having come through."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})

    async def send(message: Any) -> None:
        sent.append(dict(message))

    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": kind, "path": path, "query_string": query, "method": "GET", "headers": raw}
    asyncio.run(gate(app, 5077, "#/runs")(scope, None, send))
    return sent[0].get("status", sent[0].get("code", 0)), b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("host", ["127.0.0.1:5077", "localhost:5077"])
def test_this_machine_at_this_port(host: str) -> None:
    assert asked(host=host)[0] == 299
    assert asked(host=host, origin=f"http://{host}")[0] == 299


@pytest.mark.parametrize(
    "host", ["10.evil.example", "192.168.0.4:5077", "127.0.0.1", "localhost:80", "127.0.0.1:50770"]
)
def test_another_host_is_refused(host: str) -> None:
    assert asked(host=host)[0] == 403
    assert asked("/health", host=host)[0] == 403
    assert asked("/", host=host)[0] == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://127.0.0.1:5077", "null", ""])
def test_another_page_is_refused(origin: str) -> None:
    assert asked(host="127.0.0.1:5077", origin=origin)[0] == 403


def test_no_host_and_no_sockets() -> None:
    assert asked()[0] == 403
    assert asked(kind="websocket", host="127.0.0.1:5077")[0] == 1008


def test_the_first_page_is_the_runs() -> None:
    status, body = asked("/", host="localhost:5077")
    assert status == 200
    assert b'"#/runs"' in body
    assert asked("/", b"ui", host="localhost:5077")[0] == 299


@pytest.mark.parametrize(
    "address",
    ["http://host:5000", "http://host:5000/", "http://somebody:secret@host:5000/", "http://:secret@host:5000"],
)
def test_a_servers_link_is_one_that_can_be_followed(address: str) -> None:
    assert _followed(address) == "http://host:5000"


@pytest.mark.usefixtures("root")
def test_a_port_that_cannot_be_had_is_one_line(ouroloop: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port={port} is taken"):
            open_ui(Store.open(), port)
    for number in (0, 80_000, -1):
        done = ouroloop("ui", f"--port={number}")
        assert done.returncode == 2
        assert "is not a whole number from 1 to 65535;" in done.stderr
        assert done.stderr.count("\n") == 1
