"""A model by any of its names: registered, logged by a run, or a folder."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ouroloop.config import ConfigError, SamplingConfig
from ouroloop.errors import did_you_mean, reason, shown
from ouroloop.record import stores
from ouroloop.science.seeding import stream
from ouroloop.testbed.base import Testbed
from ouroloop.testbed.logic.testbed import LogicTestbed
from ouroloop.testbed.text.testbed import TextTestbed
from ouroloop.testbed.tokenizer import WordTokenizer

if TYPE_CHECKING:  # torch and MLflow take seconds to import, and a name may be mistyped
    from ouroloop.learner.network.fitted import Network
    from ouroloop.record.run import Run
    from ouroloop.record.track import Store

FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL-ID, runs:/RUN-ID or a folder"


@dataclass(frozen=True, repr=False)
class FoundModel:
    name: str
    """As it was asked for."""
    fitted: "Network"
    """Set to sample as S_t was sampled."""
    testbed: Testbed
    generation: "Run | None"
    """The run that made it; None for a folder."""

    def __repr__(self) -> str:
        return f"<FoundModel {self.name!r}>"

    def write(self, count: int, temperature: float | None = None, prompt: str = "", seed: int = 0) -> list[str]:
        """`count` texts that begin with the prompt, the same ones for the same seed.

        Without a temperature they are sampled as S_t was.

        Raises:
            ConfigError: the temperature is not above 0, or the prompt has other words than the language or is too long
                for the model.
        """
        if isinstance(self.testbed.tokenizer, WordTokenizer):
            prompt = " ".join(prompt.split())
            allowed = self.testbed.tokenizer.words[:-1]
            unknown = [word for word in prompt.split() if word not in allowed]
            if unknown:
                raise ConfigError(f"a prompt cannot have the word {unknown[0]!r}; its words are: {' '.join(allowed)}")
        words = self.fitted.tokenizer.encode(prompt)[1:-1]
        left = self.fitted.num_positions - len(words) - 1  # one position is the start symbol's
        if left < 1:
            raise ConfigError(f"a prompt of {len(words)} words leaves no room in a model of {left + len(words)} words")
        writes = min(self.fitted.config.max_new_tokens, left)
        usual = self.fitted.config
        if temperature is not None:
            require_temperature(temperature)
        decoding = usual.changed(temperature=temperature or usual.temperature, max_new_tokens=writes)
        try:
            return replace(self.fitted, config=decoding).sample(count, stream(seed, "probe"), prompt).texts
        except FloatingPointError as error:
            raise ConfigError(f"{self.name}: {error}") from None


def require_temperature(given: float) -> None:
    """Raise ConfigError where no text can be sampled or scored at it."""
    if not 0 < given <= 10:
        raise ConfigError(f"temperature: got {shown(given)}, allowed is a number above 0, up to 10")


def find_model(name: str) -> FoundModel:
    """The model of that name, loaded.

    Raises:
        ConfigError: there is none, or it is not one of ours.
    """
    require_model(name)
    with _located(name) as (folder, generation):
        sampling, testbed = _sampling(name, folder), language_of(folder)
        from ouroloop.learner.network.fitted import Network
        from ouroloop.learner.network.model import load_model
        from ouroloop.learner.network.prefixes import require_causal
        from ouroloop.learner.network.subwords import saved

        try:
            model = load_model(folder)
            tokenizer = testbed.tokenizer or saved(folder)
            require_causal(model, tokenizer)
        except Exception as error:  # whatever transformers and safetensors make of a damaged file
            raise ConfigError(f"the model in {name} cannot be loaded: {reason(error)}") from None
    return FoundModel(name, Network(model, tokenizer, sampling), testbed, generation)


def require_model(name: str) -> None:
    """Refuse a mistyped name at once, as far as it can be recognised without MLflow.

    Raises:
        ConfigError: there is no such model.
    """
    if not name.startswith(("models:/", "runs:/")):
        if not Path(name).is_dir():
            raise ConfigError(f"no folder {shown(name)}; a model is {FORMS}")
        _sampling(name, Path(name))
        return
    match = re.fullmatch(r"(models:/[^/@]+([@/][^/@]+)?|runs:/[^/@]+(/[^/]+)?)", name)
    if match is None:
        raise ConfigError(f"cannot read {shown(name)}; a model is {FORMS}")
    stores.require_store()
    kind = "run" if name.startswith("runs:") else "model" if match[2] else "logged model"
    wanted = re.split("[@/]", name.partition(":/")[2])[0]
    known = stores.known(kind)
    if known is not None and wanted not in known:
        there_are = f"; there are: {', '.join(known) or 'none'}" if kind == "model" else ""
        what = "registered model" if kind == "model" else kind
        raise ConfigError(f"no {what} {shown(wanted)}{did_you_mean(wanted, known)}{there_are}")


def _sampling(name: str, folder: Path) -> SamplingConfig:
    """How a saved model samples.

    Raises:
        ConfigError: it is not a transformers folder with our alphabet and weights in safetensors.
    """
    missing = [file for file in ("config.json", "tokenizer.json", "model.safetensors") if not (folder / file).is_file()]
    if missing:
        raise ConfigError(f"{name} is not a saved model: it has no {missing[0]}")
    try:
        tokens = json.loads((folder / "tokenizer.json").read_text())["model"]
        vocabulary = tokens["vocab"]
        decoding = json.loads((folder / "generation_config.json").read_text())
        sampling = SamplingConfig(
            temperature=decoding["temperature"],
            min_p=decoding.get("min_p") or 0.0,
            max_new_tokens=decoding["max_new_tokens"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{name} was not saved by ouroloop: its tokenizer or decoding is not ours") from None
    expected = LogicTestbed().tokenizer.vocabulary
    if vocabulary != expected and tokens.get("type") == "WordLevel":
        raise ConfigError(f"{name} was not saved by ouroloop: its vocabulary is not {' '.join(expected)}")
    return sampling


def language_of(folder: Path) -> Testbed:
    """The language of a saved model, by its vocabulary: any other than that of logic is one of text."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return LogicTestbed() if vocabulary == LogicTestbed().tokenizer.vocabulary else TextTestbed()


@contextmanager
def _located(name: str) -> "Iterator[tuple[Path, Run | None]]":
    if not name.startswith(("models:/", "runs:/")):
        yield Path(name), None
        return
    from ouroloop.record.track import Store

    store = Store.existing()
    with TemporaryDirectory() as aside:
        try:
            uri, run = _address(store, name)
            folder = store.download(uri, Path(aside))
        except ConfigError:
            raise
        except Exception as error:  # each kind of store raises its own
            raise ConfigError(f"cannot get {name}: {reason(error)}") from None
        yield folder, run


def _address(store: "Store", name: str) -> "tuple[str, Run | None]":
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


def _logged(store: "Store", model_id: str, name: str, wanted: str = "") -> "tuple[str, Run | None]":
    model = store.client.get_logged_model(model_id)
    if wanted not in ("", model.name):
        raise ConfigError(f"no model {name}; the model of that run is called {model.name}")
    run = store.get(model.source_run_id) if model.source_run_id else None
    return str(model.artifact_location), run


def _registered(store: "Store", rest: str) -> "tuple[str, Run | None]":
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
