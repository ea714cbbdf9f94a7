"""MLflow's server behind a gate: only this machine's browser, only at this port, and the runs as its first page.

    python -m ouroloop.report.server PORT PAGE

By itself, MLflow lets pages of any other server on this machine ask it to write, and any host of a private network
read: a name that points at 127.0.0.1 is enough. Here a request must name this host and port and, if it comes from a
page, come from a page of this server.
"""

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
_FIRST = b"""<!doctype html><title>MLflow</title><script>
location.replace("/?ui" + (location.hash || %s))</script>"""
_FOREIGN = b"Only this machine's own pages are answered here."


def gate(app: App, port: int, first: str) -> App:
    """`app`, for requests to this host and port only; its first page leads to `first`, which begins with `#`."""
    hosts = {f"{host}:{port}" for host in HOSTS} | ({*HOSTS} if port == 80 else set())

    async def gated(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await (app(scope, receive, send) if scope["type"] == "lifespan" else _close(send))
        elif not _is_own(scope["headers"], hosts):
            await _answer(send, 403, b"text/plain", _FOREIGN)
        elif scope["path"] == "/" and not scope["query_string"] and scope["method"] == "GET":
            await _answer(send, 200, b"text/html; charset=utf-8", _FIRST % f'"{first}"'.encode())
        else:
            await app(scope, receive, send)

    return gated


def _is_own(headers: list[tuple[bytes, bytes]], hosts: set[str]) -> bool:
    named = [value.decode("latin-1").lower() for key, value in headers if key == b"host"]
    origins = [value.decode("latin-1").lower() for key, value in headers if key == b"origin"]
    return len(named) == 1 and named[0] in hosts and all(origin == f"http://{named[0]}" for origin in origins)


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})


def main(port: int, first: str) -> None:
    from ouroloop.record import stores

    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": stores.tracking_uri(),  # as `mlflow server` hands them on
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(stores.runs_folder() / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{host}:{port}" for host in HOSTS),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    import uvicorn
    from mlflow.server.fastapi_app import app

    uvicorn.run(gate(app, port, first), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
