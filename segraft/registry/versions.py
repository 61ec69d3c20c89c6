"""Model versions: made once for each content, and verified whenever they are fetched.

The seal of an artefact (see `segraft.integrity`) is a tag of its version, so whoever can write to the artefact store
alone can replace nothing unseen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from segraft.errors import UserError
from segraft.registry.artifact import verify_artifact

if TYPE_CHECKING:
    from segraft.tracking import Tracker

SEAL, CHALLENGER = "sha256", "challenger"


def publish(tracker: Tracker, name: str, run: str, artifact: Path, digest: str, tags: Mapping[str, str]) -> str:
    """Register a packed artefact under `name`, unless it is; returns its version, which becomes the challenger.

    A version is made only after what was uploaded has been fetched back and verified, so a kill at any point leaves no
    half of one, and the next call goes on.

    Args:
        tracker: an open store.
        name: of the registered model.
        run: id of the run that the artefact is uploaded to.
        artifact: the packed folder.
        digest: its seal.
        tags: of the version.

    Raises:
        UserError: what lies in the artefact store is not what was uploaded, now or when the version was made.
    """
    client = tracker.client
    _ensure_name(tracker, name)
    found = client.search_model_versions(f"name = '{name}' and tag.{SEAL} = '{digest}'")
    with tempfile.TemporaryDirectory() as scratch:
        if found:
            fetch(tracker, name, found[0].version, Path(scratch))
        else:
            source = _upload(tracker, run, artifact, digest)
            _fetch(tracker, source, digest, Path(scratch))
    version = found[0] if found else client.create_model_version(name, source, run, {SEAL: digest, **tags})
    for key in (key for key, value in tags.items() if version.tags.get(key) != value):
        client.set_model_version_tag(name, version.version, key, tags[key])
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return str(version.version)


def _upload(tracker: Tracker, run: str, artifact: Path, digest: str) -> str:
    """Put an artefact where no other content ever overwrites it; returns the URI."""
    place = f"model-{digest[:12]}"
    tracker.client.log_artifacts(run, str(artifact), place)
    return f"{tracker.client.get_run(run).info.artifact_uri}/{place}"


def _ensure_name(tracker: Tracker, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracker.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def aliases(tracker: Tracker, name: str) -> dict[str, str]:
    """Alias → version of a registered model."""
    return {alias: str(version) for alias, version in tracker.client.get_registered_model(name).aliases.items()}


def fetch(tracker: Tracker, name: str, version: str, destination: Path) -> Path:
    """Download a model version into an empty folder and verify it; returns its model folder. No torch is needed.

    Raises:
        UserError: the version has no seal, or its artefact is not what was registered.
    """
    digest = tracker.client.get_model_version(name, version).tags.get(SEAL)
    if not digest:
        raise UserError(f"models:/{name}/{version}: has no tag {SEAL}: segraft did not register it; register it anew")
    try:
        return _fetch(tracker, tracker.client.get_model_version_download_uri(name, version), digest, destination)
    except UserError as error:
        raise UserError(
            f"models:/{name}/{version}: refused: {error}; delete that version and register the model again"
        ) from None


def _fetch(tracker: Tracker, source: str, digest: str, destination: Path) -> Path:
    """Copy an artefact and verify the copy.

    A local store is verified in place as well, for copying follows links and waits for pipes.
    """
    from mlflow.artifacts import download_artifacts

    scheme = urlparse(source).scheme
    if scheme in ("", "file"):  # a plain path is no URL: its # and % are part of names
        verify_artifact(Path(url2pathname(urlparse(source).path) if scheme else source), digest)
    copy = Path(download_artifacts(artifact_uri=source, dst_path=str(destination), tracking_uri=tracker.uri))
    verify_artifact(copy, digest)
    return copy / "data"
