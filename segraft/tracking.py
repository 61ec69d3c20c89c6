"""MLflow behind one small door: `connect` opens a store, and `Tracker.log` writes a whole run.

Everything is logged after the fact, from files, so training never waits for a server. What is written twice is there
once: runs are found again by their key, and points carry the time at which they were measured, so a killed or refused
log is finished by saying it again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import posixpath
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segraft.errors import UserError
from segraft.params import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

BATCH, PARAM_BATCH = 1000, 100
"""Most metrics and params that MLflow takes in one call."""
DIGEST = 36
"""Longest digest of a dataset; DVC's md5 of a folder has just this length."""
KEY, STEP = "segraft.key", "segraft.step"
SQLITE, ARTIFACTS = "sqlite:///", "mlartifacts"
STORES = re.compile(r"(sqlite|mysql|postgresql|mssql)(\+\w+)?://|https?://|databricks")
"""What MLflow keeps a registry in: a folder is none any more."""


class TrackingUnavailable(UserError):
    """The server did not answer, or refused."""


class Point(NamedTuple):
    """One measured value; `time` in seconds since the epoch."""

    name: str
    value: float
    step: int
    time: float


@dataclass(frozen=True)
class DatasetVersion:
    """What a run read."""

    name: str
    digest: str
    uri: str
    context: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All that is logged of one run."""

    name: str
    key: str
    """the run is known by it: the same key is the same run"""
    started: float
    ended: float
    params: Mapping[str, Any] = field(default_factory=dict)
    points: Sequence[Point] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    datasets: Sequence[DatasetVersion] = ()


@dataclass(frozen=True)
class Tracker:
    """An open store."""

    client: MlflowClient
    experiment: str
    uri: str

    def log(self, record: Record, parent: str | None = None) -> str:
        """Write a run, or what is missing of it; returns its id."""
        run = self._find(record.key) or self._create(record, parent)
        for path in record.artifacts:
            self.client.log_artifact(run.info.run_id, str(path))
        if run.info.status != "FINISHED":
            self._fill(run.info.run_id, record)
        return str(run.info.run_id)

    def _find(self, key: str) -> Any:
        runs = self.client.search_runs([self.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        return next(iter(runs), None)

    def _create(self, record: Record, parent: str | None) -> Any:
        tags = {KEY: record.key, STEP: record.name, "mlflow.source.type": "PIPELINE", **record.tags}
        if parent:
            tags["mlflow.parentRunId"] = parent
        return self.client.create_run(self.experiment, _milliseconds(record.started), tags, record.name)

    def _fill(self, run: str, record: Record) -> None:
        from mlflow.entities import Metric, Param

        flat = [Param(_allowed(name), str(value)) for name, value in flatten(record.params).items()]
        points = [Metric(_allowed(p.name), p.value, _milliseconds(p.time), p.step) for p in record.points]
        for start in range(0, len(flat), PARAM_BATCH):
            self.client.log_batch(run, params=flat[start : start + PARAM_BATCH])
        for start in range(0, len(points), BATCH):
            self.client.log_batch(run, metrics=points[start : start + BATCH])
        if record.datasets:
            self.client.log_inputs(run, [_as_input(dataset) for dataset in record.datasets])
        self.client.set_terminated(run, "FINISHED", _milliseconds(record.ended))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _allowed(name: str) -> str:
    """MLflow's names have few signs, and must be paths in their shortest form; those of classes may be anything."""
    allowed = re.sub(r"[^\w\-. /]", "_", name)
    return allowed if posixpath.normpath(allowed) == allowed else allowed.replace("/", "_")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _as_input(dataset: DatasetVersion) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps(dict(dataset.facts))
    source = json.dumps({"uri": dataset.uri})
    entity = Dataset(dataset.name, dataset.digest[:DIGEST], "local", source, profile=profile)
    return DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])


@contextmanager
def connect(tracking: Tracking) -> Iterator[Tracker]:
    """Open the store that `tracking` names; a local one is held alone until the block ends.

    Raises:
        TrackingUnavailable: a server does not answer within the timeout, or refuses; also in the middle of the block.
        UserError: a local store is broken or was moved, or it is none that MLflow keeps a registry in.
    """
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "") or f"{SQLITE}mlflow.db"
    if not STORES.match(uri):
        raise UserError(
            f"tracking.uri: {without_password(uri)}: expected sqlite:///FILE, or http(s)://SERVER of MLflow's"
        )
    local = Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
    if local and (odd := sorted({"%", "?"} & set(str(local)))):
        raise UserError(
            f"tracking.uri: {local}: MLflow keeps no store at a path with {' and '.join(odd)}; name a file elsewhere, "
            "such as sqlite:////home/me/mlflow.db"
        )
    if local:
        uri = f"{SQLITE}{local}"
    prepare_environment(tracking.timeout)
    with _alone(local):
        try:
            yield _open(uri, tracking.experiment, local)
        except Exception as error:
            if why := _outage(error):
                kind = UserError if local else TrackingUnavailable
                raise kind(f"MLflow at {without_password(uri)}: {why}") from error
            raise


def prepare_environment(timeout: float) -> None:
    """What MLflow reads from the environment: no telemetry, no pickle, and calls that end (its default is 247 s)."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(math.ceil(timeout))


def without_password(uri: str) -> str:
    """A URI that may be shown."""
    return re.sub(r"//[^@/]*@", "//***@", uri)


@contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """Two processes that make one fresh database at once break it, and neither sees what the other is about to log."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open(uri: str, experiment: str, local: Path | None) -> Tracker:
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    if local:
        _probe(local) if local.exists() else _create(local)
    client = MlflowClient(uri, uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        location = str(local.with_name(ARTIFACTS)) if local else None
        return Tracker(client, client.create_experiment(experiment, location), uri)
    if found.lifecycle_stage != "active":
        raise UserError(f"tracking.experiment: {experiment!r} was deleted in MLflow; restore it there or name another")
    if local and _moved(Path(found.artifact_location), local):
        raise UserError(
            f"{local}: keeps its artefacts in {found.artifact_location}, where it was made: move it back there, or "
            "move it away, and a new one is made here"
        )
    return Tracker(client, found.experiment_id, uri)


def _moved(artifacts: Path, database: Path) -> bool:
    """Whether a database that `connect` made lies in another folder now: MLflow's paths of artefacts are absolute."""
    return artifacts.name == ARTIFACTS and artifacts.parent.resolve() != database.parent.resolve()


def _create(database: Path) -> None:
    """MLflow makes its tables in a hundred steps, and a database that a kill left between two of them stays broken."""
    from mlflow import MlflowClient

    fresh = database.with_name(f"{database.name}.new")
    fresh.unlink(missing_ok=True)
    MlflowClient(f"{SQLITE}{fresh}", f"{SQLITE}{fresh}").search_experiments(max_results=1)
    os.replace(fresh, database)


def _probe(database: Path) -> None:
    """MLflow tries a broken database for 100 s before it says so."""
    try:
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        raise UserError(f"{database}: {error}; move it away, and a new one is made") from None


def _outage(error: Exception) -> str:
    """Why the store is not there, in one line; empty if the error is of another kind."""
    from mlflow.exceptions import MlflowException

    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__.partition(".")[0] in ("requests", "urllib3", "botocore", "sqlalchemy"):
            return f"{type(cause).__name__}: {_one_line(cause)}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        if status >= 500 or status in (401, 403, 404, 405, 429):
            return f"refused with {status}: {_one_line(error)}"
    return ""


def _one_line(error: BaseException) -> str:
    return without_password(" ".join(str(error).split()))[:300]
