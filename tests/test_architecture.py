"""What the import contracts cannot say: imports at run time, sizes, and the README's file tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MODULES = sorted((REPOSITORY / "src" / "ouroloop").glob("*.py"))
SCIENCE = ["grammar", "verify", "oracle", "seeding", "config", "preset", "cycle", "tokenizer", "measure"]
SCIENCE += ["law", "divergence", "ideal"]


def test_the_science_imports_no_machinery() -> None:
    code = f"import sys, {', '.join(f'ouroloop.{name}' for name in SCIENCE)}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mlflow", "optuna", "transformers", "pytorch_lightning", "rich"} & set(loaded)


def test_the_ideal_learner_runs_without_torch() -> None:
    code = """if True:
        import sys
        from ouroloop.config import LoopConfig
        from ouroloop.science.cycle import Dataset, Source
        from ouroloop.loop.generation import assess, produce
        from ouroloop.loop.observer import Observer
        from ouroloop.science.metrics import Sample
        model = {"kind": "empirical"}
        config = LoopConfig.model_validate({"num_generations": 1, "data": {"num_examples": 2}, "model": model})
        texts = ["( not False )", "( True and True )"]
        training_set = Dataset.of(texts, Source.ORIGINAL, 0)
        product = produce(config, 1, training_set, Observer())
        print(assess(config, 1, product, training_set, Sample.of(texts), Observer()).measures["entropy_nats"].value)
        sys.exit(" ".join({"torch", "pytorch_lightning", "transformers", "mlflow"} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "\n"
    assert float(done.stdout) == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_and_functions_stay_short(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_that_runs_text_is_called(path: Path) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not calls & {"eval", "exec", "compile", "os.system", "sympy.sympify", "sympify", "parse_expr", "torch.load"}


def test_every_module_has_its_test_or_a_reason() -> None:
    tested = {path.stem.removeprefix("test_") for path in (REPOSITORY / "tests").glob("test_*.py")}
    through_others = {
        "__init__": "a docstring",
        "__main__": "every test of the command line",
        "figure": "test_report",
        "gallery": "test_report",
        "results": "test_sweep",
        "generation": "test_loop",
        "listing": "test_lookup and test_compare",
        "preset": "test_config",
        "software": "test_loop",
        "stores": "test_queue and test_cli",
        "observer": "test_loop",
        "outcome": "test_report and test_headline",
        "status": "test_cli",
        "summary": "test_cli and test_sweep",
        "table": "test_report",
        "origin": "test_loop",
        "track": "test_loop",
        "twin": "test_loop",
        "ui": "test_browser",
        "view": "test_cli",
    }
    assert {path.stem for path in MODULES} - tested == through_others.keys()


def test_the_readme_tree_is_the_real_one() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for path in MODULES:
        if not path.stem.startswith("__"):
            assert f"{path.name} " in text, f"{path.name} is missing from the README's file tree"
