"""What is said of a method that gives no loop, with whichever learner; and which ones need a network."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ouroloop.config import ConfigError
from ouroloop.presets import load_preset
from ouroloop.study.config import StudyConfig

NETWORK: dict[str, Any] = {
    "cycles": ["full_synthetic", "incremental"],
    "synthetic_proportions": {"incremental": [0.5]},
    "seeds": [1],
    "loop": {"base": "smoke"},
}
IDEAL = ["loop.model.kind=empirical", "loop.train=null"]


def loaded(folder: Path, name: str, method: object, overrides: list[str] | None = None) -> StudyConfig:
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump({**NETWORK, "methods": {"baseline": {}, name: method}}))
    return load_preset(str(path), overrides or [], StudyConfig)


ONLY = "only cycle, curation, model, train, sampling, keep_weights, resources"
WRONG: dict[str, tuple[str, object, str]] = {
    "another section": ("a", {"changes": {"curaton": {}}}, "'curaton' (did you mean curation?), " + ONLY),
    "the seed": ("a", {"changes": {"seed": 7}}, f"methods.a.changes: a method cannot change 'seed', {ONLY}"),
    "m": ("a", {"changes": {"data": {"num_examples": 10}}}, f"cannot change 'data', {ONLY}"),
    "the length": ("a", {"changes": {"num_generations": 2}}, f"cannot change 'num_generations', {ONLY}"),
    "no step": ("a", {"changes": {"curation": {"steps": ["shrot"]}}},
                "methods.a.changes: curation.steps.0: got 'shrot', allowed is archived, edited, "),
    "no field": ("a", {"changes": {"sampling": {"minp": 0.1}}},
                 "methods.a.changes: unknown key 'sampling.minp' (did you mean sampling.min_p?); allowed here: "),
    "no value": ("a", {"changes": {"sampling": {"min_p": 2}}},
                 "methods.a.changes: sampling.min_p: got 2, allowed is a number "),
    "no section": ("a", {"changes": {"curation": 3}}, "methods.a.changes: curation: got 3, allowed is keys and values"),
    "no λ of this cycle": ("a", {"changes": {"cycle": {"synthetic_proportion": 0.2}}}, "full_synthetic takes no"),
    "in the other cycle": ("a", {"changes": {"cycle": {"synthetic_proportion": 2}}, "cycles": ["incremental"]},
                           "methods.a.changes: cycle.synthetic_proportion: got 2, allowed is a number from 0 to 1"),
    "a key": ("a", {"chnages": {}}, "unknown key 'methods.a.chnages' (did you mean methods.a.changes?); "
              "allowed here: description, changes, cycles"),
    "a name": ("bad/name", {}, "named by up to 40 letters, digits, spaces, '_', '.' and '-', not 'bad/name'"),
}  # fmt: skip


@pytest.mark.parametrize("learner", [[], IDEAL], ids=["network", "ideal"])
@pytest.mark.parametrize(("name", "method", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_with_what_is_allowed(
    tmp_path: Path, name: str, method: object, said: str, learner: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, name, method, learner)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"targets": "soft"}},
        {"train": {"targets": "soft"}, "curation": {"steps": ["unique"]}},
        {"model": {"num_members": 2}},
        {"sampling": {"min_p": 0.05}},
        {"curation": {"steps": ["edited"]}},
    ],
    ids=str,
)
def test_what_needs_a_network_is_left_out_for_the_ideal_learner_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    for overrides, is_there in ([], True), (IDEAL, False):
        study = loaded(tmp_path, "a", {"changes": changes}, overrides)
        assert [study.applied("a", loop) is not None for loop in study.plain_loops] == [is_there] * 2


def test_what_a_network_cannot_do_either_is_no_matter_of_the_learner(tmp_path: Path) -> None:
    """The command for the ideal learner reads the preset with its own one first."""
    from ouroloop.leaderboard import _read

    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump({**NETWORK, "methods": {"a": {"changes": {"train": {"targets": "sofft"}}}}}))
    with pytest.raises(ConfigError, match=r"methods\.a\.changes: train\.targets: got 'sofft', allowed is"):
        _read(str(path), is_ideal=True, overrides=[])
