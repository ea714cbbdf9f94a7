"""When something is fetched: a model or a corpus that is asked for by its name on the hub, and never anything else.

The hub's libraries are told that there is no network, except inside `online`. If the user has set HF_HUB_OFFLINE,
nothing is fetched at all.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHOICE = "OUROLOOP_HUB_OFFLINE"  # or a child process would take the HF_HUB_OFFLINE below for the user's choice
_SECONDS = 5.0  # after which the hub is taken to be out of reach

os.environ.setdefault(_CHOICE, os.environ.get("HF_HUB_OFFLINE", ""))
OFFLINE_BY_CHOICE = os.environ[_CHOICE].upper() in {"1", "ON", "YES", "TRUE"}
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the libraries are imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@contextmanager
def online() -> Iterator[None]:
    """Let the hub be asked inside.

    Raises:
        Exception: a network error, at once if the hub is out of reach; the libraries would try for minutes.
    """
    from huggingface_hub import constants, get_session

    told: list[Any] = [constants]
    if "datasets" in sys.modules and "HF_DATASETS_OFFLINE" not in os.environ:
        told.append(sys.modules["datasets.config"])
    usual = [module.HF_HUB_OFFLINE for module in told]
    try:
        for module in told:
            module.HF_HUB_OFFLINE = False
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
        yield
    finally:
        for module, before in zip(told, usual, strict=True):
            module.HF_HUB_OFFLINE = before
