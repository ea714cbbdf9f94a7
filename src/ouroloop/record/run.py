"""One run of the record: what is written to it and read from it, through MLflow's client.

A generation counts as done when its run is FINISHED; that is written last, after its samples, model
and metrics, so a loop can be taken up again from the record alone. Writing a generation a second time,
because its samples are lost, adds nothing that is there already.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlflow.entities import (
    Dataset as DatasetEntity,
)
from mlflow.entities import (
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunData,
    RunTag,
)
from mlflow.entities import (
    Run as RunEntity,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from ouroloop.plain import visible
from ouroloop.record import stores
from ouroloop.record.liveness import Superseded, held
from ouroloop.record.urls import local_path
from ouroloop.science.dataset import Dataset, DatasetError
from ouroloop.science.metrics import ALWAYS
from ouroloop.testbed.base import Sample

if TYPE_CHECKING:
    from ouroloop.record.track import Store

_METRICS_PER_BATCH = 1_000  # MLflow refuses more
_TABLE_ROWS = 200
_WEIGHTS = "weights"
_NOTE = "mlflow.note.content"
_TABLES = "mlflow.loggedArtifacts"
_DATASET_COLUMNS = (("source", "string"), ("generation", "integer"), ("text", "string"))

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Points (step, value) of metrics, by key."""

Tables = Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
"""(columns, rows) by name."""


def sample_tables(sample: Sample) -> Tables:
    """The most frequent texts, each followed by what is said of it, and the counts of all by class, such as depth."""
    testbed = sample.testbed
    columns = [testbed.columns[-1], "count", "share", *testbed.columns[:-1]]
    rows = [(row[-1], *row[:-1]) for row in sample.most_frequent(_TABLE_ROWS)]
    tally = testbed.tally(sample)
    return {"samples": (columns, rows), **({"depths": (["depth", "count"], tally)} if tally else {})}


def dataset_table(dataset: Dataset) -> Tables:
    """The origins of a training set."""
    origins = [(origin, count, count / len(dataset)) for origin, count in dataset.mixture().items()]
    return {"training_set": (["origin", "examples", "share"], origins)}


def table_files(tables: Tables) -> dict[str, bytes]:
    """The tables as artifacts, which the UI shows as tables once a tag says so."""
    return {f"{name}.json": json.dumps({"columns": c, "data": rows}).encode() for name, (c, rows) in tables.items()}


def _delete_artifacts(place: str, path: str | None = None) -> None:
    repository: Any = get_artifact_repository(place, tracking_uri=stores.tracking_uri())
    repository.delete_artifacts(path)


def _listed(tables: Iterable[str]) -> list[dict[str, str]]:
    return [{"path": f"{name}.json", "type": "table"} for name in tables]


@dataclass(frozen=True)
class Run:
    """One MLflow run. `entity` is what it was when it was read or created."""

    store: "Store"
    id: str
    entity: RunEntity

    @property
    def name(self) -> str:
        """Its name, with hidden characters spelled out: anybody can edit it."""
        return visible(str(self.entity.info.run_name))

    @property
    def status(self) -> str:
        return str(self.entity.info.status)

    @property
    def is_pruned(self) -> bool:
        """Whether a search ended it, because nothing depended on it any more."""
        return self.status == "KILLED" and self.tag("pruned") == "yes"

    @property
    def is_active(self) -> bool:
        """Whether nobody has deleted it in the UI."""
        return bool(self.entity.info.lifecycle_stage == "active")

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
        return max((step for step, _ in self.history(ALWAYS)), default=0)

    @property
    def parent_id(self) -> str | None:
        parent: str | None = self.entity.data.tags.get("mlflow.parentRunId")
        return parent

    @property
    def model_id(self) -> str | None:
        """The logged model of a generation, M_t; None when its weights were not kept."""
        outputs = self.entity.outputs.model_outputs if self.entity.outputs else []
        return str(outputs[-1].model_id) if outputs else None

    def value(self, key: str) -> float | None:
        """The number in one of our own tags, which anybody can edit; None if it is not a finite one."""
        try:
            number = float(self.tag(key) or "")
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    @property
    def number(self) -> int:
        """The t of a generation; 0 where its tag is no whole number."""
        label = self.tag("generation") or ""
        return int(label) if label.isdecimal() else 0

    @property
    def mixture(self) -> dict[str, int]:
        """How many examples of a generation's training set have each origin; empty before that is recorded."""
        inputs = self.entity.inputs.dataset_inputs if self.entity.inputs else []
        return dict(json.loads(inputs[0].dataset.profile or "{}").get("mixture", {})) if inputs else {}

    def narrowed(self, metrics: Collection[str]) -> "Run":
        """The run with only our own tags and these metrics, for whoever keeps many: it takes a tenth of the memory."""
        data = self.entity.data
        kept = [Metric.from_proto(metric) for metric in data.to_proto().metrics if metric.key in metrics]
        tags = [RunTag(key, value) for key, value in data.tags.items() if key.startswith("ouroloop.")]
        return Run(self.store, self.id, RunEntity(self.entity.info, RunData(kept, tags=tags)))

    def tag(self, key: str) -> str | None:
        """One of our own tags, with hidden characters spelled out."""
        value: str | None = self.entity.data.tags.get(f"ouroloop.{key}")
        return None if value is None else visible(value)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The run is RUNNING inside, and afterwards FINISHED, KILLED (interrupted) or FAILED (an error)."""
        try:
            if self.status != "RUNNING":  # a run just created is RUNNING already
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

    def log_series(
        self,
        series: Series,
        skip_existing: bool = False,
        note: str | None = None,
        tables: Iterable[str] = (),
        **tags: str,
    ) -> None:
        """Log metric points (step, value) by key, the finite ones; with `skip_existing`, only at new steps.

        Tags, `note` (the text of `describe`) and `tables` (the names of all its tables) go along in the same write.
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
        entities += [RunTag(_TABLES, json.dumps(listed))] if (listed := _listed(tables)) else []
        for start in range(0, max(len(points), 1), _METRICS_PER_BATCH):
            self.store.client.log_batch(self.id, metrics=points[start : start + _METRICS_PER_BATCH], tags=entities)

    def history(self, key: str) -> list[tuple[int, float]]:
        points = self.store.client.get_metric_history(self.id, key)
        return sorted((point.step, point.value) for point in points)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Log artifacts, all in one go; a name may begin with a folder."""
        own = local_path(self.entity.info.artifact_uri)  # MLflow's client would read the run first, and copy
        with nullcontext() if own else TemporaryDirectory() as aside, held():
            for name, content in files.items():
                path = (own or Path(str(aside))) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if aside:
                self.store.client.log_artifacts(self.id, aside)

    def log_bytes(self, name: str, content: bytes) -> None:
        """Log an artifact; `name` may begin with a folder."""
        self.log_files({name: content})

    def log_tables(self, tables: Tables) -> None:
        """Log artifacts that the UI shows as tables, beside those already there; the same name is overwritten."""
        self.log_files(table_files(tables))
        before = json.loads(self.store.get(self.id).entity.data.tags.get(_TABLES, "[]"))
        logged = _listed(tables)
        self.store.client.set_tag(
            self.id, _TABLES, json.dumps([*(one for one in before if one not in logged), *logged])
        )

    def log_input(self, name: str, dataset: Dataset) -> None:
        """Log the dataset, which is the artifact `training_set.tsv.gz`, as an input of the run."""
        entity = DatasetEntity(
            name=name,
            digest=dataset.digest()[:12],  # what the UI shows to tell datasets apart
            source_type="local",
            source=json.dumps({"uri": f"runs:/{self.id}/training_set.tsv.gz"}),
            schema=json.dumps({"mlflow_colspec": [{"name": n, "type": t} for n, t in _DATASET_COLUMNS]}),
            profile=json.dumps(
                {"num_rows": len(dataset), "synthetic_share": dataset.synthetic_share, "mixture": dataset.mixture()}
            ),
        )
        inputs = DatasetInput(entity, [InputTag("mlflow.data.context", f"{dataset.synthetic_share:.0%} synthetic")])
        self.store.client.log_inputs(self.id, datasets=[inputs])

    def log_model(self, name: str, folder: Path, generation: int) -> None:
        """Log a transformers folder as the model of this run, unless it has one: an earlier attempt's, bit for bit.

        Only a complete one becomes the run's output: MLflow gives outputs in no order, and takes none back.
        """
        if self.model_id is not None:
            return
        client = self.store.client
        model = client.create_logged_model(
            self.store.experiment_id,
            name,
            self.id,
            {"ouroloop.generation": str(generation)},
            model_type="causal-lm",
        )
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(self.id, [LoggedModelOutput(model.model_id, generation)])

    def discard(self) -> bool:
        """Delete the run, its files and its models; False where the server lets us write runs and not delete any."""
        client = self.store.client
        if self.status == "RUNNING":
            self.end("KILLED")
        try:
            client.delete_run(self.id)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
            return False
        places = [str(self.entity.info.artifact_uri)]
        for model in client.search_logged_models([self.store.experiment_id], f"source_run_id = '{self.id}'"):
            client.delete_logged_model(model.model_id)  # else the UI would go on listing it
            places.append(str(model.artifact_location))
        for place in places:
            _delete_artifacts(place)
        return True

    def save_model(self, folder: Path) -> None:
        """Copy the logged model of this run into a folder.

        Raises:
            DatasetError: there is none, or it is gone.
        """
        try:
            place = self.store.client.get_logged_model(self.model_id or "").artifact_location
            with TemporaryDirectory() as aside:
                shutil.copytree(self.store.download(place, Path(aside)), folder, dirs_exist_ok=True)
        except Exception as error:  # each kind of store raises its own
            raise DatasetError(f"the model of run {self.id} cannot be read: {error}") from error

    def log_weights(self, save: Callable[[Path], object]) -> None:
        """Keep M_t for later generations of its loop, until `drop_weights`: as artifacts, not as a logged model."""
        with TemporaryDirectory() as folder:
            save(Path(folder))
            self.store.client.log_artifacts(self.id, folder, _WEIGHTS)

    def save_weights(self, folder: Path) -> None:
        """Copy M_t into a folder, whichever way it is on record.

        Raises:
            DatasetError: it is not on record, or is gone.
        """
        if self.model_id is not None:
            return self.save_model(folder)
        try:
            with TemporaryDirectory() as aside:
                found = self.store.download(f"{self.entity.info.artifact_uri}/{_WEIGHTS}", Path(aside))
                shutil.copytree(found, folder, dirs_exist_ok=True)
        except Exception as error:  # each kind of store raises its own
            raise DatasetError(f"the weights of run {self.id} cannot be read: {error}") from error

    def drop_weights(self) -> None:
        """Delete what `log_weights` left, if anything."""
        _delete_artifacts(str(self.entity.info.artifact_uri), _WEIGHTS)

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
        with self._artifact(name) as path:
            return path.read_bytes().decode()

    def read_bytes(self, name: str) -> bytes:
        """An artifact of this run.

        Raises:
            DatasetError: it is missing.
        """
        with self._artifact(name) as path:
            return path.read_bytes()

    @contextmanager
    def _artifact(self, name: str) -> Iterator[Path]:
        """An artifact as a file: where it lies if that is on this machine, else a copy. Raises DatasetError."""
        own = local_path(self.entity.info.artifact_uri)
        try:
            with nullcontext() if own else TemporaryDirectory() as aside:
                yield own / name if own else Path(self.store.client.download_artifacts(self.id, name, aside))
        except DatasetError:
            raise
        except Exception as error:  # each kind of artifact store raises its own
            raise DatasetError(f"{name} of run {self.id} cannot be read: {error}") from error
