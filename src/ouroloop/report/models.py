"""A model by any of its names: registered, logged by a run, or a folder; and what makes one load elsewhere."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from mlflow import pyfunc
from mlflow.models import Model, infer_signature

from ouroloop.config import ConfigError, SamplingConfig
from ouroloop.learner.network.learner import Network
from ouroloop.learner.network.model import load_model
from ouroloop.record.track import Run, Store
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.testbed import LogicTestbed

FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL-ID, runs:/RUN-ID or a folder"


@dataclass(frozen=True)
class FoundModel:
    name: str
    """As it was asked for."""
    fitted: Network
    """As S_t was sampled from it."""
    testbed: LogicTestbed
    generation: Run | None
    """The run that made it; None for a folder."""

    def write(self, count: int, temperature: float, prompt: str, seed: int) -> list[str]:
        """So many texts that begin with the prompt, the same ones for the same seed.

        Raises:
            ConfigError: the prompt has other words than the language, or is too long for the model.
        """
        words, allowed = prompt.split(), self.testbed.tokenizer.words[:-1]
        unknown = [word for word in words if word not in allowed]
        if unknown:
            raise ConfigError(f"a prompt has no word {unknown[0]!r}; its words are: {' '.join(allowed)}")
        left = self.fitted.num_positions - len(words) - 1  # one position is the start symbol's
        if left < 1:
            raise ConfigError(f"a prompt of {len(words)} words leaves no room in a model of {left + len(words)} words")
        writes = min(self.fitted.config.max_new_tokens, left)
        decoding = self.fitted.config.changed(temperature=temperature, max_new_tokens=writes)
        try:
            return replace(self.fitted, config=decoding).sample(count, stream(seed, "probe"), " ".join(words)).texts
        except FloatingPointError as error:
            raise ConfigError(f"{self.name}: {error}") from None


def find_model(name: str) -> FoundModel:
    """The model of that name, loaded.

    Raises:
        ConfigError: there is none, or it is not one of ours.
    """
    with _located(name) as (folder, generation):
        sampling, testbed = _sampling(name, folder), LogicTestbed()
        try:
            model = load_model(folder)
        except Exception as error:  # whatever transformers and safetensors make of a damaged file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"the model in {name} cannot be loaded: {reason}") from None
    return FoundModel(name, Network(model, testbed.tokenizer, sampling), testbed, generation)


def _sampling(name: str, folder: Path) -> SamplingConfig:
    """Raises ConfigError unless this is a transformers folder with our alphabet, weights in safetensors."""
    missing = [file for file in ("config.json", "tokenizer.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise ConfigError(f"{name} is no saved model: it has no {missing[0]}")
    try:
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        decoding = json.loads((folder / "generation_config.json").read_text())
        sampling = SamplingConfig(temperature=decoding["temperature"], max_new_tokens=decoding["max_new_tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{name} was not saved by ouroloop: its tokenizer or decoding is not ours") from None
    expected = LogicTestbed().tokenizer.vocabulary
    if vocabulary != expected:
        raise ConfigError(f"{name} was not saved by ouroloop: its vocabulary is not {' '.join(expected)}")
    return sampling


@contextmanager
def _located(name: str) -> Iterator[tuple[Path, Run | None]]:
    if not name.startswith(("models:/", "runs:/")):
        folder = Path(name)
        if not folder.is_dir():
            raise ConfigError(f"no folder {name!r}; a model is {FORMS}")
        yield folder, None
        return
    store = Store.existing()
    with TemporaryDirectory() as aside:
        try:
            uri, run = _address(store, name)
            folder = store.download(uri, Path(aside))
        except ConfigError:
            raise
        except Exception as error:  # each kind of store raises its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"cannot get {name}: {reason}") from None
        yield folder, run


def _address(store: Store, name: str) -> tuple[str, Run | None]:
    """Where the files are, and the run that made them."""
    scheme, _, rest = name.partition(":/")
    if scheme == "runs":
        run_id, _, wanted = rest.partition("/")
        run = store.get(run_id)
        if run.model_id is None:
            raise ConfigError(f"run {run_id} kept no model; a generation's run does, unless keep_weights dropped it")
        return _logged(store, run.model_id, name, wanted)
    if "@" in rest or "/" in rest:
        return _registered(store, rest)
    return _logged(store, rest, name)


def _logged(store: Store, model_id: str, name: str, wanted: str = "") -> tuple[str, Run | None]:
    model = store.client.get_logged_model(model_id)
    if wanted not in ("", model.name):
        raise ConfigError(f"no model {name}; that run's is called {model.name}")
    run = store.get(model.source_run_id) if model.source_run_id else None
    return str(model.artifact_location), run


def _registered(store: Store, rest: str) -> tuple[str, Run | None]:
    model_name, separator, which = rest.partition("@") if "@" in rest else rest.partition("/")
    known = {model.name: model for model in store.client.search_registered_models(max_results=1_000)}
    if model_name not in known:
        raise ConfigError(f"no registered model {model_name!r}; there are: {', '.join(sorted(known)) or 'none'}")
    versions = {str(v.version) for v in store.client.search_model_versions(f"name='{model_name}'", max_results=1_000)}
    aliases = known[model_name].aliases
    version = str(aliases.get(which)) if separator == "@" else which
    if version not in versions:
        given = f"alias {which!r}" if separator == "@" else f"version {which!r}"
        has = ", ".join([*aliases, *sorted(versions, key=int)]) or "none"
        raise ConfigError(f"{model_name} has no {given}; there are: {has}")
    found = store.client.get_model_version(model_name, version)
    run = store.get(found.run_id) if found.run_id else None
    return str(store.client.get_model_version_download_uri(model_name, version)), run


def make_loadable(store: Store, model_id: str, card: str) -> None:
    """Adds to the folder of a logged model what MLflow needs to load it, and its card."""
    location = store.client.get_logged_model(model_id).artifact_location
    with TemporaryDirectory() as aside:
        plain, tokenizer = (
            json.loads(store.download(f"{location}/{name}", Path(aside)).read_text())
            for name in ("config.json", "tokenizer_config.json")
        )
        folder = Path(aside) / "added"
        write_mlflow_model(folder, model_id, plain["architectures"][0], tokenizer["model_max_length"])
        (folder / "README.md").write_text(card, encoding="utf-8")
        store.client.log_model_artifacts(model_id, str(folder))


def write_mlflow_model(folder: Path, model_id: str, architecture: str, context_length: int) -> None:
    """The files that turn a plain transformers folder into an MLflow model, for its transformers flavour.

    Written here and not by `mlflow.transformers.save_model`: that one copies the weights, asks the hub
    for a card and a licence, and fails on a local folder with transformers 5.
    """
    tokenizer = LogicTestbed().tokenizer.build(context_length, continues=True)
    tokenizer.save_pretrained(folder / "components" / "tokenizer")
    model = Model(signature=infer_signature("( not", "( not False )"), model_id=model_id)
    flavour: dict[str, Any] = {
        "task": "text-generation",
        "instance_type": "TextGenerationPipeline",
        "pipeline_model_type": architecture,
        "model_binary": ".",  # the weights and their configuration lie beside this file
        "source_model_name": model_id,
        "components": ["tokenizer"],
        "tokenizer_type": type(tokenizer).__name__,
    }
    model.add_flavor("transformers", transformers_version=version_of("transformers"), code=None, **flavour)
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env="python_env.yaml")
    model.save(folder / "MLmodel")
    packages = ("mlflow", "torch", "transformers")
    pinned = [f"{name}=={version_of(name).partition('+')[0]}" for name in packages]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n")
    environment = {"python": python_version(), "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))
