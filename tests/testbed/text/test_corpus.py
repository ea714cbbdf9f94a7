"""Every format gives its texts byte for byte; what is wrong is one line; memory is that of what is kept."""

import csv
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ouroloop.errors import ConfigError
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import stream
from ouroloop.testbed.text.corpus import Corpus, documents, select

HARD = [
    "a\tb",
    "two\nlines",
    "nul \0 here",
    "🐍 emoji e\u0301",
    "\u202eright to left\u202c",
    "x y " * 25_000,
    "\\n",
    "\r",
]


def corpus(path: Path, **changed: object) -> Corpus:
    return Corpus(str(path), "text", 1_000_000)._replace(**changed)


def written(folder: Path, kind: str, texts: list[str]) -> Path:
    path = folder / f"corpus.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)))
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *enumerate(texts)])
    else:
        parquet.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_hard_texts_come_through_byte_for_byte_and_survive_the_disk(tmp_path: Path, kind: str) -> None:
    assert list(documents(corpus(written(tmp_path, kind, HARD)))) == HARD
    found = select(corpus(written(tmp_path, kind, HARD)), 0, 100, seed=1)
    assert set(found.pool) == {text for text in HARD if not text.isspace()}
    (tmp_path / "kept.tsv.gz").write_bytes(Dataset.of(found.pool, Source.ORIGINAL, 0).to_bytes())
    assert Dataset.read(tmp_path / "kept.tsv.gz").texts == found.pool


def test_a_txt_file_is_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("one\r\ntwo\x0btwo\x85\u2028\n\nthree \0\t\rx\nlast".encode())
    assert list(documents(corpus(path))) == ["one", "two\x0btwo\x85\u2028", "", "three \0\t\rx", "last"]


@pytest.mark.parametrize(("name", "row"), [("a.txt", "{}"), ("a.jsonl", '{{"text": "{}"}}'), ("a.csv", "text\n{}")])
def test_files_are_utf_8_and_a_mark_that_says_so_is_no_text(tmp_path: Path, name: str, row: str) -> None:
    path, written = tmp_path / name, row.format("a café here")
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(written, encoding=encoding)
        assert list(documents(corpus(path))) == ["a café here"]
    path.write_text(written, encoding="latin-1")
    with pytest.raises(
        ConfigError, match=rf"{name} is not UTF-8: byte 0xe9 after '.*a caf'; convert it, as with iconv"
    ):
        list(documents(corpus(path)))
    path.write_text(written, encoding="utf-16")
    with pytest.raises(ConfigError, match=rf"{name} is not UTF-8: byte 0xff after ''"):
        list(documents(corpus(path)))


def test_a_csv_may_have_an_index_without_a_name(tmp_path: Path) -> None:
    """As pandas writes it: what lies beyond the header is an error, a column whose name is empty is not."""
    (tmp_path / "a.csv").write_text(',text\n0,one\n1,"two, with a comma"\n')
    assert list(documents(corpus(tmp_path / "a.csv"))) == ["one", "two, with a comma"]


def test_half_a_surrogate_pair_is_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text('{"text": "cut \\ud83d off, whole \\ud83d\\udc0d"}\n{"text": null}\n')
    assert list(documents(corpus(path))) == ["cut \ufffd off, whole 🐍", ""]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.TXT").write_text("second")
    (tmp_path / "notes.md").write_text("no corpus")
    written(tmp_path / "deep", "jsonl", ["third"])
    (tmp_path / "a.txt").write_text("first")
    assert list(documents(corpus(tmp_path))) == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.jsonl", '{"text": "a"}\n{"body": "b", "id": 1}', r"line 2: no column 'text'; .* may be body, id"),
        ("c.jsonl", '{"text": "a"}\nnot json', "line 2 is not JSON"),
        ("c.jsonl", "[1, 2]", "line 1 is not a row"),
        ("c.jsonl", '{"text": 7}', "column 'text' is not text but 7"),
        ("c.csv", "body,id\na,1", "row 1: no column 'text'"),
        ("c.csv", "id,text\n1,a\n2,Hello, world", "row 2 has 3 fields, the header 2: a text with a comma needs quotes"),
        ("c.csv", 'id,text\n1,"an open quote\n2,b', "unexpected end of data"),
        ("c.csv", "text,id,text\na,1,b", "2 of its columns are called 'text'"),
        ("c.parquet", "no parquet at all", "c.parquet: "),
        ("c.txt", "", "holds no text"),
        ("c.txt", " \n\t\n", "holds no text"),
        ("c.jsonl", "", "holds no text"),
        ("c.bin", "x", "is not a file that ends in .txt, .jsonl, .csv, .parquet"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=says) as raised:
        select(corpus(tmp_path / name), 1, 10, seed=1)
    assert "\n" not in str(raised.value)


def test_a_column_that_a_parquet_file_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column 'body'; data\.text_column may be id, text"):
        select(corpus(written(tmp_path, "parquet", ["a"]), text_column="body"), 1, 10, seed=1)


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    """As Spark writes one."""
    inner = tmp_path / "corpus.txt"
    inner.mkdir()
    (inner / "part-0.txt").write_text("one two three")
    assert list(documents(corpus(tmp_path))) == ["one two three"]


def test_a_missing_file_an_empty_folder_and_an_unknown_library(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "missing.txt", "no such file"), (tmp_path, "has no file that ends in")):
        with pytest.raises(ConfigError, match=says):
            select(corpus(path), 1, 10, seed=1)
    with pytest.raises(ConfigError, match="'no-such-library' is not installed"):
        select(Corpus("docstrings:no-such-library", "text", 64), 1, 10, seed=1)


def test_a_dataset_of_the_hub_without_the_column_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"body": "one"}])
    monkeypatch.setattr("ouroloop.fetching.online", nullcontext)  # there is no network, and only the rows matter
    with pytest.raises(ConfigError) as refused:
        select(Corpus("somebody/some-dataset", "text", 64), 1, 10, 1)
    message = "data.path somebody/some-dataset: row 1: no column 'text'; data.text_column may be body"
    assert str(refused.value) == message


@pytest.mark.heavy
def test_a_dataset_of_the_hub_without_a_network_is_one_line() -> None:
    """In a process of its own, since the library reads its environment once."""
    code = (
        "from ouroloop.testbed.text.corpus import *\n"
        "try: select(Corpus('nobody/no-such-dataset', 'text', 64), 1, 10, 1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError data.path nobody/no-such-dataset: neither a file or folder")
    assert done.stdout.count("\n") == 1


@pytest.mark.heavy
def test_a_selection_is_a_uniform_sample_of_the_distinct_blocks(tmp_path: Path) -> None:
    """Of 40 lines, some of them often, 10 are chosen: over 300 seeds each within 4 standard errors of 1/4."""
    path = tmp_path / "repeated.txt"
    lines = [f"line {i}" for i in range(40)]
    shuffled = stream(1, "shuffle").permutation([line for i, line in enumerate(lines) for _ in range(1 + 20 * (i % 2))])
    path.write_text("\n".join(shuffled))
    chosen = [select(corpus(path), 0, 10, seed).pool for seed in range(300)]
    assert all(len(set(pool)) == 10 for pool in chosen)
    shares = [sum(line in pool for pool in chosen) / 300 for line in lines]
    assert all(abs(share - 0.25) < 4 * (0.25 * 0.75 / 300) ** 0.5 for share in shares)
    everything = select(corpus(path), 5, 100, seed=1)
    assert sorted([*everything.held_out, *everything.pool]) == sorted(lines)


def test_long_documents_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a b c d e f g\n")
    assert set(select(corpus(path, block_tokens=3), 0, 9, seed=1).pool) == {"a b c", " d e f", " g"}


STREAMED = """
import resource, sys
from ouroloop.testbed.text.corpus import Corpus, select
select(Corpus(sys.argv[1], "text", 64), 100, 1_000, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kilobytes(path: Path) -> int:
    done = subprocess.run([sys.executable, "-c", STREAMED, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_peak_memory_does_not_grow_with_the_corpus(tmp_path: Path, kind: str) -> None:
    """Ten times the corpus, 40 MB more of text: less than a tenth of that more memory."""
    peaks = []
    for size in (1, 10):
        path = tmp_path / f"{size}.{kind}"
        with path.open("w") as file:
            for i in range(size * 4_000):
                text = f"Document {i} says little, and says it " + "again and again " * 64
                file.write(f"{text}\n" if kind == "txt" else json.dumps({"text": text}) + "\n")
        peaks.append(peak_kilobytes(path))
    assert path.stat().st_size > 40_000_000
    assert peaks[1] - peaks[0] < 4_000


PREPARED = """
import resource, sys
from time import process_time
from ouroloop.testbed.text.testbed import TextTestbed
bed = TextTestbed(sys.argv[1], num_held_out=500).prepared(1, 2_000, 2_000)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(bed.held_out), len(bed.original(2_000, None)), peak, process_time())
"""


@pytest.mark.slow
def test_a_gigabyte_is_prepared_in_the_memory_of_a_tenth(tmp_path: Path) -> None:
    """A jsonl of distinct documents of 2 kB: 900 MB more of text, less than a hundredth of that more memory."""
    path, peaks, size = tmp_path / "corpus.jsonl", list[int](), 0
    with path.open("w") as file:
        for end in (100_000_000, 1_000_000_000):
            while size < end:
                sentences = (f"Sentence {i} of the document at {size} ends after some words. " for i in range(32))
                size += file.write(json.dumps({"id": size, "text": "".join(sentences)}) + "\n")
            file.flush()
            done = subprocess.run(
                [sys.executable, "-c", PREPARED, str(path)], capture_output=True, text=True, check=True
            )
            held_out, original, peak, seconds = done.stdout.split()
            assert (held_out, original) == ("500", "2000")
            peaks.append(int(peak))
            print(f"{size / 1e6:,.0f} MB: {int(peak) / 1e3:,.1f} MB at most, {float(seconds):.0f} s of a core")
    assert peaks[1] - peaks[0] < 9_000
