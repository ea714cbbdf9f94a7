"""A model by its name of the hub and its commit, kept in the hub's own cache."""

from pathlib import Path

from huggingface_hub import snapshot_download

from ouroloop.config import ConfigError, NamedModel
from ouroloop.errors import reason
from ouroloop.fetching import OFFLINE_BY_CHOICE, online

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]
"""Neither pickled weights nor code."""


def downloaded(model: NamedModel) -> Path:
    """The folder of a name of the hub, from the cache where it is there.

    Raises:
        ConfigError: there is no such model, or no way to it.
    """
    name, commit = model.name, model.pinned
    try:
        try:
            return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED, local_files_only=True))
        except Exception:
            if OFFLINE_BY_CHOICE:
                raise
        with online():
            return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED))
    except Exception as error:  # of the network, the hub or its cache, each with its own
        raise ConfigError(f"cannot get {model} at {commit[:12]}: {reason(error)}") from None
