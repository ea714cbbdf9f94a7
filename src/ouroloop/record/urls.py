"""What the URL of a store may be, where it points to, and which parts of it a person may see."""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus, urlsplit
from urllib.request import url2pathname

from ouroloop.config import ConfigError
from ouroloop.errors import shown

VARIABLES = ("MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL")
"""The environment variables that name the stores."""


def named(variable: str) -> str | None:
    """The URL that the environment names.

    Raises:
        ConfigError: it is not clear which place it names.
    """
    url = os.environ.get(variable)
    if not url:
        return None
    if re.match(r"sqlite\b", url):
        path = sqlite_file(url)
        if path is None or path.name in ("", ":memory:") or str(path).startswith("file:") or path.is_dir():
            raise ConfigError(f"{variable}: got {shown(url)}, allowed is the path of a file: sqlite:////PATH")
        return url
    try:
        place = urlsplit(url)
        is_clear = place.port != 0 and "@" not in (place.password or "")
    except ValueError:
        is_clear = False
    if not is_clear:
        form = "a host, a port from 1 to 65535, and in a password %40 for '@', %2F for '/' and the like"
        raise ConfigError(f"{variable}: got {masked(url)}, allowed is {form}")
    return url


def is_server(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite store, whatever its folder is called: SQLAlchemy undoes one level of quoting."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_file(url: str) -> Path | None:
    """Where an SQLite store lies, whether it is there or not; None for a store of another kind."""
    kind, _, path = url.partition(":///")
    return Path(unquote(path.partition("?")[0])) if kind.partition("+")[0] == "sqlite" else None


def local_path(uri: str) -> Path | None:
    """Where an artifact lies on this machine; None if it lies elsewhere."""
    place = urlsplit(uri)
    return Path(url2pathname(place.path)) if place.scheme == "file" else None


_SECRETS = (
    re.compile(r"(://[^\s:/]*:)(\S*)(?=@)"),  # up to the last @: a password may be written unquoted
    re.compile(r"([?&]\w*(?:password|passwd|pwd)=)(?!\*{3})([^\s&]+)", re.IGNORECASE),
)


def masked(text: str) -> str:
    """The text without the passwords of the stores, for whatever is printed, logged or recorded."""
    urls = [os.environ.get(name, "") for name in VARIABLES]
    found = {secret for pattern in _SECRETS for url in urls for _, secret in pattern.findall(url) if secret}
    plain = {spelled(secret) for secret in found for spelled in (unquote, unquote_plus)}
    for secret in sorted(found | plain | {quote(secret) for secret in plain}, key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text
