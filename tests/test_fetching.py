"""A hub on this machine that has nothing: who asks it, and who does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

CORPUS = """
from ouroloop.learner.network import pretrained  # as a run does, before its corpus is read
from ouroloop.testbed.text.corpus import Corpus, select
try: select(Corpus("nobody/corpus", "text", 64), 1, 10, 1)
except Exception as error: print(type(error).__name__, error)
"""
MODEL = """
from ouroloop.config import NamedModel
from ouroloop.learner.network.pretrained import downloaded
try: downloaded(NamedModel("model.pretrained", "nobody/model", "a" * 40))
except Exception as error: print(type(error).__name__, error)
"""
LIBRARY = """
import ouroloop.learner.network
from transformers import AutoConfig
try: AutoConfig.from_pretrained("nobody/unnamed")
except Exception as error: print(type(error).__name__)
"""
STARTED = f"""
import ouroloop.learner.network, subprocess, sys
subprocess.run([sys.executable, "-c", {CORPUS!r}])
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked."""
    asked = list[str]()

    class Nothing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_HEAD

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("code", "choice", "errors", "names"),
    [
        (
            LIBRARY + CORPUS + MODEL + LIBRARY,
            {},
            ["OSError", "ConfigError", "ConfigError", "OSError"],
            {"corpus", "model"},
        ),
        (STARTED, {}, ["ConfigError"], {"corpus"}),
        (CORPUS + MODEL, {"HF_HUB_OFFLINE": "1"}, ["ConfigError", "ConfigError"], set()),
    ],
    ids=["online", "a process started by one", "offline"],
)
def test_the_hub_is_asked_for_what_is_named_and_for_nothing_else(
    code: str, choice: dict[str, str], errors: list[str], names: set[str], hub: tuple[str, list[str]], tmp_path: object
) -> None:
    """What a library asks for by itself is refused before a name of ours is asked for, and afterwards."""
    address, asked = hub
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "OUROLOOP_"))}
    environment = kept | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"} | choice
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == errors
    assert {name for name in ("corpus", "model", "unnamed") if any(f"nobody/{name}" in path for path in asked)} == names
    assert names or not asked
