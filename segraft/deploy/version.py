"""A registered model as pods need it: where its files are, and what they must be."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from segraft.errors import UserError
from segraft.params import Deploy, Tracking

DEPLOYED = "deployed"
"""Alias of the version that was last rolled out, to all requests."""
CANARY = "canary"
"""Alias of the version that is being tried on some of the requests."""
FETCHED = ("s3", "gs", "hdfs")
"""Schemes of MLflow's artefact stores that KServe's storage initializer reads under the same name."""
HANDED_THROUGH = "mlflow-artifacts"
"""Scheme of what an MLflow server keeps and hands through itself."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: of the registered model.
        number: its version.
        alias: by which it was asked for; by number, `champion` if it is that, else "".
        sha256: digest of the model folder, as the server counts it.
        storage: URI of the model folder, as pods reach it.
    """

    name: str
    number: str
    alias: str
    sha256: str
    storage: str


def find(uri: str, deploy: Deploy, tracking: Tracking, storage: str = "") -> Version:
    """Resolve a model, verify its files, and find out where pods reach them.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        deploy: knows where an MLflow server keeps what it hands through.
        tracking: which registry.
        storage: URI of a copy of the model folder; empty: where the registry keeps it.

    Raises:
        UserError: no such model, a damaged one, or one that no pod can reach.
    """
    from segraft.registry import open_registered, resolve
    from segraft.registry.champion import CHAMPION
    from segraft.registry.versions import aliases
    from segraft.serving.stamp import folder_sha256
    from segraft.tracking import connect

    resolved = resolve(uri, tracking)
    name, _, number = resolved.removeprefix("models:/").partition("/")
    with connect(tracking) as tracker:
        source = tracker.client.get_model_version_download_uri(name, number)
        champion = aliases(tracker, name).get(CHAMPION)
    storage = storage or f"{reachable(source, resolved, deploy)}/data"
    with tempfile.TemporaryDirectory() as scratch:
        digest = folder_sha256(open_registered(resolved, tracking, Path(scratch)))
    alias = uri.partition("@")[2] or (CHAMPION if champion == number else "")
    return Version(name, number, alias, digest, storage)


def point(name: str, number: str, tracking: Tracking, alias: str = DEPLOYED) -> None:
    """Let an alias name a version of a registered model."""
    from segraft.tracking import connect

    with connect(tracking) as tracker:
        tracker.client.set_registered_model_alias(name, alias, number)


def drop(name: str, alias: str, tracking: Tracking) -> None:
    """Take an alias from a registered model, if it has it."""
    from segraft.registry.versions import aliases
    from segraft.tracking import connect

    with connect(tracking) as tracker:
        if alias in aliases(tracker, name):
            tracker.client.delete_registered_model_alias(name, alias)


def reachable(source: str, uri: str, deploy: Deploy) -> str:
    """Where pods find an artefact.

    Args:
        source: where MLflow says it is.
        uri: the model, for the message.
        deploy: knows where an MLflow server keeps what it hands through.

    Raises:
        UserError: nowhere.
    """
    place = urlparse(source)
    if place.scheme in FETCHED:
        return source.rstrip("/")
    if place.scheme == HANDED_THROUGH:
        if not deploy.artifacts:
            raise UserError(
                f"{uri}: the tracking server keeps it at {source}; set deploy.artifacts to where that is for pods, "
                "the server's --artifacts-destination, such as s3://mlflow"
            )
        return f"{deploy.artifacts.rstrip('/')}/{place.path.strip('/')}"
    raise UserError(
        f"{uri}: no pod can read {source}. Register it with a tracking server whose artefacts lie in an object store "
        "(tracking.uri; docs/cluster.md), or copy the model folder to one and name the place: --storage s3://…"
    )
