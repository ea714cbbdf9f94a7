"""A model by any of its names, what it writes, and one line for every name that is none."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from ouroloop.console import print_listing
from ouroloop.record.track import Store
from ouroloop.report.models import find_model
from ouroloop.testbed.logic.verify import judge
from tests.conftest import CommandLine

NAME = "ouroloop-incremental-0.50-T0.1"


def folder_of(name: str = NAME) -> Path:
    return Path(Store.open().client.get_model_version_by_alias(name, "healthy").source.removeprefix("file://"))


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.heavy
@pytest.mark.usefixtures("collapsing")
def test_every_name_of_a_model_gives_the_same_expressions(ouroloop: CommandLine) -> None:
    version = Store.open().client.get_model_version_by_alias(NAME, "healthy")
    generation = Store.open().get(version.run_id)
    names = [
        f"models:/{NAME}@healthy",
        f"models:/{NAME}/{version.version}",
        f"models:/{generation.model_id}",
        f"runs:/{generation.id}",
        f"runs:/{generation.id}/M_01",
        str(folder_of()),
    ]
    outputs = {ouroloop("sample", name, "-n", "30", "--temperature=1").stdout for name in names}
    assert len(outputs) == 1
    header, *lines = rows(outputs.pop())
    assert header == ["verdict", "depth", "expression"]
    assert len(lines) == 30
    for verdict, depth, text in lines:
        judgement = judge(text)
        assert verdict == judgement.verdict
        assert depth == ("" if judgement.depth is None else str(judgement.depth))
    other = ouroloop("sample", names[0], "-n", "30", "--temperature=1", "--seed=1").stdout
    assert rows(other)[1:] != lines


@pytest.mark.usefixtures("collapsing")
def test_a_prompt_is_gone_on_with_by_the_exact_distribution() -> None:
    """Of the two commonest texts with this prompt, which comes up more often? By the ratio of their probabilities,
    within 4 standard errors: the prompt's own probability cancels."""
    found = find_model(f"models:/{NAME}@healthy")
    assert found.fitted.config.temperature == 0.1
    texts = found.write(4_000, 0.5, "( not", seed=3)
    assert all(text.startswith("( not") for text in texts)
    (one, count), (other, other_count) = Counter(t for t in texts if len(t.split()) < 20).most_common(2)
    first, second = np.exp(found.fitted.log_prob([one, other], [0.5])[0])
    share, total = first / (first + second), count + other_count
    assert total > 50
    assert abs(count / total - share) < 4 * np.sqrt(share * (1 - share) / total)


@pytest.mark.usefixtures("collapsing")
def test_a_long_prompt_leaves_what_room_there_is() -> None:
    """31 words and the start symbol fill the 32 positions: none is left."""
    found = find_model(f"models:/{NAME}@healthy")
    (text,) = found.write(1, 1.0, "( " * 30, seed=0)
    assert len(text.split()) in (30, 31)


@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"models:/{NAME.replace('mental', 'metal')}@onset"], f"(did you mean {NAME}?)"),
        (["models:/a/b/c"], "cannot read 'models:/a/b/c'; a model is models:/NAME@ALIAS, "),
        (["models:/nobody@onset"], "no registered model 'nobody'; there are: ouroloop-incremental-0.50-T0.1, ouro"),
        ([f"models:/{NAME}@nope"], f"{NAME} has no alias 'nope'; there are: "),
        ([f"models:/{NAME}/99"], f"{NAME} has no version '99'; there are: "),
        (["models:/m-0123"], "no logged model 'm-0123'"),
        (["runs:/0123"], "no run '0123'"),
        (["/no/such/folder"], "no folder '/no/such/folder'; a model is models:/NAME@ALIAS, "),
        (["experiments"], "experiments is not a saved model: it has no config.json"),
        (
            [f"models:/{NAME}@healthy", "--prompt=( nor"],
            "a prompt cannot have the word 'nor'; its words are: True False",
        ),
        ([f"models:/{NAME}@healthy", "--prompt=( <eos>"], "a prompt cannot have the word '<eos>'"),
        ([f"models:/{NAME}@healthy", f"--prompt={'( ' * 31}"], "a prompt of 31 words leaves no room in a model of 31"),
        ([f"models:/{NAME}@healthy", "--temperature=0"], "'0' is not a number above 0, up to 10"),
        ([f"models:/{NAME}@healthy", "--seed=-1"], "'-1' is not a whole number from 0 to 999999999"),
        ([f"models:/{NAME}@healthy", "-n", "0"], "'0' is not a whole number from 1 to 999999999"),
    ],
)
def test_what_is_no_model_ends_with_2_and_one_line(ouroloop: CommandLine, arguments: list[str], message: str) -> None:
    done = ouroloop("sample", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.usefixtures("collapsing")
def test_a_store_that_is_none_ends_with_2(
    ouroloop: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "none" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    for arguments in (["sample", f"models:/{NAME}@healthy"], ["register", "collapsing"], ["compare", "collapsing"]):
        done = ouroloop(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"no MLflow store at {path}; " in done.stderr
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_text("no database")
    done = ouroloop("sample", f"models:/{NAME}@healthy")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"cannot open the MLflow store {path}: file is not a database" in done.stderr


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def foreign(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {"<eos>": 0, "hello": 1}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def halved(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(dict(sorted(tensors.items())[::2]), folder / "model.safetensors", metadata={"format": "pt"})


def shallower(folder: Path) -> None:
    set_config(folder, n_layer=0)


def of_another_type(folder: Path) -> None:
    set_config(folder, model_type="bert", architectures=["BertLMHeadModel"])


def nested(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("[" * 100_000)


def nested_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.usefixtures("collapsing")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, "cannot be loaded: "),
        (foreign, "was not saved by ouroloop: its vocabulary is not"),
        (pickled, "is not a saved model: it has no model.safetensors"),
        (halved, "cannot be loaded: 9 of its weights are missing: lm_head.weight, transformer.h.0.attn"),
        (shallower, "of its weights are unexpected: transformer.h.0."),
        (of_another_type, "cannot be loaded: "),
        (nested, "was not saved by ouroloop: its tokenizer or decoding is not ours"),
        (nested_config, "cannot be loaded: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_or_foreign_folder_ends_with_2(
    ouroloop: CommandLine, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of(), folder)
    damage(folder)
    done = ouroloop("sample", str(folder))
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert message in done.stderr


def test_a_table_shows_hostile_text_as_it_is() -> None:
    hostile = "[red]<script>[/red] | **x** [/]"
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    print_listing(console, ("verdict", "nats", "expression"), [("malformed", -1.234, hostile)], hostile)
    assert output.getvalue().count(hostile) == 2
    assert "-1.23 " in output.getvalue()
