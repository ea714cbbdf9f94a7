"""A corpus as a stream of documents, and which of their blocks a loop gets.

This takes one pass over the corpus, and memory for no more than is wanted, whatever its size: a block's place is a hash
of its text, and the blocks with the lowest places are kept (a bottom-k sample: uniform over the distinct blocks,
without replacement; a block that comes again has the same place). The hash that decides what is held out is the same
for every seed. The one that orders the rest is the seed's, so D_0 and fresh data follow one another in one order, and a
longer loop has those of a shorter one.
"""

import csv
import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ouroloop.errors import ConfigError, needs, reason
from ouroloop.testbed.text import docstrings
from ouroloop.testbed.text.tokens import blocks

KINDS = (".txt", ".jsonl", ".csv", ".parquet")
_LONGEST_LINE = 1_000_000  # characters of a txt file that are read at once, at most
_SHOWN = 20  # bytes before one that is not UTF-8 that are shown
_ROWS = 1_000  # rows of a parquet file that are held at once


class Corpus(NamedTuple):
    """Where a corpus is, and how it is cut."""

    path: str
    text_column: str
    block_tokens: int


class Selection(NamedTuple):
    """What a loop gets of a corpus."""

    held_out: tuple[str, ...]
    pool: tuple[str, ...]
    """D_0, then prompts, then fresh data; fewer texts than wanted where the corpus has no more."""
    digest: str
    """Digest of the whole corpus as it was cut."""


def select(corpus: Corpus, num_held_out: int, num_wanted: int, seed: int) -> Selection:
    """The blocks that are held out, and `num_wanted` others in the seed's order.

    Raises:
        ConfigError: the corpus cannot be read, or holds no text.
    """
    return _select(corpus, num_held_out, num_wanted, seed, _stamp(corpus.path))


@lru_cache(maxsize=2)
def _select(corpus: Corpus, num_held_out: int, num_wanted: int, seed: int, stamp: object) -> Selection:
    everything = hashlib.blake2b(digest_size=16)
    held_out, others = _Lowest(num_held_out, "held out"), _Lowest(num_wanted + num_held_out, f"seed {seed}")
    for document in documents(corpus):
        for block in blocks(document, corpus.block_tokens):
            content = block.encode()
            everything.update(b"%d:%b" % (len(content), content))
            held_out.offer(block, content)
            others.offer(block, content)
    if not others.texts:
        raise ConfigError(f"data.path {corpus.path} holds no text")
    apart = dict.fromkeys(held_out.in_order())
    pool = [text for text in others.in_order() if text not in apart]
    return Selection(tuple(apart), tuple(pool[:num_wanted]), everything.hexdigest())


class _Lowest:
    """The `size` texts with the lowest keyed hashes of all that were offered."""

    def __init__(self, size: int, key: str) -> None:
        self._size, self._key, self._heap = size, key.encode(), list[int]()
        self.texts: dict[int, str] = {}

    def offer(self, text: str, content: bytes) -> None:
        place = int.from_bytes(hashlib.blake2b(content, digest_size=8, key=self._key).digest(), "big")
        if place in self.texts:
            return
        if len(self.texts) < self._size:
            heappush(self._heap, -place)
        elif self._heap and place < -self._heap[0]:
            del self.texts[-heappushpop(self._heap, -place)]
        else:
            return
        self.texts[place] = text

    def in_order(self) -> list[str]:
        return [text for _, text in sorted(self.texts.items())]


def _stamp(path: str) -> object:
    """What is known about a corpus without reading it: another stamp means another corpus."""
    libraries = docstrings.libraries_of(path)
    if libraries is not None:
        return docstrings.versions(libraries)
    files = _files(Path(path).expanduser()) if Path(path).expanduser().exists() else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def documents(corpus: Corpus) -> Iterator[str]:
    """Every text of the corpus, one after the other: lines of txt files, rows of others.

    Half a surrogate pair, which JSON can spell, becomes U+FFFD.

    Raises:
        ConfigError: there is no corpus, a row lacks the column, or a file is not UTF-8 or not what its name says.
    """
    libraries = docstrings.libraries_of(corpus.path)
    if libraries is not None:
        yield from docstrings.sentences(libraries)
        return
    place = Path(corpus.path).expanduser()
    if not place.exists():
        yield from _of_hub(corpus)
        return
    for file in _files(place):
        try:
            yield from _READERS[_kind(file)](file, corpus.text_column)
        except UnicodeDecodeError as error:
            before = error.object[max(0, error.start - _SHOWN) : error.start].decode(errors="replace")
            raise ConfigError(
                f"data.path {file} is not UTF-8: byte 0x{error.object[error.start]:02x} after {before!r}; convert it, "
                "as with iconv -f ENCODING -t UTF-8"
            ) from None
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"data.path {file}: {reason(error)}") from None


def _files(place: Path) -> list[Path]:
    found = [place]
    if place.is_dir():
        found = sorted(file for file in place.rglob("*") if _kind(file) in KINDS and file.is_file())
    if not found or _kind(found[0]) not in KINDS:
        what = "has no file" if place.is_dir() else "is not a file"
        raise ConfigError(f"data.path {place} {what} that ends in {', '.join(KINDS)}")
    return found


def _kind(file: Path) -> str:
    return file.suffix.lower()


def _open(file: Path, newline: str) -> TextIO:
    """The file as UTF-8, without the byte order mark that some editors put before it."""
    with file.open("rb") as stream:
        is_marked = stream.read(len(BOM_UTF8)) == BOM_UTF8
    return file.open(encoding="utf-8-sig" if is_marked else "utf-8", newline=newline)


def _lines(file: Path) -> Iterator[str]:
    with _open(file, "\n") as stream:
        while line := stream.readline(_LONGEST_LINE):
            yield line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _of_lines(file: Path, column: str) -> Iterator[str]:
    return _lines(file)


def _of_jsonl(file: Path, column: str) -> Iterator[str]:
    with _open(file, "\n") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not JSON: {error}") from None
                yield _text_of(row, column, f"line {number}")


def _of_csv(file: Path, column: str) -> Iterator[str]:
    csv.field_size_limit(2**31 - 1)
    with _open(file, "") as stream:
        rows = csv.DictReader(stream, strict=True)  # an open quote would swallow the rest of the file
        names = rows.fieldnames or []
        if names.count(column) > 1:
            raise ValueError(f"{names.count(column)} of its columns are called {column!r}")
        for number, row in enumerate(rows, 1):
            if beyond := row.pop(None, None):
                fields = f"row {number} has {len(names) + len(beyond)} fields, the header {len(names)}"
                raise ValueError(f"{fields}: a text with a comma needs quotes")
            yield _text_of(row, column, f"row {number}")


def _of_parquet(file: Path, column: str) -> Iterator[str]:
    from pyarrow import parquet  # takes a third of a second to import

    with parquet.ParquetFile(file) as table:
        if column not in table.schema_arrow.names:
            raise ValueError(_no_column(column, table.schema_arrow.names))
        number = 0
        for batch in table.iter_batches(_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield _text_of({column: value}, column, f"row {number}")


_READERS = {".txt": _of_lines, ".jsonl": _of_jsonl, ".csv": _of_csv, ".parquet": _of_parquet}


def _text_of(row: Any, column: str, where: str) -> str:
    """The text of a row, empty for a null, which makes no example. Raises ValueError for what is not text."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a row of named columns")
    if column not in row:
        raise ValueError(f"{where}: {_no_column(column, row)}")
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"{where}: column {column!r} is not text but {json.dumps(text, default=str)[:40]}")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_column(column: str, there_are: Any) -> str:
    return f"no column {column!r}; data.text_column may be {', '.join(str(name) for name in there_are if name)}"


def _of_hub(corpus: Corpus) -> Iterator[str]:
    """The training split of a dataset of the hub, as a stream."""
    is_file = corpus.path.startswith((".", "/", "~")) or _kind(Path(corpus.path)) in KINDS
    if is_file:
        raise ConfigError(f"data.path {corpus.path}: there is no such file or folder")
    name, _, part = corpus.path.partition(":")
    from ouroloop import fetching

    try:
        from datasets import load_dataset
    except ImportError:
        nowhere = f"data.path {corpus.path}: there is no such file or folder, and a dataset of the hub"
        raise needs(nowhere, "datasets", "text") from None
    try:
        with nullcontext() if fetching.OFFLINE_BY_CHOICE else fetching.online():
            rows = iter(load_dataset(name, part or None, split="train", streaming=True))
            for number, row in enumerate(rows, 1):
                try:
                    text = _text_of(row, corpus.text_column, f"row {number}")
                except ValueError as error:
                    raise ConfigError(f"data.path {corpus.path}: {error}") from None
                yield text
    except ConfigError:
        raise
    except Exception as error:  # the network, the hub and each format raise errors of their own
        where = f"data.path {corpus.path}: neither a file or folder here nor available from the hub"
        raise ConfigError(f"{where}: {reason(error)}") from None
