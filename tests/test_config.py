"""The schema itself: what it says of every field, and the loops that a study comes to."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from ouroloop.config import Added, ConfigError, CycleConfig, DataCycle, LoopConfig, Section, Whole
from ouroloop.presets import load_preset
from ouroloop.schema import fields
from ouroloop.study.config import StudyConfig
from tests.conftest import IDEAL_LOOP, REPOSITORY


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


def test_names_of_0_1_are_read_with_a_note(tiny: LoopConfig) -> None:
    old = tiny.model_dump(mode="json")
    old["data"]["initialisation"] = old["data"].pop("truth_label")
    del old["data"]["kind"]
    with pytest.warns(FutureWarning, match="initialisation has been called truth_label since 0.2.0"):
        assert LoopConfig.model_validate(old) == tiny
    study = load_preset("fig8-9", ["loop.num_generations=3"], StudyConfig).model_dump(mode="json")
    study["initialisations"] = study.pop("truth_labels")
    with pytest.warns(FutureWarning, match="truth_labels"):
        assert len(StudyConfig.model_validate(study).truth_labels) == 3


def test_fingerprints_of_0_1_hold() -> None:
    """What a store of an earlier version has begun is found again. These two were computed by 0.1.0."""
    model = {"num_layers": 2, "num_heads": 2, "hidden_size": 64, "context_length": 128}
    train = {"num_steps": 300, "batch_size": 16, "learning_rate": 4e-3, "num_warmup_steps": 20, "validate_every": 30}
    its_smoke = {
        "seed": 1,
        "num_generations": 3,
        "data": {"num_examples": 200, "max_depth": 3},
        "model": model | {"options": {"activation_function": "gelu_pytorch_tanh"}},
        "train": train,
        "sampling": {"temperature": 0.8, "max_new_tokens": 100},
    }
    assert LoopConfig.model_validate(its_smoke).fingerprint().startswith("5749d8f9")
    half = ["model.kind=empirical", "train=null", "num_generations=4", "data.truth_label=half_and_half"]
    assert load_preset("laptop", half, LoopConfig).fingerprint().startswith("9862602e")


def test_a_step_accumulates_what_there_is() -> None:
    once, twice = (load_preset("smoke", [f"train.accumulate={number}"], LoopConfig) for number in (1, 2))
    assert once.fingerprint() == load_preset("smoke", [], LoopConfig).fingerprint() != twice.fingerprint()
    many = ["data.num_examples=100", "train.batch_size=30", "train.accumulate=3"]  # 90 are trained on, a tenth not
    assert load_preset("smoke", many, LoopConfig).train.accumulate == 3  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"accumulate 4 batches of 30 take more than 90 .* only 90 of .* 100 are"):
        load_preset("smoke", [*many[:2], "train.accumulate=4"], LoopConfig)


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("smoke", [], "real examples to go on with: choose data.kind=text"),
        ("text-smoke", ["model.kind=empirical", "train=null"], "a network: model.kind empirical draws whole texts"),
        ("text-smoke", ["curation.steps=[unique]"], "to know how many texts are drawn: leave curation out"),
        ("text-smoke", ["train.devices=2"], "train.devices=1"),
    ],
)
def test_prompts_need_what_they_are_made_of(preset: str, given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"sampling.prompt_tokens needs {message}"):
        load_preset(preset, [*given, "sampling.prompt_tokens=8"], LoopConfig)
    none, some = (load_preset("text-smoke", [f"sampling.prompt_tokens={k}"], LoopConfig) for k in (0, 8))
    assert none.fingerprint() == load_preset("text-smoke", [], LoopConfig).fingerprint() != some.fingerprint()


def test_how_many_devices_is_part_of_what_a_loop_is_when_there_are_several() -> None:
    loops = [load_preset("smoke", [f"train.devices={number}"], LoopConfig) for number in (1, 2, 4)]
    assert loops[0].fingerprint() == load_preset("smoke", [], LoopConfig).fingerprint()
    assert len({loop.fingerprint() for loop in loops}) == 3
    assert [loop.identity()["train"].get("devices") for loop in loops] == [None, 2, 4]
    with pytest.raises(ConfigError, match="devices 17 must be at most batch_size 16"):
        load_preset("smoke", ["train.devices=17"], LoopConfig)


class _Inner(Section):
    old: Whole = 1
    added: Annotated[Whole, Added()] = Field(default=1, ge=1)


class _Outer(Section):
    inner: _Inner = _Inner()
    listed: Annotated[tuple[_Inner, ...], Added()] = ()


def test_a_field_that_came_later_identifies_nothing_until_it_is_set() -> None:
    assert _Outer().identity() == {"inner": {"old": 1}}
    assert _Outer(inner=_Inner(added=2)).identity() == {"inner": {"old": 1, "added": 2}}
    assert _Outer(listed=(_Inner(),)).identity() == {"inner": {"old": 1}, "listed": [{"old": 1, "added": 1}]}


def test_a_changed_configuration_is_validated_anew(tiny: LoopConfig) -> None:
    assert tiny.changed(seed=8, data={"max_depth": 2}).seed == 8
    with pytest.raises(ValidationError, match="at most"):
        tiny.changed(data={"num_examples": 10_000})
    with pytest.raises(ValidationError, match="at least 14"):
        tiny.changed(sampling={"max_new_tokens": 13})  # the longest expression, and no room for its <eos>
    assert tiny.changed(sampling={"max_new_tokens": 14}).sampling.max_new_tokens == 14


def test_one_truth_about_the_synthetic_proportion() -> None:
    """Incremental at 1 replaces all of D_{t-1}: full synthetic under another name."""
    full = CycleConfig(kind=DataCycle.FULL_SYNTHETIC)
    assert CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=1.0).canonical() == full
    for other in (
        CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0.5),
        CycleConfig(kind=DataCycle.EXPANDING, synthetic_proportion=1.0),
        CycleConfig(kind=DataCycle.BALANCED),
    ):
        assert other.canonical() == other
    assert [full.effective_proportion, CycleConfig(kind=DataCycle.BALANCED).effective_proportion] == [1.0, 1.0]
    assert (full.proportion_label, CycleConfig(kind=DataCycle.BALANCED).proportion_label) == ("1", "none")


MORE: dict[str, object] = {
    "seeds": [1, 2],
    "synthetic_proportions": [0.5, 1.0],
    "truth_labels": ["true_only", "false_only"],
    "cycles": ["incremental", "balanced"],
    "temperatures": [0.8, 1.0],
    "methods": {"baseline": {}},
    "description": "Another",
}


@pytest.mark.parametrize("key", MORE)
def test_more_of_what_a_study_spans_extends_it(key: str) -> None:
    before = {"synthetic_proportions": [0.5], "seeds": [1], "loop": IDEAL_LOOP}
    extended = StudyConfig.model_validate(before | {key: MORE[key]})
    assert extended.changes_from(StudyConfig.model_validate(before)) == {}


def test_whatever_else_changes_makes_another_study() -> None:
    plain = {"synthetic_proportions": [0.5], "seeds": [1], "loop": IDEAL_LOOP}
    before = StudyConfig.model_validate(plain)
    longer = StudyConfig.model_validate(plain | {"loop": IDEAL_LOOP | {"num_generations": 4}})
    assert longer.changes_from(before) == {"loop.num_generations": (3, 4)}
    search = StudyConfig.model_validate(plain | {"kind": "search", "synthetic_proportions": []})
    assert search.changes_from(before)["kind"] == ("grid", "search")
    pareto = {"kind": "pareto", "cycles": ["fresh_mix"], "loop": IDEAL_LOOP}
    wider = StudyConfig.model_validate(pareto | {"cycles": ["fresh_mix", "expanding"]})
    assert "cycles" in wider.changes_from(StudyConfig.model_validate(pareto)), "its sampler chose from fewer"
