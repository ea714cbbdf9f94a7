"""The import of the large libraries, which takes seconds."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def loading(console: Console) -> Iterator[None]:
    """Says so, and keeps the garbage collector out, whose walks through all that is loaded would cost a fifth."""
    gc.disable()
    try:
        with console.status("loading libraries"):
            yield
    finally:
        gc.freeze()  # what is loaded stays, so that nobody needs to walk through it later either
        gc.enable()
