"""What the import contracts cannot say: imports at run time, sizes, importers, what a reuse depends on, tests."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import pytest

from ouroloop.record import provenance
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "ouroloop"
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
DECISIVE = ("config", "testbed", "science", "learner", "loop")

each_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def functions(module: str) -> Iterator[tuple[str, int]]:
    """Each with its lines."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@cache
def imports(module: str) -> set[str]:
    """The modules of ours that it names, anywhere in it."""
    named: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            named |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {name.removeprefix("ouroloop.").replace(".", "/") for name in named if name.startswith("ouroloop")}
    return {path if path in MODULES else f"{path}/__init__" for path in paths} & MODULES.keys()


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a new process has loaded after this."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}}, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", [module for module in MODULES if module.endswith("__init__")])
def test_a_package_draws_its_rooms(package: str) -> None:
    folder, drawn = MODULES[package].parent, set(re.findall(r"\w+", ast.get_docstring(tree(package)) or ""))
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} <= drawn


MACHINERY = {"torch", "pytorch_lightning", "transformers", "tokenizers", "mlflow", "optuna", "rich", "matplotlib"}


@pytest.mark.heavy
def test_science_and_testbeds_import_no_machinery() -> None:
    ours = [module for module in MODULES if module.startswith(("science/", "testbed/"))]
    ours += ["config/__init__", "learner/base", "learner/empirical", "study/config"]
    names = [f"ouroloop.{module.removesuffix('/__init__').replace('/', '.')}" for module in ours]
    assert not MACHINERY & loaded_after("\n".join(f"import {name}" for name in names))


IDEAL = """
from ouroloop.config import LoopConfig
from ouroloop.learner import learner_of
from ouroloop.science.dataset import Dataset, Source
from ouroloop.science.seeding import Streams, stream
from ouroloop.testbed.base import Sample
config = LoopConfig.model_validate({"num_generations": 1, "data": {"num_examples": 2}, "model": {"kind": "empirical"}})
training_set = Dataset.of(["( not False )", "( True and True )"], Source.ORIGINAL, 0)
learner, original = learner_of(config), Sample.of(training_set.texts, config.data.testbed)
"""


def test_the_ideal_learner_runs_without_machinery() -> None:
    code = """
learner.check()
samples = learner.fit(training_set, Streams(1, 1)).sample(3, stream(1, "sampling"))
assert set(samples.texts) <= set(training_set.texts)
"""
    assert not MACHINERY & loaded_after(IDEAL + code)


@pytest.mark.heavy
def test_a_generation_of_the_ideal_learner_runs_without_torch() -> None:
    code = """
from ouroloop.loop.generation import Observer, compute
made = compute(config, learner, 1, training_set, original, Observer())
assert abs(made.metrics["entropy_nats"] - 0.6931) < 1e-4
"""
    assert not {"torch", "pytorch_lightning", "transformers"} & loaded_after(IDEAL + code)


@each_module
def test_no_module_and_no_function_is_long(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= 400
    assert {name: lines for name, lines in functions(module) if lines >= 60} == {}


def test_half_of_the_modules_and_functions_are_short() -> None:
    assert median(len(path.read_text().splitlines()) for path in MODULES.values()) <= 200
    assert median(lines for module in MODULES for _, lines in functions(module)) <= 12


@each_module
def test_nothing_that_runs_text_is_called(module: str) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}
    assert not calls & {"eval", "exec", "compile", "os.system", "sympy.sympify", "sympify", "parse_expr", "torch.load"}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module.startswith(("learner/", "science/", "loop/", "record/"))]
)
def test_what_is_told_of_a_testbed_by_its_protocol_knows_no_language(module: str) -> None:
    assert not [found for found in imports(module) if found.startswith("testbed/logic")]


def test_each_name_of_a_walk_is_where_it_says() -> None:
    """The two paragraphs of docs/architecture.md that follow λ and a text through the code: `name` (`module.py`)."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    walks = " ".join(section for section in page.split("\n## ") if section.startswith("A walk"))
    stops = re.findall(r"`([\w.]+)`\s+\(`([\w/]+)\.py`\)", walks)
    assert len(stops) >= 11
    for name, module in stops:
        *of, last = name.split(".")
        defined = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert {last, *of} <= {node.name for node in defined}, (name, module)


# Who is imported by one module alone, and why it is one nevertheless
ALONE = {
    "cli": "what `python -m ouroloop` and the console script start",
    "leaderboard": "a command",
    "report/board": "the leaderboard for people",
    "loop/cache": "what a generation follows from, and where it was computed already",
    "loop/lineage": "what becomes of earlier models is another matter than the order of generations",
    "record/clean": "a command",
    "report/captions": "what stands below a figure, in words and in Markdown; the page is markup",
    "report/folder": "the files of a report; Python's face asks for it",
    "report/page": "the page itself",
    "report/ui": "a command",
    "study/answer": "what the driver says at its end, for each kind of study",
    "study/executor": "engines, each with its own library",
    "study/work": "what an engine sends to another process",
}


def test_no_module_is_there_for_one_other_alone() -> None:
    """A rule that one module needs belongs into it; a testbed's and a learner's rooms have a reason of their own."""
    importers = {module: [other for other in MODULES if module in imports(other) - {other}] for module in MODULES}
    alone = {
        module
        for module, found in importers.items()
        if len(found) == 1
        and not module.startswith(("testbed/", "learner/", "config/"))
        and not module.endswith("__init__")
    }
    assert alone == ALONE.keys()


def test_every_module_is_imported() -> None:
    imported = set[str]().union(*(imports(module) for module in MODULES))
    started = {"__main__", "report/archive", "report/server"}  # by `python -m`
    steps = {module for module in MODULES if module.startswith("science/curation/")} - imported  # by their package
    assert {module for module in MODULES if not module.endswith("__init__")} - imported - steps == started


# Tested by others, and by which
THROUGH_OTHERS = {
    "__main__": "every process that a test starts",
    **{f"config/{name}": "test_config" for name in ("curation", "cycle", "data", "loop", "model", "section", "train")},
    "config/named": "learner/network/test_pretrained and test_features",
    "console": "test_cache and test_cli",
    "learner/network/fitted": "learner/network/test_learner and report/test_models",
    "learner/network/next_token": "learner/network/test_sampling and test_scoring",
    "learner/base": "protocols; tests/learner/contract.py",
    "learner/network/sharding": "test_world",
    "loop/observer": "test_loop and test_generation",
    "options": "test_cli",
    "preset_files": "test_presets",
    "record/locks": "test_kills and test_cli",
    "record/provenance": "here, test_loop and test_cache",
    "report/captions": "test_page",
    "report/figures": "test_report",
    "report/folder": "test_report",
    "report/layers": "test_report",
    "report/looks": "test_browser, where a legend has a figure's marks",
    "report/render": "test_report",
    "report/results": "test_report and test_api",
    "report/server": "test_ui",
    "report/stages": "test_registry and test_compare",
    "report/tables": "test_report and test_paper",
    "schema": "test_config",
    "spawning": "test_api and learner/network/test_world",
    "report/board": "report/test_leaderboard",
    "report/outcomes": "report/test_leaderboard",
    **{
        f"science/curation/{name}": "science/curation/test_steps.py, all against the contract"
        for name in ("archive", "buffer", "checks", "editing", "repeats", "step", "weights")
    },
    "study/answer": "test_search and test_driver",
    "study/task": "test_trials and study/test_recorded",
    "study/work": "test_driver and test_kills",
}


def test_every_module_has_its_test_or_a_reason() -> None:
    """In the same room, or, while a test is about several rooms, at the top."""
    tests = REPOSITORY / "tests"

    def has_test(module: str) -> bool:
        name = f"test_{Path(module).name}.py"
        return (tests / module).with_name(name).exists() or (tests / name).exists()

    untested = {module for module in MODULES if not module.endswith("__init__") and not has_test(module)}
    assert untested == THROUGH_OTHERS.keys()


@pytest.mark.heavy
def test_a_reuse_depends_on_what_determines_results_and_on_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "ouroloop"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(copy / "record" / "provenance.py"))

    def code() -> str:
        return str(provenance.code.__wrapped__())

    assert code() == provenance.code()
    for path in sorted(file for file in copy.rglob("*") if file.is_file()):
        before, content = code(), path.read_bytes()
        path.write_bytes(content + b"\n# a word\n")
        is_decisive = path.suffix == ".py" and path.relative_to(copy).parts[0] in DECISIVE
        assert (code() != before) is is_decisive, path
        path.write_bytes(content)
        assert code() == before
    for folder in ("learner/network", "testbed/logic", "testbed/another", "loop", "report", "record", "study", ""):
        before = code()
        (copy / folder).mkdir(exist_ok=True)
        (copy / folder / "added.py").write_text("added = True\n")
        assert (code() != before) is folder.startswith(DECISIVE), folder
