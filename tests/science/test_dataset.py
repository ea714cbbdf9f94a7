"""Provenance must survive the disk, and a damaged file must be told apart."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ouroloop.science.dataset import Dataset, DatasetError, Source
from ouroloop.science.seeding import stream


def texts(prefix: str, count: int) -> list[str]:
    return [f"{prefix}.{i}" for i in range(count)]


def test_provenance_survives_the_disk(tmp_path: Path) -> None:
    dataset = Dataset.of(texts("original", 20), Source.ORIGINAL, 0)
    for t in (1, 2, 3):
        dataset += Dataset.of(texts("fresh", 10), Source.FRESH, t) + Dataset.of(texts("sampled", 10), Source.SAMPLED, t)
    dataset += Dataset.of([""], Source.SAMPLED, 4)  # a model may write nothing at all
    path = tmp_path / "dataset.tsv.gz"
    path.write_bytes(dataset.to_bytes())
    again = Dataset.read(path)
    assert again.texts == dataset.texts
    assert again.mixture() == dataset.mixture()
    assert again.digest() == dataset.digest()


@pytest.mark.parametrize("kept", [0, 10, -20])
def test_a_truncated_file_is_told_apart(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "dataset.tsv.gz"
    path.write_bytes(Dataset.of(texts("original", 50), Source.ORIGINAL, 0).to_bytes()[:kept])
    with pytest.raises(DatasetError, match=r"dataset\.tsv\.gz is damaged"):
        Dataset.read(path)


def test_a_flipped_byte_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "dataset.tsv.gz"
    whole = Dataset.of(texts("original", 50), Source.ORIGINAL, 0).to_bytes()
    for at in range(12, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(DatasetError):
            Dataset.read(path)


def test_another_file_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "dataset.tsv.gz"
    path.write_bytes(gzip.compress(b"source\tgeneration\ttext\nmartian\t1\tTrue"))
    with pytest.raises(DatasetError, match="MARTIAN"):
        Dataset.read(path)
    with pytest.raises(DatasetError, match="No such file"):
        Dataset.read(tmp_path / "missing")


def test_the_synthetic_share_is_what_models_wrote_of_all() -> None:
    """Fresh data is no model's: of one original, two fresh and one sampled example, a quarter."""
    dataset = Dataset.of(["a"], Source.ORIGINAL, 0) + Dataset.of(["b", "c"], Source.FRESH, 1)
    assert (dataset + Dataset.of(["d"], Source.SAMPLED, 1)).synthetic_share == 0.25


def test_an_empty_dataset_has_no_share() -> None:
    with pytest.raises(ValueError, match="empty"):
        _ = Dataset.of([], Source.ORIGINAL, 0).synthetic_share


def test_a_portion_keeps_its_order_and_its_origins() -> None:
    """Without replacement and uniformly: over 400 draws of 3 of 12, each is in within 4 standard errors of 3/12."""
    dataset = Dataset.of(texts("original", 8), Source.ORIGINAL, 0) + Dataset.of(texts("sampled", 4), Source.SAMPLED, 2)
    drawn = np.zeros(12)
    for seed in range(400):
        part = dataset.draw(3, stream(seed, "draw"))
        places = [dataset.texts.index(text) for text in part.texts]
        assert len(part) == 3 == len(set(places))
        assert places == sorted(places)
        assert [int(source) for source in part.sources] == [int(dataset.sources[i]) for i in places]
        assert [int(t) for t in part.generations] == [int(dataset.generations[i]) for i in places]
        drawn[places] += 1
    assert (np.abs(drawn / 400 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)).all()
    assert dataset.draw(12, stream(1, "draw")) is dataset


def test_equal_datasets_have_equal_bytes_and_every_part_counts() -> None:
    def one(text: str, source: Source, generation: int) -> Dataset:
        return Dataset.of([text, "b"], source, generation)

    first, again = one("a", Source.SAMPLED, 1), one("a", Source.SAMPLED, 1)
    assert (first.to_bytes(), first.digest()) == (again.to_bytes(), again.digest())
    assert first.to_bytes()[4:8] == bytes(4), "gzip's header has the time there, which would tell two seconds apart"
    others = [one("c", Source.SAMPLED, 1), one("a", Source.FRESH, 1), one("a", Source.SAMPLED, 2)]
    assert len({dataset.digest() for dataset in (first, *others)}) == 4


HARD = [
    "a\tb",
    "two\nlines",
    "\r\n",
    "\0",
    "\\n is no newline",
    "\\",
    "\\\\t\t",
    "🐍 e\u0301 \u202e",
    "",
    "x\t" * 50_000,
    "\x1c\x85\u2028",
]


@given(extra=st.lists(st.text() | st.sampled_from(HARD), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_text_survives_the_disk(tmp_path: Path, extra: list[str]) -> None:
    for chosen in (
        HARD,
        extra or [""],
        ["plain", "\\t stays", *(text for text in extra if not {"\t", "\n"} & set(text))],
    ):
        dataset = Dataset.of(chosen, Source.SAMPLED, 3)
        path = tmp_path / "dataset.tsv.gz"
        path.write_bytes(dataset.to_bytes())
        again = Dataset.read(path)
        assert again.texts == dataset.texts
        assert again.digest() == dataset.digest()


def test_a_dataset_without_tabs_and_newlines_has_the_bytes_of_before() -> None:
    """Cache keys and published records hold its digest."""
    dataset = Dataset.of(["( not False )", "\\t"], Source.FRESH, 2)
    assert gzip.decompress(dataset.to_bytes()) == b"source\tgeneration\ttext\nfresh\t2\t( not False )\nfresh\t2\t\\t"
    assert dataset.digest() == "624ed0e7d2cebcccccdd34cb9f9da7e1beb4ac19c5e0db033a52a090d5201c27"


def test_an_escaped_and_a_plain_text_never_share_a_digest() -> None:
    plain, escaped = Dataset.of([r"a\tb"], Source.FRESH, 2), Dataset.of(["a\tb"], Source.FRESH, 2)
    assert plain.digest() != escaped.digest()
