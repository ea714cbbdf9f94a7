"""The studies on record, for whoever only reads: without Optuna, where its database is a file.

Importing Optuna and opening its storage takes 1.3 s of processor time, and a thousand trials another 0.6 s; SQLite
itself takes milliseconds. So a file whose tables have the version that is known here is read directly, and any other
database through Optuna.
"""

import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from ouroloop.record import stores
from ouroloop.record.urls import sqlite_file
from ouroloop.study.task import Recorded, Told

_TABLES = "v3.2.0.a"  # Optuna's name for their version, the same since 2023


def recorded_studies() -> list[Recorded]:
    """Every study that was begun, by name; a store that is not there is not created.

    Raises:
        ConfigError: the store cannot be opened.
    """
    if stores.has_no_studies():
        return []
    path = sqlite_file(stores.optuna_url())
    found = None if path is None else _of_file(path)
    if found is not None:
        return [study for study in found if "config" in study.attributes]
    from ouroloop.study.trials import Trials

    return [trials.recorded() for trials in Trials.all()]


def _of_file(path: Path) -> list[Recorded] | None:
    """The studies in an SQLite file; None if it does not read as expected."""
    try:
        with closing(stores.for_reading(path)) as database:
            database.execute("BEGIN")  # one state of it, whoever writes meanwhile
            if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(_TABLES,)]:
                return None
            return _studies(database)
    except sqlite3.Error:
        return None


def _studies(database: sqlite3.Connection) -> list[Recorded]:
    def attributes(of: str) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        rows = database.execute(f"SELECT {of}_id, key, value_json FROM {of}_user_attributes")  # noqa: S608 - no input
        for number, key, value in rows:
            found[number][key] = json.loads(value)
        return found

    of_study, of_trial = attributes("study"), attributes("trial")
    values = dict(database.execute("SELECT trial_id, value FROM trial_values WHERE objective = 0"))
    intermediate: dict[int, dict[int, float]] = defaultdict(dict)
    query = "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values WHERE intermediate_value NOT NULL"
    for trial, step, value in database.execute(query):
        intermediate[trial][step] = value
    told: dict[int, list[Told]] = defaultdict(list)
    query = "SELECT study_id, trial_id, number, state FROM trials ORDER BY trial_id"
    for study, trial, number, state in database.execute(query):
        told[study].append(Told(number, state, of_trial[trial], values.get(trial), intermediate[trial]))
    names = database.execute("SELECT study_id, study_name FROM studies ORDER BY study_name")
    return [Recorded(name, of_study[study], told[study]) for study, name in names]
