"""The one place that asks a hub for anything: a model by its name and commit, kept in the hub's own cache."""

from pathlib import Path

from huggingface_hub import constants, get_session, snapshot_download

from ouroloop.config import ConfigError, NamedModel
from ouroloop.errors import reason
from ouroloop.learner.network import OFFLINE_BY_CHOICE

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]
"""Neither pickled weights nor code."""
_SECONDS = 5.0  # after which the hub is taken to be out of reach


def downloaded(model: NamedModel) -> Path:
    """The folder of a name of the hub, from the cache where it is there.

    Raises:
        ConfigError: there is no such model, or no way to it.
    """
    name, commit, usual = model.name, model.pinned, constants.HF_HUB_OFFLINE
    try:
        try:
            return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED, local_files_only=True))
        except Exception:
            if OFFLINE_BY_CHOICE and usual:
                raise
        constants.HF_HUB_OFFLINE = False
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)  # where there is no way, it would try for minutes
        return Path(snapshot_download(name, revision=commit, allow_patterns=_WANTED, etag_timeout=_SECONDS))
    except Exception as error:  # of the network, the hub or its cache, each with its own
        raise ConfigError(f"cannot get {model} at {commit[:12]}: {reason(error)}") from None
    finally:
        constants.HF_HUB_OFFLINE = usual
