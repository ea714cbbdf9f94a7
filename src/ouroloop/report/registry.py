"""The registry: each cell's models at the stages of its collapse, under names that other tools load.

One registered model for each cell (cycle, proportion, temperature), one version for each stage that its
median seed went through, an alias with the stage's name on it. A version is the logged model M_t itself:
its weights stay where they are, and get beside them what makes the folder an MLflow model.

Registering changes what differs from that and nothing else. With more seeds, or after another study of
the same cell, the aliases move together to the newly chosen loop; versions are never deleted.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml
from mlflow import pyfunc
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from ouroloop.config import ConfigError, LoopConfig, SamplingConfig
from ouroloop.record.provenance import cell_tags, recorded_config
from ouroloop.record.track import Run, Store
from ouroloop.report.card import criterion, model_card
from ouroloop.science.metrics import CollapseStage, stage
from ouroloop.study.status import half_life
from ouroloop.study.trials import RETENTION
from ouroloop.testbed.tokenizer import build_tokenizer

_USUAL_TEMPERATURE = SamplingConfig.model_fields["temperature"].default


@dataclass(frozen=True)
class Candidate:
    """A finished loop with what decides whether it represents its cell."""

    run: Run
    config: LoopConfig
    retention: dict[int, float]
    """Of each generation from 1."""


@dataclass(frozen=True)
class Cell:
    """The loops of a study that differ in nothing but the seed."""

    name: str
    """Of the registered model."""
    candidates: tuple[Candidate, ...]
    """In order of collapse, the fastest first."""

    @property
    def representative(self) -> Candidate:
        """The median seed; of an even number the lower one, which collapsed faster."""
        return self.candidates[(len(self.candidates) - 1) // 2]

    @property
    def choice(self) -> str:
        """Why it is this seed, in words."""
        seeds = ", ".join(str(candidate.config.seed) for candidate in self.candidates)
        if len(self.candidates) == 1:
            return f"the only finished seed, {seeds}"
        return (
            f"seed {self.representative.config.seed}, the (lower) median of {len(self.candidates)} seeds ordered by "
            f"half-life, then retention at the last generation: {seeds}"
        )


@dataclass(frozen=True)
class Found:
    """What a cell has for a stage: the generation that entered it first, or why there is no model."""

    stage: CollapseStage
    generation: Run | None
    """With its weights."""
    number: int = 0
    """Its t."""
    reason: str = ""


class Entry(NamedTuple):
    """What became of one alias, or of a whole cell (then without one)."""

    name: str
    alias: str
    version: str
    outcome: str


def registered_name(config: LoopConfig) -> str:
    """`ouroloop-<cycle>-<proportion>`, `-T<temperature>` added where it is not the usual 0.8.

    The proportion has two decimals, or all it needs to be told from its neighbours. Full synthetic is at
    1.00; balanced has no proportion, and its name none.
    """
    label = config.cycle.proportion_label
    name = f"ouroloop-{config.cycle.kind.value}"
    if label != "none":
        name += f"-{label if len(label.partition('.')[2]) > 2 else f'{float(label):.2f}'}"
    temperature = config.sampling.temperature
    return name if temperature == _USUAL_TEMPERATURE else f"{name}-T{temperature:g}"


def find_cells(store: Store, study: str) -> tuple[list[Cell], list[Entry]]:
    """The cells of a study or of a preset's lone loops with a finished loop, and what is left out, with why.

    Raises:
        ConfigError: there is no such study.
    """
    runs = store.find(level="loop", study=study)
    if not runs:
        raise ConfigError(f"no study or preset {study!r} has run; `ouroloop status` lists those that have")
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.status != "FINISHED"):  # stable: finished ones first, newest first
        newest.setdefault(run.tag("fingerprint") or run.id, run)
    groups: dict[str, dict[str, list[Candidate]]] = {}
    left_out = []
    for run in sorted(newest.values(), key=lambda run: -run.entity.info.start_time):
        name, config = str(run.entity.info.run_name), recorded_config(run)
        if config is None:
            left_out.append(Entry(name, "", "", "skipped: recorded by another version of ouroloop"))
        elif run.status != "FINISHED":
            left_out.append(Entry(name, "", "", f"skipped: the loop is not finished ({run.status})"))
        else:
            retention = {t: kept for t, kept in run.history(RETENTION) if t > 0}
            but_seed = config.model_copy(update={"seed": 0}).fingerprint()
            others = groups.setdefault(registered_name(config), {})
            others.setdefault(but_seed, []).append(Candidate(run, config, retention))
    cells = []
    for name, by_settings in sorted(groups.items()):
        newest_settings, *older = by_settings.values()
        left_out += [
            Entry(str(one.run.entity.info.run_name), "", "", f"skipped: newer loops with other settings are {name}")
            for candidates in older
            for one in candidates
        ]
        cells.append(Cell(name, tuple(sorted(newest_settings, key=_speed_of_collapse))))
    return cells, left_out


def _speed_of_collapse(candidate: Candidate) -> tuple[float, float, int]:
    life, last = half_life(candidate.retention), max(candidate.retention, default=0)
    return (
        float("inf") if life is None else life,
        candidate.retention.get(last, float("inf")),
        candidate.config.seed,
    )


def find_stages(cell: Cell) -> list[Found]:
    """For each stage the generation of the representative that entered it first."""
    chosen = cell.representative
    entered: dict[CollapseStage, int] = {}
    for number, kept in sorted(chosen.retention.items()):
        entered.setdefault(stage(kept, chosen.config.stages), number)
    children = chosen.run.store.find(level="generation", parent=chosen.run.id)
    by_number = {int(child.tag("generation") or 0): child for child in children if child.status == "FINISHED"}
    found = []
    for one in CollapseStage:
        t = entered.get(one)
        if t is None:
            reason = f"not reached by seed {chosen.config.seed} in {chosen.config.num_generations} generations"
            found.append(Found(one, None, reason=reason))
        elif t not in by_number or by_number[t].model_id is None:
            reason = f"the weights of M_{t} were not kept (keep_weights: {chosen.config.keep_weights})"
            found.append(Found(one, None, reason=reason))
        else:
            found.append(Found(one, by_number[t], t))
    return found


def register(store: Store, study: str) -> list[Entry]:
    """Registers what a study has, and says of each alias what became of it.

    Raises:
        ConfigError: there is no such study.
    """
    cells, left_out = find_cells(store, study)
    entries = []
    for cell in cells:
        found = find_stages(cell)
        if any(one.generation for one in found):
            registration = _Registration(store, study, cell)
            entries += [registration.stage(one) for one in found]
        else:
            entries += [Entry(cell.name, one.stage, "", f"skipped: {one.reason}") for one in found]
    return entries + left_out


class _Registration:
    """Brings one registered model to what its cell says."""

    def __init__(self, store: Store, study: str, cell: Cell) -> None:
        self._store, self._client, self._study, self._cell = store, store.client, study, cell
        self._ensure_model(cell.representative.config)
        versions = self._client.search_model_versions(f"name='{cell.name}'", max_results=1_000)
        self._by_source = {v.source: v for v in sorted(versions, key=lambda v: -int(v.version))}
        self._by_number = {str(v.version): v for v in versions}
        self._aliases = {a: str(v) for a, v in self._client.get_registered_model(cell.name).aliases.items()}

    def _ensure_model(self, config: LoopConfig) -> None:
        tags = cell_tags(config, self._study)
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
            return Entry(name, alias, "", f"failed: M_{found.number}: {str(error).splitlines()[0]}")
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
            self._make_loadable(generation.model_id, card)
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
            self._make_loadable(generation.model_id, card)
            self._client.update_model_version(self._cell.name, existing.version, card)
        return existing, bool(changed) or existing.description != card

    def _tags(self, stage: CollapseStage, generation: Run) -> dict[str, str]:
        config = self._cell.representative.config
        return {
            "study": self._study,
            "seed": str(config.seed),
            "generation": str(generation.tag("generation")),
            "stage": str(stage),
            "diversity_retention": f"{generation.metrics[RETENTION]:.6f}",
            "correctness": f"{generation.metrics['correctness']:.6f}",
            "criterion": criterion(config.stages),
            "representative": self._cell.choice,
        }

    def _card(self, stage: CollapseStage, generation: Run) -> str:
        chosen = self._cell.representative
        facts = {
            "criterion": criterion(chosen.config.stages),
            "represents its cell as": self._cell.choice,
            "study": f"{self._study}, loop run `{chosen.run.id}`, generation run `{generation.id}`",
            "logged model": f"`{generation.model_id}`",
            "code": f"ouroloop {chosen.run.tag('ouroloop_version')}, commit {generation.tag('commit')}",
        }
        number = int(generation.tag("generation") or 0)
        return model_card(
            self._cell.name,
            stage,
            number,
            chosen.config,
            facts=facts,
            mixture=generation.mixture,
            metrics=generation.metrics,
        )

    def _make_loadable(self, model_id: str, card: str) -> None:
        """Adds to the folder of a logged model what MLflow needs to load it, and its card."""
        location = self._client.get_logged_model(model_id).artifact_location
        with TemporaryDirectory() as aside:
            plain, tokenizer = (
                json.loads(self._store.download(f"{location}/{name}", Path(aside)).read_text())
                for name in ("config.json", "tokenizer_config.json")
            )
            folder = Path(aside) / "added"
            write_mlflow_model(folder, model_id, plain["architectures"][0], tokenizer["model_max_length"])
            (folder / "README.md").write_text(card, encoding="utf-8")
            self._client.log_model_artifacts(model_id, str(folder))


def write_mlflow_model(folder: Path, model_id: str, architecture: str, context_length: int) -> None:
    """The files that turn a plain transformers folder into an MLflow model, for its transformers flavour.

    Written here and not by `mlflow.transformers.save_model`: that one copies the weights, asks the hub
    for a card and a licence, and fails on a local folder with transformers 5.
    """
    tokenizer = build_tokenizer(context_length, continues=True)
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
