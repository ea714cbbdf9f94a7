"""The record: study -> loop -> generation as nested MLflow runs, written and read through one client.

A generation counts as done when its run is FINISHED; that is written last, after its samples, model
and metrics, so a loop can be taken up again from the record alone. Writing a generation a second time
(after a kill) adds nothing that is there already.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import: nothing calls home
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the rest of the patience is ours

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import (
    Dataset as DatasetEntity,
)
from mlflow.entities import (
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.entities import (
    Run as RunEntity,
)
from mlflow.exceptions import MlflowException

from ouroloop.config import ConfigError
from ouroloop.record import stores
from ouroloop.record.liveness import Steady, Superseded
from ouroloop.science.cycle import Dataset, DatasetError
from ouroloop.science.metrics import Sample

logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its news are none, its errors are raised too

EXPERIMENT = "ouroloop"
_METRICS_PER_BATCH = 1_000  # MLflow refuses more
_TABLE_ROWS = 200
_NOTE = "mlflow.note.content"

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Points (step, value) of metrics, by key."""


@dataclass(frozen=True)
class Store:
    """The MLflow experiment of the project."""

    client: MlflowClient
    experiment_id: str

    @classmethod
    def open(cls) -> "Store":
        """Opens the store, or creates it; safe when several processes do so at once.

        Raises:
            ConfigError: the folder cannot be written, or the store cannot be opened.
        """
        stores.require_writable()
        uri = stores.tracking_uri()
        stores.require_reachable(uri)
        path = stores.sqlite_file(uri)
        with FileLock(stores.runs_folder() / ".store.lock"):  # migrations of a fresh database race
            # A whole one has at least MLflow's default experiment; who made one without it died over it
            if path is not None and (stores.is_missing(path) or stores.holds_nothing(path, "experiments")):
                path.parent.mkdir(parents=True, exist_ok=True)
                stores.make_whole(path, _create_experiment)
            return cls._opened(uri)

    @classmethod
    def _opened(cls, uri: str) -> "Store":
        try:
            client = cast(MlflowClient, Steady(MlflowClient(uri)))
            experiment = client.get_experiment_by_name(EXPERIMENT)
            number = _create_experiment(uri) if experiment is None else experiment.experiment_id
            path = stores.sqlite_file(uri)
            if experiment is None and path is not None:
                stores.log_ahead(path)
        except Exception as error:  # each kind of store raises its own
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(stores.masked(f"cannot open the MLflow store {uri}: {reason}")) from None
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"the experiment {EXPERIMENT!r} was deleted from the MLflow store; to have it back: "
                f"MLFLOW_TRACKING_URI={stores.masked(uri)} mlflow experiments restore --experiment-id {number}"
            )
        return cls(client, number)

    @classmethod
    def existing(cls) -> "Store":
        """Opens the store to read from it.

        Raises:
            ConfigError: there is none, or it cannot be opened.
        """
        path = stores.sqlite_file(stores.tracking_uri())
        if path is not None and stores.is_missing(path):
            raise ConfigError(f"no MLflow store at {path}; OUROLOOP_ROOT and MLFLOW_TRACKING_URI say where to look")
        return cls.open()

    @property
    def artifact_location(self) -> str:
        return str(self.client.get_experiment(self.experiment_id).artifact_location)

    def tag_experiment(self, key: str, value: str) -> None:
        self.client.set_experiment_tag(self.experiment_id, key, value)

    def find(self, **tags: str) -> list["Run"]:
        """All runs with these `ouroloop.*` tags (`parent` stands for the parent run's id), newest first."""
        keys = {key: "mlflow.parentRunId" if key == "parent" else f"ouroloop.{key}" for key in tags}
        query = " and ".join(f"tags.`{keys[key]}` = {_quoted(value)}" for key, value in tags.items())
        return self._runs(query)

    def _runs(self, query: str) -> list["Run"]:
        return [Run(self, entity.info.run_id, entity) for entity in self._search(ViewType.ACTIVE_ONLY, query)]

    def lone_loops(self) -> list["Run"]:
        """The loops that belong to no study, newest first."""
        return self._runs("tags.`ouroloop.level` = 'loop' and tags.`mlflow.parentRunId` IS NULL")

    def unfinished_loops(self, study: str) -> list["Run"]:
        return self._runs(
            f"tags.`ouroloop.level` = 'loop' and tags.`ouroloop.study` = {_quoted(study)} "
            "and attributes.status != 'FINISHED'"
        )

    def _search(self, view: int, query: str = "") -> list[RunEntity]:
        found: list[RunEntity] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], query, view, order_by=["attributes.start_time DESC"], page_token=token
            )
            found.extend(page)
            token = page.token
            if not token:
                return found

    def get(self, run_id: str) -> "Run":
        return Run(self, run_id, self.client.get_run(run_id))

    def download(self, uri: str, folder: Path) -> Path:
        """An artifact, by its address, as a file or folder inside `folder`."""
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=stores.tracking_uri()))

    def running(self) -> list["Run"]:
        """Every run that is RUNNING according to the record."""
        return self._runs("attributes.status = 'RUNNING'")

    def running_loops(self, study: str) -> list["Run"]:
        return self._runs(
            f"tags.`ouroloop.level` = 'loop' and tags.`ouroloop.study` = {_quoted(study)} "
            "and attributes.status = 'RUNNING'"
        )

    def ancestry(self, run: "Run", known: Mapping[str, "Run"]) -> tuple["Run", "Run"]:
        """The loop that a run belongs to (or a study's run itself), and what is above all; the run where that is gone.

        `known` are runs that need not be read again, by id.
        """
        path = [run]
        while (parent := path[-1].parent_id) is not None:
            try:
                path.append(known.get(parent) or self.get(parent))
            except MlflowException:  # deleted, and its rows collected
                break
        loops = [one for one in path if one.tag("level") != "generation"]
        return (loops or path)[0], path[-1]

    def deleted_artifacts(self, ended_before: float) -> list[str]:
        """URIs of the artifacts and models of deleted runs, and of the generations of deleted loops; none registered.

        `ended_before` is in seconds since the epoch; a run that has not ended has no part in it.
        """
        deleted = {run.info.run_id for run in self._search(ViewType.DELETED_ONLY)}
        versions = self.client.search_model_versions()
        registered = " ".join(f"{version.run_id} {version.source}" for version in versions)
        found = []
        for run in (Run(self, entity.info.run_id, entity) for entity in self._search(ViewType.ALL)):
            owner = run.parent_id if run.tag("level") == "generation" else None
            ended = run.entity.info.end_time
            if not deleted & {run.id, owner} or run.id in registered or not ended or ended / 1_000 >= ended_before:
                continue
            found.append(run.entity.info.artifact_uri)
            models = self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run.id}'")
            found += [model.artifact_location for model in models if model.model_id not in registered]
        return found

    def create(self, name: str, parent: "Run | None", tags: Mapping[str, str]) -> "Run":
        all_tags = {f"ouroloop.{key}": value for key, value in tags.items()}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent.id
        entity = self.client.create_run(self.experiment_id, run_name=name, tags=all_tags)
        return Run(self, entity.info.run_id, entity)


def _create_experiment(uri: str) -> str:
    artifacts = None if stores.is_server(uri) else (stores.runs_folder() / "artifacts").as_uri()
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(MlflowClient(uri).create_experiment(EXPERIMENT, artifacts, tags=tags))


def short_digest(dataset: Dataset) -> str:
    """What the UI shows to tell datasets apart."""
    return dataset.digest()[:12]


def _quoted(value: str) -> str:
    """A value as MLflow's filters spell it, which know two quotes and no way to escape one."""
    if "'" in value and '"' in value:
        raise ConfigError(f"{value}: a name may have ' or \" in it, not both")
    return f'"{value}"' if "'" in value else f"'{value}'"


@dataclass(frozen=True)
class Run:
    """One MLflow run. `entity` is what it was when it was read or created."""

    store: Store
    id: str
    entity: RunEntity

    @property
    def status(self) -> str:
        return str(self.entity.info.status)

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.entity.data.metrics)

    @property
    def steps(self) -> dict[str, int]:
        """The last step of each metric."""
        return {metric.key: metric.step for metric in self.entity.data.to_proto().metrics}

    @property
    def reached(self) -> int:
        """The last generation on a loop's record, 0 for D_0 alone."""
        return max((step for step, _ in self.history("correctness")), default=0)

    @property
    def parent_id(self) -> str | None:
        parent: str | None = self.entity.data.tags.get("mlflow.parentRunId")
        return parent

    @property
    def model_id(self) -> str | None:
        """The logged model of a generation, M_t; None when its weights were not kept."""
        outputs = self.entity.outputs.model_outputs if self.entity.outputs else []
        return str(outputs[-1].model_id) if outputs else None

    @property
    def note(self) -> str:
        """What `describe` said."""
        return str(self.entity.data.tags.get(_NOTE, ""))

    @property
    def mixture(self) -> dict[str, int]:
        """Of a generation's training set, examples by origin; empty before that is recorded."""
        inputs = self.entity.inputs.dataset_inputs if self.entity.inputs else []
        return dict(json.loads(inputs[0].dataset.profile or "{}").get("mixture", {})) if inputs else {}

    @property
    def training_set_digest(self) -> str | None:
        """`short_digest` of a generation's training set; None before that is recorded."""
        inputs = self.entity.inputs.dataset_inputs if self.entity.inputs else []
        return str(inputs[0].dataset.digest) if inputs else None

    def tag(self, key: str) -> str | None:
        value: str | None = self.entity.data.tags.get(f"ouroloop.{key}")
        return value

    @contextmanager
    def running(self) -> Iterator[None]:
        """The run is RUNNING inside, and afterwards FINISHED, KILLED (interrupted) or FAILED (an error)."""
        try:
            self.store.client.update_run(self.id, status="RUNNING")
            yield
        except Superseded:
            raise  # the run is another's now
        except BaseException as error:
            self.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.end("FINISHED")

    def end(self, status: str) -> None:
        self.store.client.set_terminated(self.id, status)

    def describe(self, markdown: str) -> None:
        """The text that the MLflow UI shows at the top of the run."""
        self.store.client.set_tag(self.id, _NOTE, markdown)

    def log_params(self, params: Mapping[str, Any]) -> None:
        entities = [Param(key, str(value)) for key, value in params.items()]
        self.store.client.log_batch(self.id, params=entities)

    def log_tags(self, **tags: str) -> None:
        entities = [RunTag(f"ouroloop.{key}", value) for key, value in tags.items()]
        self.store.client.log_batch(self.id, tags=entities)

    def log_series(self, series: Series, skip_existing: bool = False, note: str | None = None, **tags: str) -> None:
        """Metric points (step, value) by key, the finite ones; with `skip_existing`, only at new steps.

        Tags, and the text of `describe`, go along in the same write.
        """
        now = int(time.time() * 1000)
        points = []
        recorded = self.store.get(self.id).metrics.keys() if skip_existing else ()
        for key, values in series.items():
            known = {step for step, _ in self.history(key)} if key in recorded else set()
            wanted = [(step, value) for step, value in values if step not in known and math.isfinite(value)]
            points += [Metric(key, value, now, step) for step, value in wanted]
        entities = [RunTag(f"ouroloop.{key}", value) for key, value in tags.items()]
        entities += [] if note is None else [RunTag(_NOTE, note)]
        for start in range(0, max(len(points), 1), _METRICS_PER_BATCH):
            self.store.client.log_batch(self.id, metrics=points[start : start + _METRICS_PER_BATCH], tags=entities)

    def history(self, key: str) -> list[tuple[int, float]]:
        points = self.store.client.get_metric_history(self.id, key)
        return sorted((point.step, point.value) for point in points)

    def log_bytes(self, name: str, content: bytes) -> None:
        """An artifact; `name` may begin with a folder."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            self.store.client.log_artifact(self.id, str(path), str(Path(name).parent) if "/" in name else None)

    def log_tables(self, **tables: tuple[Sequence[str], Sequence[Sequence[Any]]]) -> None:
        """(columns, rows) by name: JSON artifacts that the UI shows as tables; written anew each time."""
        for name, (columns, rows) in tables.items():
            self.log_bytes(f"{name}.json", json.dumps({"columns": columns, "data": rows}).encode())
        logged = [{"path": f"{name}.json", "type": "table"} for name in tables]
        self.store.client.set_tag(self.id, "mlflow.loggedArtifacts", json.dumps(logged))

    def log_samples(self, sample: Sample) -> None:
        """The most frequent texts, and the depths of all, as tables that the UI shows."""
        rows = sample.most_frequent(_TABLE_ROWS)
        self.log_tables(
            depths=(["depth", "count"], sample.depth_counts()),
            samples=(["count", "share", "verdict", "depth", "expression"], rows),
        )

    def log_dataset(self, name: str, dataset: Dataset) -> None:
        """The dataset as an artifact with every example's provenance, and as an input with its mixture."""
        mixture = dataset.mixture()
        self.log_bytes("training_set.tsv.gz", dataset.to_bytes())
        entity = DatasetEntity(
            name=name,
            digest=short_digest(dataset),
            source_type="local",
            source=json.dumps({"uri": f"runs:/{self.id}/training_set.tsv.gz"}),
            schema=json.dumps({"mlflow_colspec": [{"name": n, "type": t} for n, t in _DATASET_COLUMNS]}),
            profile=json.dumps(
                {"num_rows": len(dataset), "synthetic_share": dataset.synthetic_share, "mixture": mixture}
            ),
        )
        inputs = DatasetInput(entity, [InputTag("mlflow.data.context", f"{dataset.synthetic_share:.0%} synthetic")])
        self.store.client.log_inputs(self.id, datasets=[inputs])

    def log_model(self, name: str, folder: Path, generation: int, tags: Mapping[str, str]) -> None:
        """A transformers folder as the logged model of this run; one left half-written is replaced."""
        client = self.store.client
        query = f"source_run_id = '{self.id}'"
        for old in client.search_logged_models([self.store.experiment_id], query):
            if old.status == LoggedModelStatus.READY:  # of an earlier attempt, and the same bit for bit
                return
            client.delete_logged_model(old.model_id)
        model = client.create_logged_model(
            self.store.experiment_id,
            name,
            self.id,
            {f"ouroloop.{k}": v for k, v in tags.items()},
            model_type="causal-lm",
        )
        client.log_model_artifacts(model.model_id, str(folder))
        client.log_outputs(self.id, [LoggedModelOutput(model.model_id, generation)])
        client.finalize_logged_model(model.model_id, "READY")

    def download_model(self, folder: Path) -> Path:
        """The logged model of this run, as a folder inside `folder`.

        Raises:
            DatasetError: there is none, or it is gone.
        """
        try:
            place = self.store.client.get_logged_model(self.model_id or "").artifact_location
            return self.store.download(place, folder)
        except Exception as error:  # each kind of store raises its own
            raise DatasetError(f"the model of run {self.id} cannot be read: {error}") from error

    def read_dataset(self, name: str) -> Dataset:
        """A dataset artifact of this run.

        Raises:
            DatasetError: it is missing or damaged.
        """
        with self._artifact(name) as path:
            return Dataset.read(path)

    def read_text(self, name: str) -> str:
        """A text artifact of this run.

        Raises:
            DatasetError: it is missing or not text.
        """
        try:
            return self.read_bytes(name).decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{name} of run {self.id} cannot be read: {error}") from error

    def read_bytes(self, name: str) -> bytes:
        """An artifact of this run.

        Raises:
            DatasetError: it is missing.
        """
        with self._artifact(name) as path:
            try:
                return path.read_bytes()
            except OSError as error:
                raise DatasetError(f"{name} of run {self.id} cannot be read: {error}") from error

    @contextmanager
    def _artifact(self, name: str) -> Iterator[Path]:
        """An artifact as a file: where it lies if that is on this machine, else a copy."""
        place = urlsplit(self.entity.info.artifact_uri)
        if place.scheme == "file":
            yield Path(url2pathname(place.path)) / name
            return
        with TemporaryDirectory() as folder:
            try:
                path = self.store.client.download_artifacts(self.id, name, folder)
            except Exception as error:  # each kind of artifact store raises its own
                raise DatasetError(f"{name} of run {self.id} cannot be read: {error}") from error
            yield Path(path)


_DATASET_COLUMNS = (("source", "string"), ("generation", "integer"), ("text", "string"))
