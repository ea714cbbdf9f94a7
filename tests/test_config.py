"""The schema itself: what it says of every field, and the loops that a study comes to."""

import pytest

from ouroloop.config import LoopConfig, StudyConfig
from ouroloop.presets import load_preset
from ouroloop.schema import fields
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_fingerprint_covers_everything_but_the_description() -> None:
    loop = load_preset("smoke", [], LoopConfig)
    assert loop.fingerprint() == loop.model_copy(update={"description": "other"}).fingerprint()
    changed = [load_preset("smoke", [o], LoopConfig) for o in ("seed=2", "num_generations=4", "sampling.temperature=1")]
    assert len({loop.fingerprint(), *(other.fingerprint() for other in changed)}) == 4


def test_cells_of_a_grid() -> None:
    overrides = [
        "cycles=[incremental, balanced]",
        "synthetic_proportions=[0, 1]",
        "temperatures=[0.8, 1]",
        "seeds=[1, 2]",
    ]
    loops = load_preset("sweep-smoke", overrides, StudyConfig).loops()
    assert len(loops) == 2 * 2 * 2 + 2 * 2  # balanced has no proportion, so it appears once
    assert len({loop.fingerprint() for loop in loops}) == len(loops)
    assert {loop.cycle.proportion_label for loop in loops} == {"0", "1", "none"}


@pytest.mark.parametrize("kind", [LoopConfig, StudyConfig])
def test_every_field_says_what_it_is_and_every_quantity_its_unit(kind: type[LoopConfig | StudyConfig]) -> None:
    described = list(fields(kind))
    assert len({field.key for field in described}) == len(described) > 40
    assert [field.key for field in described if not field.meaning] == []
    schema = str(kind.model_json_schema())
    assert "Unit" in schema
    numbers = [field for field in described if type(field.default) in (int, float) and not field.unit]
    assert {field.key.removeprefix("loop.") for field in numbers} <= {"seed"}
    assert {field.key: field.unit for field in described}[f"{'loop.' if kind is StudyConfig else ''}train.num_steps"]
