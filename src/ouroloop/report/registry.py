"""The registry: each cell's models at the stages of its collapse, under names that other tools load.

One registered model for each cell (cycle, proportion, temperature), one version for each stage that its
median seed went through, an alias with the stage's name on it. A version is the logged model M_t itself:
its weights stay where they are, and what makes the folder an MLflow model is put beside them.

Registering changes what differs from that and nothing else. With more seeds, or after another study of
the same cell, the aliases move together to the newly chosen loop; versions are never deleted.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version as version_of
from math import exp, sqrt
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import yaml
from mlflow import pyfunc
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from pydantic import BaseModel
from scipy.special import ndtri

from ouroloop.config import LoopConfig, StageConfig, flatten
from ouroloop.errors import reason
from ouroloop.learner.network.subwords import saved
from ouroloop.plain import as_text
from ouroloop.record import stores
from ouroloop.record.provenance import loop_tags
from ouroloop.record.run import Run
from ouroloop.record.track import Store
from ouroloop.report.models import language_of
from ouroloop.report.stages import Cell, Entry, Found, find_cells, find_stages
from ouroloop.science.dataset import Source
from ouroloop.science.metrics import RETENTION, CollapseStage
from ouroloop.science.statistics import LEVEL
from ouroloop.testbed.base import is_share


def register(store: Store, study: str) -> list[Entry]:
    """Register what a study has, and say what became of each alias.

    Raises:
        ConfigError: there is no such study, or what is made of its models cannot be written here.
    """
    stores.require_writable()
    cells, left_out = find_cells(store, study)
    entries = []
    for cell in cells:
        found = find_stages(cell)
        if any(one.generation for one in found):
            registration = _Registration(store, study, cell)
            entries += [registration.stage(one) for one in found]
        else:
            entries += [Entry(cell.name, str(one.stage), "", f"skipped: {one.reason}") for one in found]
    return entries + left_out


class _Registration:
    """Brings one registered model into line with its cell."""

    def __init__(self, store: Store, study: str, cell: Cell) -> None:
        self._store, self._client, self._study, self._cell = store, store.client, study, cell
        self._ensure_model(cell.representative.config)
        versions = self._client.search_model_versions(f"name='{cell.name}'", max_results=1_000)
        self._by_source = {v.source: v for v in sorted(versions, key=lambda v: -int(v.version))}
        self._by_number = {str(v.version): v for v in versions}
        self._aliases = {a: str(v) for a, v in self._client.get_registered_model(cell.name).aliases.items()}

    def _ensure_model(self, config: LoopConfig) -> None:
        tags = loop_tags(config, self._study)
        del tags["seed"], tags["study"]
        description = "Models of one self-consuming loop at the stages of its collapse, an alias for each stage."
        try:
            self._client.create_registered_model(self._cell.name, tags, description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def stage(self, found: Found) -> Entry:
        name, alias, before = self._cell.name, str(found.stage), self._aliases.get(str(found.stage))
        if found.generation is None:
            if before is None:
                return Entry(name, alias, "", f"skipped: {found.reason}")
            self._client.delete_registered_model_alias(name, alias)  # it was another loop's
            return Entry(name, alias, "", f"removed from version {before}: {found.reason}")
        try:
            version, is_changed = self._version(found.stage, found.generation)
        except (MlflowException, OSError) as error:
            return Entry(name, alias, "", f"failed: M_{found.number}: {reason(error)}")
        number = str(version.version)
        if before == number:
            return Entry(name, alias, number, "updated" if is_changed else "unchanged")
        self._client.set_registered_model_alias(name, alias, number)
        if before is None:
            return Entry(name, alias, number, "registered")
        tags = self._by_number[before].tags
        whose = f"seed {tags.get('seed', '?')} of {tags.get('study', 'another study')}"
        return Entry(name, alias, number, f"moved from version {before}, {whose}")

    def _version(self, stage: CollapseStage, generation: Run) -> tuple[ModelVersion, bool]:
        """The version that is this model, created or brought up to date, and whether anything was written."""
        assert generation.model_id is not None
        model = self._client.get_logged_model(generation.model_id)
        tags, card = self._tags(stage, generation), self._card(stage, generation)
        existing = self._by_source.get(model.artifact_location)
        if existing is None:
            _make_loadable(self._store, generation.model_id, card)
            created = self._client.create_model_version(
                self._cell.name,
                model.artifact_location,  # "models:/m-…" would be looked up in the store of the environment
                generation.id,
                tags=tags,
                description=card,
                await_creation_for=0,  # it is there at once, except on Databricks
                model_id=generation.model_id,
            )
            known = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
            link = {"name": self._cell.name, "version": created.version}
            self._client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps([*known, link])})
            return created, True
        changed = {key: value for key, value in tags.items() if existing.tags.get(key) != value}
        for key, value in changed.items():
            self._client.set_model_version_tag(self._cell.name, existing.version, key, value)
        if existing.description != card:
            _make_loadable(self._store, generation.model_id, card)
            self._client.update_model_version(self._cell.name, existing.version, card)
        return existing, bool(changed) or existing.description != card

    def _tags(self, stage: CollapseStage, generation: Run) -> dict[str, str]:
        config, metrics = self._cell.representative.config, generation.metrics
        return {
            "study": self._study,
            "seed": str(config.seed),
            "generation": str(generation.tag("generation")),
            "stage": str(stage),
            "diversity_retention": f"{metrics[RETENTION]:.6f}",
            **{key: f"{metrics[key]:.6f}" for key in list(config.data.testbed.headline.values())[:1] if key in metrics},
            "criterion": criterion(config.stages),
            "representative": self._cell.choice,
        }

    def _card(self, stage: CollapseStage, generation: Run) -> str:
        chosen = self._cell.representative
        facts = {
            "criterion": criterion(chosen.config.stages),
            "represents its cell as": self._cell.choice,
            "study": f"{as_text(self._study)}, loop run `{chosen.run.id}`, generation run `{generation.id}`",
            "logged model": f"`{generation.model_id}`",
            "code": as_text(f"ouroloop {chosen.run.tag('ouroloop_version')}, commit {generation.tag('commit')}"),
        }
        return model_card(
            self._cell.name,
            stage,
            generation.number,
            chosen.config,
            facts=facts,
            mixture=generation.mixture,
            metrics=generation.metrics,
        )


def _make_loadable(store: Store, model_id: str, card: str) -> None:
    """Add to the folder of a logged model what MLflow needs to load it, and its card."""
    location = store.client.get_logged_model(model_id).artifact_location
    with TemporaryDirectory() as aside:
        plain, tokenizer, _ = (
            json.loads(store.download(f"{location}/{name}", Path(aside)).read_text())
            for name in ("config.json", "tokenizer_config.json", "tokenizer.json")
        )
        folder, length = Path(aside) / "added", tokenizer["model_max_length"]
        language = language_of(Path(aside))
        own = language.tokenizer or saved(Path(aside))
        write_mlflow_model(folder, model_id, plain["architectures"][0], own.build(length, continues=True))
        (folder / "README.md").write_text(card, encoding="utf-8")
        store.client.log_model_artifacts(model_id, str(folder))


def write_mlflow_model(folder: Path, model_id: str, architecture: str, tokenizer: Any) -> None:
    """Write the files that turn a plain transformers folder into an MLflow model, for its transformers flavour.

    They are not left to `mlflow.transformers.save_model`, which copies the weights, asks the hub
    for a card and a licence, and fails on a local folder with transformers 5.
    """
    tokenizer.save_pretrained(folder / "components" / "tokenizer")
    model = Model(signature=infer_signature("a beginning", "a beginning and what follows"), model_id=model_id)
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


_RATES = {"share_in_original": "texts that occur in D_0"}
_MEANS = {
    "diversity_levenshtein": "diversity: mean edit distance of two texts / longer length",
    "diversity_retention": "diversity over D_0's",
    "unique_fraction": "distinct texts / all texts",
    "mean_length_tokens": "words of a text",
}
_ROWS = 12  # origins that are listed one by one
_Z = float(ndtri((1 + LEVEL) / 2))


def criterion(stages: StageConfig) -> str:
    """The rule of all stages in one line, with its thresholds."""
    healthy, onset, decline = (f"{value:g}" for value in (stages.healthy, stages.onset, stages.decline))
    r = "diversity_levenshtein(S_t) / diversity_levenshtein(D_0)"
    return (
        f"r = {r if stages.measure == RETENTION else f'{stages.measure}(M_t) / {stages.measure}(M_1)'}: "
        f"healthy r >= {healthy}, onset {onset} <= r < {healthy}, decline {decline} <= r < {onset}, "
        f"collapsed r < {decline}; a stage below healthy is entered where the next generation is no better"
    )


def model_card(
    name: str,
    stage: CollapseStage,
    generation: int,
    config: LoopConfig,
    *,
    facts: Mapping[str, str],
    mixture: Mapping[str, int],
    metrics: Mapping[str, float],
) -> str:
    """Markdown, at most 5,000 characters, which is what a registry's description holds.

    `facts` are the lines under "Which model this is"; `mixture` counts the examples of D_{t-1} by origin;
    `metrics` are those of the generation.
    """
    cycle = config.cycle
    proportion = "" if cycle.synthetic_proportion is None else f" at λ = {cycle.synthetic_proportion:g}"
    material = config.data.testbed.material
    introduction = f"""\
        # {name}@{stage}

        M_{generation} of a self-consuming training loop on {material} ({cycle.kind.value}{proportion}): the
        first model whose texts are in the stage **{stage}**. Its configuration: {_settings(config.model)}."""
    words = "" if config.data.testbed.tokenizer is None else " Eight words; `<eos>` starts and ends a text."
    begins = "The" if config.data.testbed.tokenizer is None else "( not"
    loading = f"""\
        ## How to load it

        ```python
        # MLFLOW_TRACKING_URI names the store
        pipe = mlflow.transformers.load_model("models:/{name}@{stage}")
        pipe("{begins}")
        mlflow.pyfunc.load_model("models:/{name}@{stage}").predict("{begins}")
        folder = mlflow.artifacts.download_artifacts("models:/{name}@{stage}")
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ```

        ```sh
        ouroloop sample models:/{name}@{stage} -n 20
        ```

        The weights are safetensors; nothing is unpickled.{words}"""
    parts = [dedent(introduction), _trained_on(generation, mixture), _writes(config, generation, metrics)]
    which = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return "\n\n".join([*parts, f"## Which model this is\n\n{which}", dedent(loading)]) + "\n"


def _settings(section: BaseModel) -> str:
    return ", ".join(f"{key} {value}" for key, value in flatten(section).items())


def _trained_on(generation: int, mixture: Mapping[str, int]) -> str:
    total = sum(mixture.values())
    sampled = sum(count for origin, count in mixture.items() if origin.startswith(Source.SAMPLED.name.lower()))
    largest = sorted(mixture, key=lambda origin: -mixture[origin])[:_ROWS]
    rows = [(origin, mixture[origin]) for origin in mixture if origin in largest]
    if len(largest) < len(mixture):
        rows.append((f"{len(mixture) - len(largest)} other origins", total - sum(count for _, count in rows)))
    lines = [f"| {origin} | {count:,} | {count / total:.1%} |" for origin, count in rows]
    return "\n".join(
        [
            f"## What it was trained on\n\nD_{generation - 1}, {total:,} examples, {sampled / total:.1%} written by "
            "earlier models.\n\n| origin-generation | examples | share |\n|---|---:|---:|",
            *lines,
        ]
    )


def _writes(config: LoopConfig, generation: int, metrics: Mapping[str, float]) -> str:
    size, sampling = config.data.num_examples, config.sampling
    rates = {**config.data.testbed.descriptions, **_RATES}
    meanings = {**rates, **config.data.testbed.means, **_MEANS}
    rows = [
        f"| {meaning} (`{key}`) | {metrics[key]:.4g} | {_interval(metrics, key, key in rates, size)} |"
        for key, meaning in meanings.items()
        if key in metrics
    ]
    cut = f", min-p {sampling.min_p:g}" if sampling.min_p else ""
    heading = (
        f"## What it writes\n\nS_{generation}: {size:,} texts at temperature {sampling.temperature:g}, no top-k, no "
        f"top-p{cut}, at most {sampling.max_new_tokens} tokens.\n\n| measure | value | 95 % interval |\n|---|---:|---|"
    )
    note = "\nIntervals cover the finite sample from this one model; they say nothing about other seeds."
    return "\n".join([heading, *rows, note])


def _interval(metrics: Mapping[str, float], key: str, is_rate: bool, size: int) -> str:
    """Wilson's for a rate; for other means in [0, 1] too, from as many texts as would give a rate that standard error.

    For what has no upper bound it is on a logarithmic scale. An error of 0 is one that was not seen: no interval.
    """
    value, error = metrics[key], metrics.get(f"{key}_stderr", 0.0)
    if is_rate:
        return _wilson(value, size)
    if not (value and error):
        return ""
    if is_share(key) and value < 1:
        return _wilson(value, value * (1 - value) / error**2)
    factor = exp(_Z * error / value)
    return f"{value / factor:.4g} to {value * factor:.4g}"


def _wilson(rate: float, n: float) -> str:
    """Wilson's interval, which is honest at 0 and 1 too."""
    middle = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    return f"{max(middle - half, 0):.4g} to {min(middle + half, 1):.4g}"
