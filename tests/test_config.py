"""Presets and overrides: every mistake must end in one line that says what is allowed."""

from pathlib import Path

import pytest

from ouroloop.config import ConfigError, CycleConfig, DataCycle, LoopConfig, flatten
from ouroloop.presets import PRESET_FOLDER, _read, load_preset, preset_name
from ouroloop.study.config import StudyConfig
from tests.conftest import REPOSITORY

PRESETS = sorted(path.stem for path in (REPOSITORY / PRESET_FOLDER).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    kind = StudyConfig if "loop" in _read(preset) else LoopConfig
    config = load_preset(preset, [], kind)
    assert config.description.endswith(".")


def test_the_paper_preset_has_the_papers_settings() -> None:
    assert (
        flatten(load_preset("paper", [], LoopConfig)).items()
        >= {
            "num_generations": 50,
            "data.num_examples": 10_000,
            "data.min_depth": 1,
            "data.max_depth": 5,
            "data.initialisation": "true_only",
            "cycle.kind": "full_synthetic",
            "model.num_layers": 6,
            "model.num_heads": 6,
            "model.hidden_size": 384,
            "model.context_length": 256,
            "model.dropout": 0.2,
            "train.num_steps": 5_000,
            "train.batch_size": 64,
            "train.learning_rate": 1e-3,
            "train.final_learning_rate_ratio": 0.1,
            "train.validation_fraction": 0.1,
            "train.validate_every": 250,
            "sampling.temperature": 0.8,
            "sampling.max_new_tokens": 200,
        }.items()
    )


def test_overrides_are_typed() -> None:
    overrides = [
        "cycle.kind=incremental",
        "cycle.synthetic_proportion=0.25",
        "num_generations=7",
        "train.learning_rate=1e-4",
    ]
    config = load_preset("smoke", overrides, LoopConfig)
    assert config.cycle == CycleConfig(kind=DataCycle.INCREMENTAL, synthetic_proportion=0.25)
    assert (config.num_generations, config.train.learning_rate) == (7, 1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trian.num_steps=3"], r"unknown key 'trian'; allowed here: .*train"),
        (["train.num_step=3"], r"unknown key 'train.num_step'; allowed here: num_steps, batch_size"),
        (["cycle.kind=incremental", "cycle.synthetic_proportion=1.5"], r"got 1\.5, allowed is less than or equal to 1"),
        (["cycle.kind=incremental"], "incremental needs cycle.synthetic_proportion, a number from 0 to 1"),
        (["cycle.synthetic_proportion=0.5"], "full_synthetic takes no cycle.synthetic_proportion"),
        (["cycle.kind=sideways"], r"got 'sideways', allowed is 'full_synthetic', 'balanced'"),
        (["data.num_examples=0"], "data.num_examples: got 0, allowed is greater than or equal to 2"),
        (["data.num_examples=44316"], "at most 44,315, all the unique expressions of depth 1 to 3"),
        (["data.num_examples=many"], "data.num_examples: got 'many', allowed is a valid integer"),
        (["data.max_depth=5"], "sampling.max_new_tokens 100 must be at least 125"),
        (["model.context_length=100"], "model.context_length 100 must be at least 101"),
        (["model.num_heads=3"], "hidden_size 64 must be a multiple of num_heads 3"),
        (["sampling.temperature=0"], "sampling.temperature: got 0, allowed is greater than 0"),
        (["sampling.temperature=.inf"], "sampling.temperature: got inf"),
        (["stages.onset=0.99"], "need healthy > onset > decline"),
        (["model.kind=sideways"], "allowed is a model whose kind is 'transformers' or 'empirical'"),
        (["model=3"], "model: got 3, allowed is a model"),
        (["model.num_layer=3"], "unknown key 'model.num_layer'; allowed here: kind, model_type, num_layers"),
        (["model.kind=empirical"], "empirical trains nothing; leave train out, or write train: null"),
        (["train=null"], "train is missing"),
        (
            ["model.kind=empirical", "train=null", "model.num_layers=3"],
            "unknown key 'model.num_layers'; allowed here: k",
        ),
        (["seed.x=3"], "unknown key 'seed.x': seed has no fields"),
        (["=3"], "cannot read '=3'"),
        (["num_generations=[1"], "cannot read the value of --num_generations"),
    ],
)
def test_bad_overrides_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset("smoke", overrides, LoopConfig)
    assert "\n" not in str(caught.value)


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'smok' .*there are: .*smoke, sweep-"):
        load_preset("smok", [], LoopConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: [1", "not valid YAML, line 1"),
        ("- a\n- b", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("seed: 1", "num_generations is missing"),
        ("base: corrupt", "is missing|no preset"),
        ("\x00\x01", "not valid YAML"),
    ],
)
def test_corrupt_presets(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "corrupt.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_preset(str(path), [], LoopConfig)


def test_a_binary_file_and_a_cycle_of_bases(tmp_path: Path) -> None:
    binary, own_base = tmp_path / "binary.yaml", tmp_path / "own.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    own_base.write_text(f"base: {own_base}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_preset(str(binary), [], LoopConfig)
    with pytest.raises(ConfigError, match="is its own base"):
        load_preset(str(own_base), [], LoopConfig)


def test_loops_and_studies_are_not_mixed_up() -> None:
    with pytest.raises(ConfigError, match="sweep-smoke is a study: use `ouroloop sweep sweep-smoke`"):
        load_preset("sweep-smoke", [], LoopConfig)
    with pytest.raises(ConfigError, match="smoke is a loop: use `ouroloop run smoke`"):
        load_preset("smoke", [], StudyConfig)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.seed=9", r"a study spans loop\.seed: write --seeds=\[9\]"),
        ("loop.sampling.temperature=1", r"write --temperatures=\[1\]"),
        ("loop.cycle.kind=balanced", r"write --cycles=\[balanced\]"),
    ],
)
def test_what_a_study_spans_cannot_be_set_below_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset("sweep-smoke", [override], StudyConfig)


def test_deep_nesting_and_odd_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the value"):
        load_preset("smoke", ["num_generations=" + "[" * 5_000], LoopConfig)
    with pytest.raises(ConfigError, match="a preset is named by letters"):
        preset_name(str(tmp_path / "it's.yaml"))


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


def test_the_ideal_learner_takes_nothing_over_from_a_network() -> None:
    config = load_preset("laptop", ["model.kind=empirical", "train=null"], LoopConfig)
    assert config.model.model_dump() == {"kind": "empirical"}
    assert config.label == "full_synthetic-empirical-T0.8-s1"
    assert config.fingerprint() != load_preset("laptop", [], LoopConfig).fingerprint()


FIGURES = {"fig3-4": 12, "fig5": 15, "fig6": 15, "fig7": 3, "fig8-9": 15}


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_its_twins(figure: str) -> None:
    """The same cells at the paper's scale, of the ideal learner and (the first two) at temperature 1."""

    def cells(preset: str) -> list[tuple[object, ...]]:
        return [(c.cycle, c.data.initialisation, c.seed, c.num_generations) for c in study(preset).loops()]

    def study(preset: str) -> StudyConfig:
        return load_preset(preset, [], StudyConfig)

    twins = ["paper", "ideal", *(["t1", "t1-ideal"] if figure in ("fig3-4", "fig5") else [])]
    assert len(cells(figure)) == FIGURES[figure]
    assert len(study(figure).seeds) >= 3
    for twin in twins:
        assert cells(f"{figure}-{twin}") == cells(figure)
        loop = study(f"{figure}-{twin}").loops()[0]
        assert loop.sampling.temperature == (1.0 if "t1" in twin else 0.8)
        assert (loop.model.kind == "empirical") == ("ideal" in twin)
        if twin == "paper":
            paper = load_preset("paper", [], LoopConfig)
            assert (loop.data, loop.model, loop.train) == (paper.data, paper.model, paper.train)


def test_figure_3_runs_each_cycle_at_its_own_proportion() -> None:
    cells = {
        loop.cycle.kind.value: loop.cycle.synthetic_proportion
        for loop in load_preset("fig3-4", [], StudyConfig).loops()
    }
    assert cells == {"full_synthetic": None, "balanced": None, "incremental": 0.1, "expanding": 0.9}
    with pytest.raises(ConfigError, match="fresh_mix needs synthetic_proportions"):
        load_preset("fig3-4", ["cycles=[fresh_mix]"], StudyConfig)
