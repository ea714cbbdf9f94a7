"""An estimate is worth having if it has the right order: it is held against a loop that is really run."""

from pathlib import Path
from time import process_time

import pytest

from ouroloop.config import DataCycle, LoopConfig
from ouroloop.loop.loop import draw_original, run_loop
from ouroloop.presets import load_preset
from ouroloop.record.track import Store
from ouroloop.study import estimate
from ouroloop.study.config import StudyConfig
from ouroloop.study.estimate import Cost, cost, loop_totals, most_loops, num_kept, study_cost, study_totals
from tests.conftest import REPOSITORY

PER_GENERATION = Cost(3.0, 2.0, 1.0, record_bytes=1_000, model_bytes=50_000)


def study(**changes: object) -> StudyConfig:
    tree = {"synthetic_proportions": [0.0, 0.5, 1.0], "seeds": [1, 2], "loop": load_preset("smoke", [], LoopConfig)}
    return StudyConfig.model_validate(tree | changes)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_totals_by_hand() -> None:
    loop = load_preset("smoke", ["keep_weights=all"], LoopConfig)
    assert loop_totals(loop, PER_GENERATION) == (3 * 6.0, 3 * 1_000 + 3 * 50_000)
    six = study(loop=loop)
    # six loops of three generations, of which the first is computed once for each seed
    assert study_totals(six, PER_GENERATION) == ((18 - 6 + 2) * 6.0, 18 * 1_000 + 18 * 50_000)


def test_a_study_costs_what_its_loops_cost_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expanding, which trains on more, takes twice as long here; one in three of the loops is."""
    timed: list[LoopConfig] = []

    def known(loop: LoopConfig) -> Cost:
        timed.append(loop)
        growing = 2 if loop.cycle.kind is DataCycle.EXPANDING else 1
        return Cost(3.0 * growing, 2.0, 1.0, record_bytes=1_000 * growing, model_bytes=50_000)

    monkeypatch.setattr(estimate, "cost", known)
    config = study(
        cycles=["incremental", "expanding", "balanced"],
        synthetic_proportions={"incremental": [0.5], "expanding": [0.5]},
    )
    assert study_cost(config) == Cost(4.0, 2.0, 1.0, 1_333, 50_000)
    assert [loop.cycle.kind.value for loop in timed] == ["incremental", "expanding"]


def test_each_kind_of_method_is_timed_once_and_what_begins_alike_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[LoopConfig] = []
    monkeypatch.setattr(estimate, "cost", lambda loop: timed.append(loop) or PER_GENERATION)
    methods = {
        "baseline": {},
        "unique": {"changes": {"curation": {"steps": ["unique"]}}},
        "soft": {"changes": {"train": {"targets": "soft"}}},
        "longer": {"changes": {"train": {"num_steps": 40}}},
    }
    config = study(methods=methods, synthetic_proportions=[0.5])
    said: list[str] = []
    assert study_cost(config, said.append) == PER_GENERATION
    assert [loop.train.targets if loop.train else "" for loop in timed] == ["tokens", "tokens", "soft", "tokens"]
    assert said[3].endswith("(4 of 4)")
    # eight loops of three generations; of each seed, the first of the baseline is that of soft targets too
    assert study_totals(config, PER_GENERATION)[0] == (24 - 8 + 6) * 6.0


@pytest.mark.parametrize(("policy", "kept"), [("all", 50), ("stages", 5), ("last", 1), ("none", 0)])
def test_how_many_models_are_kept(policy: str, kept: int) -> None:
    assert num_kept(load_preset("laptop", [f"keep_weights={policy}"], LoopConfig)) == kept


def test_the_most_loops() -> None:
    assert most_loops(study()) == 6
    seven = {
        "kind": "search",
        "synthetic_proportions": [],
        "search": {"lowest": 0.125, "highest": 0.875, "precision": 0.125},
    }
    assert most_loops(study(**seven, seeds=[1])) == 3
    assert most_loops(study(**seven)) == (2 * 3 - 1) * 2  # two bisections, which begin at the same point
    assert most_loops(study(**seven, temperatures=[0.8, 1.0])) == 2 * 5 * 2
    pareto = {"kind": "pareto", "synthetic_proportions": [], "cycles": ["fresh_mix"], "pareto": {"num_trials": 9}}
    assert most_loops(study(**pareto)) == 9


@pytest.mark.parametrize(
    ("train", "teachers", "expected"),
    [
        ([], 1.0, 1 + 10),
        (["train.targets=soft"], 1.0, (11 + 3 * (1 + 2 * 2 + 20)) / 4),
        (["train.targets=soft", "train.num_teachers=null"], 2.0, (11 + 3 * (1 + 2 * 2 * 2 + 20)) / 4),
        (["train.targets=soft", "train.num_teachers=2"], 5 / 3, (11 + 3 * (1 + 2 * 2 * 5 / 3 + 20)) / 4),
        (["train.targets=soft", "train.num_teachers=null", "train.teaching=drawn"], 1.0, (11 + 3 * 25) / 4),
    ],
)
def test_every_generation_but_the_first_pays_its_teachers(
    train: list[str], teachers: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting up takes 1 s and the steps 10; with a teacher 3 s, on half of the examples, and 20."""
    loop = load_preset("smoke", ["num_generations=4", *train], LoopConfig)

    def known(*given: object) -> tuple[float, float]:
        return (3.0, 20.0) if len(given) == 5 else (1.0, 10.0)

    monkeypatch.setattr(estimate, "_fit_seconds", known)
    assert estimate._num_teachers(loop) == pytest.approx(teachers)
    original = draw_original(loop, at_most=20)
    model = estimate._loaded(loop, original)
    assert estimate._train_seconds(loop, original, 40, model) == pytest.approx(expected)


def test_curation_draws_more_and_measures_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By clocks that give a token 1 s, and a measure of D_0 as long as it takes."""
    monkeypatch.setattr(estimate, "_seconds_per_token", lambda *_: 1.0)
    costs = [
        cost(load_preset("smoke", [*own, "data.num_examples=1000"], LoopConfig))
        for own in ([], ["curation.steps=[unique]"], ["curation.steps=[{name: weighted, candidates: 3}]"])
    ]
    assert costs[0].sample_seconds > 0
    assert [one.sample_seconds / costs[0].sample_seconds for one in costs] == pytest.approx([1, 1, 3])


def test_what_a_process_does_only_once_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which setting up takes 0.5 s, a step 0.1, a validation 0.2, and the first training 9 s more."""
    loop = load_preset("smoke", ["train.num_steps=60", "train.validate_every=20"], LoopConfig)
    original, now, begun = draw_original(loop, at_most=20), 0.0, False

    class Known:
        def __init__(self, _: LoopConfig, num_steps: int, validate_every: int) -> None:
            self.seconds = 0.5 + 0.1 * num_steps + 0.2 * (num_steps // validate_every)

        def prepared(self, _: object) -> "Known":
            return self

        def fit(self, *_: object, **__: object) -> None:
            nonlocal now, begun
            now, begun = now + self.seconds + 9 * (not begun), True

    monkeypatch.setattr(estimate, "_briefly", Known)
    monkeypatch.setattr(estimate, "perf_counter", lambda: now)
    assert estimate._fit_seconds(loop, original, len(original), 60) == pytest.approx((0.5, 60 * 0.1 + 3 * 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("train", [[], ["train.targets=soft"], ["train.start=previous", "train.num_tuning_steps=20"]])
def test_a_real_loop_takes_what_was_estimated(root: Path, monkeypatch: pytest.MonkeyPatch, train: list[str]) -> None:
    """In seconds of processor, which are those of the clock where nobody else computes."""
    changes = ["num_generations=3", "train.num_steps=120", "train.validate_every=60", "data.num_examples=500"]
    changes += ["data.max_depth=5", "sampling.max_new_tokens=126", "model.context_length=127"]
    config = load_preset("smoke", [*changes, *train], LoopConfig)
    monkeypatch.setattr(estimate, "perf_counter", process_time)
    of = cost(config)
    empty = size(root / "mlruns")
    start = process_time()
    run_loop(config, Store.open(), name="loop", study="test")
    taken = process_time() - start
    seconds, num_bytes = loop_totals(config, of)
    assert taken / 1.5 < seconds < taken * 1.5
    once = 50_000 + 80_000  # the loop's configuration, D_0, picture and parameters
    assert (size(root / "mlruns") - empty - once) / 2 < num_bytes < (size(root / "mlruns") - empty) * 2


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_laptop_study_of_36_loops_stays_under_2_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_train_seconds", lambda *_: 0.0)  # its time is of no interest here
    base = load_preset("laptop", [], LoopConfig)
    config = StudyConfig(synthetic_proportions=[0, 0.1, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 1],
                         seeds=[1, 2, 3], loop=base)  # fmt: skip
    assert len(config.loops()) == 36
    _, num_bytes = study_totals(config, cost(base))
    assert num_bytes < 2e9 / 2
