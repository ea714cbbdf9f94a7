"""A model of transformers that exists already, and the digits that it is known by: a loop must not take another."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ouroloop.errors import ConfigError


class NamedModel(NamedTuple):
    """A folder, or a name of the hub at a commit."""

    field: str
    """The field of the configuration that names it."""
    name: str
    revision: str | None
    """For a folder, the digest of what is in it, or None for what is in it now; for a name of the hub, the commit."""

    def __str__(self) -> str:
        return f"{self.field} {self.name!r}"

    @property
    def is_local(self) -> bool:
        return self.name.startswith((".", "/", "~")) or Path(self.name).is_dir()

    @property
    def folder(self) -> Path:
        """Where a local model lies."""
        return Path(self.name).expanduser()

    @property
    def pinned(self) -> str:
        """The revision; for a folder that has none given, the digest of what it holds now."""
        return self.content() if self.revision is None else self.revision

    def require_commit(self, field: str) -> None:
        """Raise ValueError where a name of the hub has no commit; `field` is the one that gives it."""
        if not self.is_local and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"no folder {self.name!r}; a model on the hub needs {field}, its commit in 40 digits")

    def content(self) -> str:
        """Digest of a folder's weights, configuration and tokenizer.

        Raises:
            ConfigError: there is no such folder.
        """
        if not self.folder.is_dir():
            raise ConfigError(f"{self.field}: no folder {self.name!r}")
        files = sorted(
            path for pattern in ("*.json", "*.safetensors", "*.model", "*.txt") for path in self.folder.glob(pattern)
        )
        return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=16)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    sha = hashlib.sha256()
    for path, size, _ in files:
        sha.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                sha.update(part)
    return sha.hexdigest()[:40]
