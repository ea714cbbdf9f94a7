"""The record: study -> loop -> generation as nested MLflow runs, found and created through one client."""

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import: nothing calls home
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # beyond that, `stores.patiently` waits

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import (
    Run as RunEntity,
)
from mlflow.entities import (
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from ouroloop.config import ConfigError
from ouroloop.errors import reason
from ouroloop.record import stores
from ouroloop.record.liveness import Steady
from ouroloop.record.run import Run
from ouroloop.record.urls import is_server, masked, sqlite_file

logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs no news, and errors are raised too

EXPERIMENT = "ouroloop"

_PAGE = 1_000  # runs that are read at once
_SMALL_PAGE = 50  # a run takes some 0.2 MB while it is read


class NoSuchRunError(LookupError):
    """A run that was deleted for good, or never was."""


@dataclass(frozen=True)
class Store:
    """The MLflow experiment of the project."""

    client: MlflowClient
    experiment_id: str

    @classmethod
    def open(cls) -> "Store":
        """Open the store, or create it; safe when several processes do so at once.

        Raises:
            ConfigError: the folder cannot be written, or the store cannot be opened.
        """
        stores.require_writable()
        uri = stores.tracking_uri()
        stores.require_reachable(uri)
        stores.require_own("MLflow")
        path = sqlite_file(uri)
        with FileLock(stores.runs_folder() / ".store.lock"):  # migrations of a fresh database race
            if path is not None and stores.is_missing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                stores.make_whole(path, _create_store)
            store = cls._opened(uri, create=True)
            assert store is not None
            return store

    @classmethod
    def _opened(cls, uri: str, create: bool = False) -> "Store | None":
        """The store; None where the experiment does not exist, and is not to be created."""
        try:
            client = cast(MlflowClient, Steady(MlflowClient(uri)))
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None and create:
                experiment = client.get_experiment(_create_experiment(uri))
                if path := sqlite_file(uri):
                    stores.log_ahead(path)
        except Exception as error:  # each kind of store raises its own
            raise ConfigError(masked(f"cannot open the MLflow store {uri}: {reason(error)}")) from None
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"the experiment {EXPERIMENT!r} was deleted from the MLflow store; to have it back: MLFLOW_TRACKING_URI"
                f"={masked(uri)} mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        return cls(client, experiment.experiment_id)

    @classmethod
    def found(cls) -> "Store | None":
        """Open the store to read from it, and create nothing; None where nothing has run yet.

        Raises:
            ConfigError: it cannot be opened.
        """
        if not stores.exists():
            return None
        uri = stores.tracking_uri()
        stores.require_reachable(uri)
        stores.require_own("MLflow")
        return cls._opened(stores.url_for_reading(uri))

    @classmethod
    def existing(cls) -> "Store":
        """Like `found`, but also raises ConfigError where nothing has run yet."""
        store = cls.found()
        if store is None:
            stores.require_store()
            raise ConfigError(f"nothing has run in {masked(stores.tracking_uri())} yet")
        return store

    @property
    def artifact_location(self) -> str:
        return str(self.client.get_experiment(self.experiment_id).artifact_location)

    def tag_experiment(self, key: str, value: str) -> None:
        self.client.set_experiment_tag(self.experiment_id, key, value)

    def find(self, **tags: str) -> list[Run]:
        """All runs with these `ouroloop.*` tags (`parent` stands for the parent run's id), newest first."""
        return self._runs(_with_tags(tags))

    def each(self, **tags: str) -> Iterator[Run]:
        """Like `find`, but one by one: a run that nobody keeps is freed when the next ones are read."""
        for entity in self._search(ViewType.ACTIVE_ONLY, _with_tags(tags), _SMALL_PAGE):
            yield Run(self, entity.info.run_id, entity)

    def _runs(self, query: str) -> list[Run]:
        return [Run(self, entity.info.run_id, entity) for entity in self._search(ViewType.ACTIVE_ONLY, query)]

    def one_loop_each(self, study: str) -> list[Run]:
        """One loop of each configuration of the study: the newest that finished or, where none did, the newest.

        For what takes a whole loop, such as a registry. A report is of the newest: who starts over wants to see that.
        """
        newest: dict[str, Run] = {}
        for run in sorted(self.find(level="loop", study=study), key=lambda run: run.status != "FINISHED"):  # stable
            newest.setdefault(run.tag("fingerprint") or run.id, run)
        return list(newest.values())

    def generations(self, loop: str) -> dict[int, Run]:
        """Of the loop with this id, by number and in their order: of several, one that finished, or else the newest."""
        newest_last = reversed(self.find(level="generation", parent=loop))
        found = {run.number: run for run in sorted(newest_last, key=lambda run: run.status == "FINISHED")}
        return dict(sorted(found.items()))

    def lone_loops(self) -> list[Run]:
        """The loops that belong to no study, newest first."""
        return self._runs("tags.`ouroloop.level` = 'loop' and tags.`mlflow.parentRunId` IS NULL")

    def unfinished_loops(self, study: str) -> list[Run]:
        return self._loops(study, "attributes.status != 'FINISHED'")

    def running_loops(self, study: str) -> list[Run]:
        return self._loops(study, "attributes.status = 'RUNNING'")

    def _loops(self, study: str, condition: str) -> list[Run]:
        return self._runs(
            f"tags.`ouroloop.level` = 'loop' and tags.`ouroloop.study` = {_quoted(study)} and {condition}"
        )

    def _search(self, view: int, query: str = "", size: int = _PAGE) -> Iterator[RunEntity]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], query, view, size, order_by=["attributes.start_time DESC"], page_token=token
            )
            token = page.token
            yield from page
            if not token:
                return

    def get(self, run_id: str) -> Run:
        """The run with this id. Raises NoSuchRunError."""
        try:
            return Run(self, run_id, self.client.get_run(run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the second: no id at all
                raise NoSuchRunError(f"no run {run_id}") from None
            raise

    def download(self, uri: str, folder: Path) -> Path:
        """An artifact, by its address, as a file or folder inside `folder`."""
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=stores.tracking_uri()))

    def running(self) -> list[Run]:
        """Every run that is RUNNING according to the record."""
        return self._runs("attributes.status = 'RUNNING'")

    def ancestry(self, run: Run, known: Mapping[str, Run]) -> tuple[Run, Run]:
        """The loop that a run belongs to (or a study's run itself), and the topmost run; the run where those are gone.

        `known` holds runs, by id, that need not be read again.
        """
        path = [run]
        while (parent := path[-1].parent_id) is not None:
            try:
                path.append(known.get(parent) or self.get(parent))
            except NoSuchRunError:  # deleted, and its rows collected
                break
        loops = [one for one in path if one.tag("level") != "generation"]
        return (loops or path)[0], path[-1]

    def deleted_artifacts(self, ended_before: float) -> list[str]:
        """URIs of artifacts and models of deleted runs and of deleted loops' generations, except registered ones.

        `ended_before` is in seconds since the epoch; a run that has not ended is left out.
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

    def create(self, name: str, parent: "Run | None", tags: Mapping[str, str]) -> Run:
        all_tags = {f"ouroloop.{key}": value for key, value in tags.items()}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent.id
        entity = self.client.create_run(self.experiment_id, run_name=name, tags=all_tags)
        return Run(self, entity.info.run_id, entity)


def schema() -> Path:
    """The file with the tables of an empty SQLite store, which MLflow takes seconds and some sixty migrations to make.

    There is none for an MLflow version that ouroloop was not tested with.
    """
    return Path(__file__).with_name(f"mlflow-{VERSION}.sql")


def _create_store(uri: str) -> None:
    path, tables = sqlite_file(uri), schema()
    if path is not None and tables.is_file():
        with closing(sqlite3.connect(path)) as database:
            database.executescript(tables.read_text())
    _create_experiment(uri)


def _create_experiment(uri: str) -> str:
    artifacts = None if is_server(uri) else (stores.runs_folder() / "artifacts").as_uri()
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(MlflowClient(uri).create_experiment(EXPERIMENT, artifacts, tags=tags))


def _with_tags(tags: Mapping[str, str]) -> str:
    keys = {key: "mlflow.parentRunId" if key == "parent" else f"ouroloop.{key}" for key in tags}
    return " and ".join(f"tags.`{keys[key]}` = {_quoted(value)}" for key, value in tags.items())


def _quoted(value: str) -> str:
    """A value quoted for MLflow's filters, which know two kinds of quotes and no way to escape one."""
    if "'" in value and '"' in value:
        raise ConfigError(f"{value}: a name may have ' or \" in it, not both")
    return f'"{value}"' if "'" in value else f"'{value}'"
