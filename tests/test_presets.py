"""Presets and overrides: found where a person expects them, read as a person means them, and every mistake, or
attack, ends in one line that says what is allowed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ouroloop.config import ConfigError, CycleConfig, DataCycle, LoopConfig, ModelConfig, flatten
from ouroloop.preset_files import NotYamlError, described_presets, known_presets, parse
from ouroloop.presets import changed, load_any, load_preset, preset_name
from ouroloop.study.config import StudyConfig
from tests.conftest import REPOSITORY, TINY

PRESETS = known_presets()
NETWORK = "kind, pretrained, revision"


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    config = load_any(preset)
    assert config.description.endswith(".")


def test_the_paper_preset_has_the_papers_settings() -> None:
    assert (
        flatten(load_preset("paper", [], LoopConfig)).items()
        >= {
            "num_generations": 50,
            "data.num_examples": 10_000,
            "data.min_depth": 1,
            "data.max_depth": 5,
            "data.truth_label": "true_only",
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


def test_the_sizes_of_a_study_are_what_they_are_called() -> None:
    study = load_preset("size", [], StudyConfig)
    loops = study.loops()
    models = [loop.model for loop in loops[:4] if isinstance(loop.model, ModelConfig)]
    sizes = [12 * model.num_layers * model.hidden_size**2 / 1e6 for model in models]
    assert [f"{size:.1f} M" for size in sizes] == list(study.methods)
    assert len(loops) == 4 * 3
    laptop = load_preset("laptop", [], LoopConfig)
    assert laptop.fingerprint() in {loop.fingerprint() for loop in loops}
    assert all((loop.data, loop.train, loop.cycle) == (laptop.data, laptop.train, laptop.cycle) for loop in loops)


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
        (
            ["trian.num_steps=3"],
            r"unknown key 'trian.num_steps' \(did you mean train.num_steps\?\); allowed here: .*train",
        ),
        (["cycle.synthetic_propotion=0.5"], r"\(did you mean cycle.synthetic_proportion\?\)"),
        (
            ["train.num_step=3"],
            r"'train.num_step' \(did you mean train.num_steps\?\); allowed here: num_steps, batch_size",
        ),
        (["cycle.kind=incremental", "cycle.synthetic_proportion=1.5"], r"got 1\.5, allowed is a number from 0 to 1"),
        (["cycle.kind=incremental"], "incremental needs cycle.synthetic_proportion, a number from 0 to 1"),
        (["cycle.synthetic_proportion=0.5"], "full_synthetic takes no cycle.synthetic_proportion"),
        (["cycle.kind=sideways"], r"got 'sideways', allowed is 'full_synthetic', 'balanced'"),
        (["data.num_examples=0"], "data.num_examples: got 0, allowed is a whole number from 2 to 10000000"),
        (["seed=abc"], "seed: got 'abc', allowed is a whole number from 0 to 2147483647"),
        (["seed=2147483648"], "seed: got 2147483648, allowed is a whole number from 0 to 2147483647"),
        (["train.adam_beta1=1"], "train.adam_beta1: got 1, allowed is a number of at least 0 and below 1"),
        (["train.max_validation_examples=0"], "got 0, allowed is a whole number of at least 1, or null"),
        (["train.compile=maybe"], "train.compile: got 'maybe', allowed is true or false"),
        (["data.num_examples=44316"], "at most 44,315, all the unique expressions of depth 1 to 3"),
        (["data.num_examples=many"], "data.num_examples: got 'many', allowed is a whole number"),
        (["data.max_depth=5"], "sampling.max_new_tokens 100 must be at least 126"),
        (["model.context_length=100"], "model.context_length 100 must be at least 101"),
        (["model.num_heads=3"], "hidden_size 64 must be a multiple of num_heads 3"),
        (["sampling.temperature=0"], "got 0, allowed is a number above 0 and at most 10"),
        (["sampling.temperature=.inf"], "sampling.temperature: got inf"),
        (["stages.onset=0.99"], "need healthy > onset > decline"),
        (["model.kind=sideways"], "allowed is a model whose kind is 'transformers' or 'empirical'"),
        (["model=3"], "model: got 3, allowed is a model"),
        (["model.num_layer=3"], rf"'model.num_layer' \(did you mean model.num_layers\?\); allowed here: {NETWORK}"),
        (["model.kind=empirical"], "empirical trains nothing; leave train out, or write train: null"),
        (["train=[]"], r"train: got \[\], allowed is keys and values, or null"),
        (["train={1: 2}"], "unknown key 'train.1'.*; allowed here: num_steps"),
        (["train=null"], "train.num_steps, train.batch_size, train.learning_rate, train.validate_every are missing"),
        (
            ["model.kind=empirical", "train=null", "model.num_layers=3"],
            "model.num_layers does not go with model.kind=empirical",
        ),
        (["seed.x=3"], r"unknown key 'seed.x' \(did you mean seed\?\): 'seed' has no fields"),
        (["model.options.x.y=3"], "unknown key 'model.options.x.y'"),
        (["seed." + ".".join("x" * 5_000) + "=3"], "unknown key 'seed.x.x.x.x.x"),
        (["=3"], "cannot read '=3'"),
        (["num_generations=[1"], "cannot read the value of --num_generations"),
    ],
)
def test_bad_overrides_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_preset("smoke", overrides, LoopConfig)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.num_steps=5", "train={batch_size: 3}"], {"train.num_steps": 5, "train.batch_size": 3}),
        (
            ["cycle.kind=incremental", "cycle={synthetic_proportion: 0.5}"],
            {"cycle.kind": "incremental", "cycle.synthetic_proportion": 0.5},
        ),
        (
            ["model={model_type: llama}", "model.options.hidden_act=silu"],
            {"model.model_type": "llama", "model.options.hidden_act": "silu"},
        ),
    ],
)
def test_a_section_and_its_fields_are_overridden_in_any_order(
    overrides: list[str], expected: dict[str, Any], is_turned: bool
) -> None:
    config = load_preset("smoke", overrides[::-1] if is_turned else overrides, LoopConfig)
    found = flatten(config)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_preset_in_another_encoding_says_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "café.yaml"
    path.write_bytes("base: smoke\ndescription: café\n".encode(encoding))
    line = {"latin-1": 2, "utf-16": 1}[encoding]
    with pytest.raises(ConfigError, match=f"café.yaml, line {line}: not UTF-8"):
        load_preset(str(path), [], LoopConfig)


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'smok' \(did you mean smoke\?\); there are: .*smoke, sweep-"):
        load_preset("smok", [], LoopConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: [1", "not valid YAML, line 1"),
        ("- a\n- b", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("seed: 1", "num_generations, data, model are missing"),
        ("base: corrupt", "is its own base"),
        ("base: 3", "base: got 3, allowed is the name of a preset"),
        ("base: [smoke]", r"base: got \['smoke'\], allowed is the name of a preset"),
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
    with pytest.raises(ConfigError, match="not UTF-8"):
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
        load_preset("smoke", ["num_generations=" + "[" * 40_000], LoopConfig)
    with pytest.raises(ConfigError, match="a preset is named by up to 100 letters"):
        preset_name(str(tmp_path / "it's.yaml"))


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
        return [(c.cycle, c.data.truth_label, c.seed, c.num_generations) for c in study(preset).loops()]

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
    with pytest.raises(ConfigError, match=r"got 'nonsense', allowed is .* each key 'full_synthetic', 'balanced'"):
        load_preset("fig3-4", ["synthetic_proportions={nonsense: [1]}"], StudyConfig)
    assert cells == {"full_synthetic": None, "balanced": None, "incremental": 0.1, "expanding": 0.9}
    with pytest.raises(ConfigError, match="fresh_mix needs synthetic_proportions"):
        load_preset("fig3-4", ["cycles=[fresh_mix]"], StudyConfig)


def loop_of(*overrides: str, preset: str = "smoke") -> LoopConfig:
    return load_preset(preset, overrides, LoopConfig)


def model_of(*overrides: str, preset: str = "smoke") -> ModelConfig:
    model = loop_of(*overrides, preset=preset).model
    assert isinstance(model, ModelConfig)
    return model


def write(folder: Path, name: str, tree: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


STUDY = {"synthetic_proportions": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"seed": 7}, r"a study spans loop.seed, so 7 would not be run: write seeds: \[7\]"),
        ({"sampling": {"temperature": 1.0}}, r"so 1.0 would not be run: write temperatures: \[1.0\]"),
        ({"cycle": {"kind": "balanced"}}, r"so balanced would not be run: write cycles: \[balanced\]"),
        (
            {"cycle": {"kind": "incremental", "synthetic_proportion": 0.3}},
            r"so 0.3 would not be run: write synthetic_proportions: \[0.3\]",
        ),
        ({"data": {"truth_label": "false_only"}}, r"write truth_labels: \[false_only\]"),
        ({"data": {"initialisation": "false_only"}}, r"write truth_labels: \[false_only\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:initialisation has been called truth_label")
def test_what_a_studys_own_loop_says_is_run_or_refused(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    """To hold in silence would be the other surprise: with `seeds: [1, 2]` beside it, one of the two must give way.
    A loop preset that is the base of many studies goes on saying what it likes: nobody wrote that for this study."""
    preset = write(tmp_path, "study", STUDY | {"loop": {"base": "smoke"} | said})
    with pytest.raises(ConfigError, match=message):
        load_preset(str(preset), [], StudyConfig)
    child = write(tmp_path, "child", {"base": "study"})
    with pytest.raises(ConfigError, match=message):
        load_preset(str(child), [], StudyConfig)
    for key, value in {"loop": said, **{f"loop.{section}": inner for section, inner in said.items()}}.items():
        with pytest.raises(ConfigError, match="a study spans loop"):
            load_preset("sweep-smoke", [f"{key}={json.dumps(value)}"], StudyConfig)
        with pytest.raises(ConfigError, match="a study spans loop"):
            changed(load_preset("sweep-smoke", [], StudyConfig), [f"{key}={json.dumps(value)}"])


def test_what_is_run_anyway_may_be_said_and_so_may_defaults(tmp_path: Path) -> None:
    """A configuration that was written down whole can be run again."""
    base = load_preset("fig5-t1", ["seeds=[7, 8]"], StudyConfig)
    assert (base.loop.seed, base.loop.sampling.temperature) == (1, 0.8)  # laptop's
    whole = base.model_dump(mode="json")
    whole["loop"]["seed"] = 8
    preset = write(tmp_path, "whole", whole)
    again = load_preset(str(preset), [], StudyConfig)
    assert [loop.fingerprint() for loop in again.loops()] == [loop.fingerprint() for loop in base.loops()]
    as_it_is = changed(base, [f"loop={base.loop.model_dump_json()}"])  # seed 1 was no news
    assert [loop.fingerprint() for loop in as_it_is.loops()] == [loop.fingerprint() for loop in base.loops()]


def test_options_belong_to_their_model_type() -> None:
    assert model_of().options == {"hidden_act": "relu", "use_parallel_residual": False}
    assert model_of("model.options={}").options == {}
    assert model_of("model.options={}", "model.options.hidden_act=relu").options == {"hidden_act": "relu"}
    assert model_of("model.model_type=llama").options == {}
    assert model_of("model.model_type=llama", "model.options.hidden_act=relu").options == {"hidden_act": "relu"}
    assert model_of("model.model_type=gpt_neox") == model_of()  # it was that already
    assert model_of("model.model_type=gpt2", preset="paper") == model_of(preset="paper")  # by default
    kept = {"hidden_act": "relu", "use_parallel_residual": False, "attention_bias": True}
    assert model_of("model.options.attention_bias=true").options == kept
    for preset in ("laptop", "paper"):
        assert model_of("model.model_type=llama", preset=preset).options == {}


def test_options_belong_to_their_model_type_in_a_file_too(tmp_path: Path) -> None:
    path = write(tmp_path, "llama", {"base": "laptop", "model": {"model_type": "llama"}})
    assert model_of(preset=str(path)).options == {}
    path = write(tmp_path, "plain", {"base": "laptop", "model": {"options": {}}})
    assert model_of(preset=str(path)).options == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.kind=transformers", "model.num_layers=4"],
            "model.num_heads, model.hidden_size, train.num_steps, train.batch_size, train.learning_rate, "
            "train.validate_every are missing",
        ),
        (["model.num_layers=4"], "model.num_layers does not go with model.kind=empirical"),
        (["train.num_steps=3"], "train.batch_size, train.learning_rate, train.validate_every are missing"),
    ],
)
def test_everything_that_a_network_lacks_is_named_at_once(tmp_path: Path, overrides: list[str], message: str) -> None:
    ideal = write(tmp_path, "ideal", {"base": "smoke", "model": {"kind": "empirical"}, "train": None})
    with pytest.raises(ConfigError, match=f"ideal.yaml: {message}"):
        load_preset(str(ideal), overrides, LoopConfig)
    study = write(tmp_path, "ideal-study", STUDY | {"loop": {"base": "ideal"}})
    overrides = [f"loop.{override}" for override in overrides]
    message = message.replace("model.", "loop.model.").replace("train.", "loop.train.")
    with pytest.raises(ConfigError, match=f"ideal-study.yaml: {message}"):
        load_preset(str(study), overrides, StudyConfig)


def test_the_kind_that_a_network_is_anyway_changes_nothing() -> None:
    assert loop_of("model.kind=transformers", "model.num_layers=2") == loop_of()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E3", 1000.0), ("-.5", -0.5), ("1_000", 1000), ("010", 10), ("0x1F", 31),
        ("true", True), ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("2024-02-30", "2024-02-30"),
        ("null", None), ("", None), ("~", None), ("'1'", "1"), ("<<", "<<"), ("[1, a]", [1, "a"]),
    ],
)  # fmt: skip
def test_plain_words_and_numbers_are_yaml_1_2s(text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize("value", ["true", "yes", "1:30", "1.0", "'7'", "1e2"])
@pytest.mark.parametrize("key", ["num_generations", "seed", "train.num_steps"])
def test_a_whole_number_is_asked_for(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: got .*, allowed is a whole number"):
        loop_of(f"{key}={value}")


def test_a_truth_is_no_number() -> None:
    with pytest.raises(ConfigError, match=r"sampling.temperature: got True, allowed is a number above 0"):
        loop_of("sampling.temperature=true")
    with pytest.raises(ConfigError, match=r"seeds.0: got True, allowed is a whole number"):
        load_preset("sweep-smoke", ["seeds=[true]"], StudyConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: smoke\ntrain: {num_steps: 3}\n\ntrain: {batch_size: 2}\n",
         "line 4: 'train' occurs twice, first in line 2"),
        ("base: smoke\ntrain:\n  num_steps: 3\n  num_steps: 4\n", "line 4: 'num_steps' occurs twice"),
        ("base: smoke\nmodel: {num_layers: 1, num_layers: 2}\n", "line 2: 'num_layers' occurs twice"),
    ],
)  # fmt: skip
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"twice.yaml is not valid YAML, {message}"):
        load_preset(str(write(tmp_path, "twice", content)), [], LoopConfig)
    with pytest.raises(ConfigError, match="cannot read the value of --model"):
        loop_of("model={num_layers: 1, num_layers: 2}")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('base: "a\\0b"', "no preset 'a.x00b'"),
        (f"base: {'x' * 300}", "no preset 'xxx.*: File name too long"),
        ("&r {loop: *r}", "has more than 10,000 values"),
        ("loop: &r {loop: *r}", "has more than 10,000 values"),
        (LAUGHS + "description: *i", "has more than 10,000 values"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nseed: 1", "unknown key"),
        ("base: smoke\nseed: " + "9" * 5_000, "a number of 5,000 digits"),
        ("base: smoke\nseed: 0x" + "f" * 5_000, "a number of 5,002 digits"),
        ("base: smoke\nseed: 99999999999999999999999", "seed: got 9+, allowed is a whole number from 0"),
        ("base: smoke\nseed: !!int x", "is not valid YAML"),
        ("base: smoke\nseed: !!timestamp 2024-02-30", "could not determine a constructor"),
        ("base: smoke\nseed: !!python/name:os.system", "could not determine a constructor"),
        ("base: smoke\nseed: " + "[" * 40_000, "is not valid YAML"),
        ("base: smoke\n? [a, b]\n: c", "unhashable key"),
        ("base: smoke\n1: 2", "unknown key '1'; allowed here: .*seed"),
        ("#" * 60_000, "has more than 50,000 bytes"),
        (f"base: smoke\ndescription: [{'x' * 5_000}]", r"got \['x+… \(5,004 characters\), allowed is text"),
    ],
)
def test_a_hostile_preset_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_any(str(write(tmp_path, "hostile", content)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("preset", ["/dev/zero", "/dev/null", "fifo", "folder", "no\0name", "x" * 249, "x" * 5_000, ""])
def test_what_is_no_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=r"no preset|not a regular file") as caught:
        load_any(preset)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("value", ["9" * 5_000, "2024-02-30", "[" * 40_000, "!!int x", "&a [*a]"])
def test_a_hostile_value_is_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match="seed") as caught:
        loop_of(f"seed={value}")
    assert len(str(caught.value)) < 200


def test_values_have_an_end() -> None:
    with pytest.raises(NotYamlError, match="too long"):
        parse("a" * 60_000)


def test_a_preset_is_found_by_path_then_here_then_where_it_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert loop_of().data.num_examples == 200  # shipped: there is no experiments/ here
    write(tmp_path / "experiments", "smoke", TINY | {"seed": 11})
    write(tmp_path / "experiments", "lr0.004", {"base": "smoke", "train": {"learning_rate": 0.004}})
    assert loop_of().seed == 11
    assert loop_of(preset="lr0.004").seed == 11
    write(tmp_path / "elsewhere", "smoke", TINY | {"seed": 12})
    assert loop_of(preset="elsewhere/smoke.yaml").seed == 12
    write(tmp_path / "elsewhere", "child", {"base": "smoke"})
    assert loop_of(preset="elsewhere/child.yaml").seed == 12  # beside it first
    write(tmp_path / "other", "child", {"base": "laptop"})
    assert loop_of(preset="other/child.yaml").data.num_examples == 2_000  # then as any preset
    write(tmp_path / "other", "grandchild", {"base": "../elsewhere/child.yaml"})
    assert loop_of(preset="other/grandchild.yaml").seed == 12


def test_names_of_presets() -> None:
    assert [preset_name(p) for p in ("lr0.004", "a/b.yaml", "a/b.yml", "x.y.yaml")] == ["lr0.004", "b", "b", "x.y"]
    with pytest.raises(ConfigError, match="up to 100 letters"):
        preset_name("x" * 101)


def test_the_lists_of_loops_and_studies_are_complete() -> None:
    loops, studies = described_presets(studies=False), described_presets(studies=True)
    assert sorted([*loops, *studies]) == PRESETS
    assert {name for name in PRESETS if isinstance(load_any(name), StudyConfig)} == studies.keys()
    found = {name: load_preset(name, [], StudyConfig) for name in studies}
    boards = [name for name, study in found.items() if study.methods and study.loop.data.kind == "logic"]
    assert boards == [*described_presets(studies=True, methods=True)]
    assert "leaderboard" in boards
    assert "text-methods" not in boards
    assert loops["smoke"] == "Three quick generations that show every part at work."


def test_a_broken_preset_does_not_break_the_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {"a": "[", "b": "base: b", "c": "base: no-such", "d": "- x", "e": "description: 3"}.items():
        write(tmp_path / "experiments", name, content)
    (tmp_path / "experiments" / "folder.yaml").mkdir()
    (tmp_path / "experiments" / ".#smoke.yaml").symlink_to("somebody@a-machine.1:2")  # an editor's lock
    shipped = {path.stem for path in (REPOSITORY / "experiments").glob("*.yaml")}
    listed = described_presets(studies=False).keys()
    assert listed - shipped == {"b", "c", "e"}
    assert {"laptop", "paper", "smoke"} < listed


@pytest.mark.parametrize("path", ["a #b.txt", "[x].txt", "*.txt", "my: x.txt", "2024", "'q.txt", "é ü.txt"])
def test_a_text_on_the_command_line_is_taken_as_it_is(path: str) -> None:
    """A path is whatever a file may be called, and no YAML."""
    config = load_preset("text-smoke", [f"data.path={path}"], LoopConfig)
    assert config.data.model_dump()["path"] == path
    quoted = load_preset("text-smoke", ["data.path='a b.txt'", "data.mauve_model=null"], LoopConfig)
    assert (quoted.data.model_dump()["path"], quoted.data.feature_model) == ("a b.txt", None)


@pytest.mark.parametrize(
    ("preset", "override", "allowed"),
    [
        ("text-smoke", "data.num_examples=3", "from 4 to 10000000"),
        ("smoke", "data.num_examples=1", "from 2 to 10000000"),
        ("text-pretrained", "model.context_length=1", "from 8 to 1000000, or null"),
        ("smoke", "model.context_length=1", "from 8 to 65536"),
    ],
)
def test_what_is_allowed_is_that_of_the_kind_at_hand(preset: str, override: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"got \d, allowed is a whole number {allowed}$"):
        load_preset(preset, [override], LoopConfig)


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("cycle.kind", "cycles"),
        ("data.path", "loop.data.path"),
        ("sampling.temperature", "temperatures"),
        ("T", "temperatures"),
    ],
)
def test_a_key_of_a_loop_is_found_in_a_study(key: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=rf"\(did you mean {instead}\?\)"):
        load_preset("sweep-text", [f"{key}=1"], StudyConfig)


def test_a_method_takes_over_what_an_override_does(tmp_path: Path) -> None:
    """Another model type drops the options of the one before; of the same type, those stay that are not named."""
    changes = {"llama": {"model_type": "llama"}, "gelu": {"options": {"hidden_act": "gelu"}}, "none": {"options": {}}}
    methods = {name: {"changes": {"model": change}} for name, change in changes.items()}
    path = write(tmp_path, "kinds", {"cycles": ["full_synthetic"], "loop": {"base": "laptop"}, "methods": methods})
    study = load_preset(str(path), ["seeds=[1]"], StudyConfig)
    found = {study.method(loop.fingerprint()): loop.model for loop in study.loops()}
    assert found == {
        "llama": model_of("model.model_type=llama", preset="laptop"),
        "gelu": model_of("model.options.hidden_act=gelu", preset="laptop"),
        "none": model_of("model.options={}", preset="laptop"),
    }
