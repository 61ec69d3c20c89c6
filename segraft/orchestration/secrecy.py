"""What is written for a cluster (a pipeline, an Experiment) is read by many: no password may be in it."""

from __future__ import annotations

from urllib.parse import urlsplit

from segraft.errors import UserError
from segraft.params import Params
from segraft.tracking import flatten, without_password


def refuse_passwords(params: Params) -> None:
    """Make sure that no URL among the knobs names more than a place.

    Raises:
        UserError: one holds a password, or what may be a token in a user's place.
    """
    for key, value in flatten(params.model_dump(mode="json", by_alias=True)).items():
        if isinstance(value, str) and "://" in value and _holds_a_secret(value):
            raise UserError(
                f"{key}: {without_password(value)}: who may read the pipeline would read the password; leave it out "
                "and hand it over by cluster.secrets (for MLflow MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
            )


def _holds_a_secret(url: str) -> bool:
    """A user alone is none (ssh://git@…), but for the web, where a token may stand in its place."""
    parts = urlsplit(url)
    return parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https"))
