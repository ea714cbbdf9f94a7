"""The import of the large libraries: without the garbage collector, which must be back whatever happens."""

import gc
import subprocess
import sys

import pytest
from rich.console import Console

from ouroloop.record.loading import loading
from tests.conftest import TINY


def test_the_collector_is_out_inside_and_back_after_an_error() -> None:
    with loading(Console(quiet=True)):
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), loading(Console(quiet=True)):
        raise ImportError
    assert gc.isenabled()


def test_no_generation_is_charged_with_an_import() -> None:
    code = f"""
import sys
from ouroloop.config import LoopConfig
from ouroloop.loop.generation import load_libraries, produce
from ouroloop.loop.loop import draw_original
from ouroloop.loop.generation import Observer
config = LoopConfig.model_validate({TINY!r})
load_libraries(config)
before = len(sys.modules)
produce(config, 1, draw_original(config), Observer())
print(len(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40, done.stdout  # of thousands
