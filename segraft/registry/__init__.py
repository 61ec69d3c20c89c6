"""The model registry: what is registered is data alone, and none of it is opened before it has been verified."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from segraft.checkpoint import ModelCard
    from segraft.params import Tracking
    from segraft.tracking import Tracker


def open_registered(uri: str, tracking: Tracking, destination: Path) -> Path:
    """The model folder of `models:/NAME@ALIAS` or `models:/NAME/VERSION`, downloaded and verified; torch is not needed.

    Args:
        uri: which model.
        tracking: which store.
        destination: an empty folder.

    Raises:
        UserError: there is no such model, or it is not what was registered.
    """
    from segraft.registry.versions import fetch
    from segraft.tracking import connect

    match = _parse(uri)
    with connect(tracking) as tracker, _no_such_model(uri):
        return fetch(tracker, match[1], _version(match, tracker), destination)


def resolve(uri: str, tracking: Tracking) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION`: an alias moves, a version stays what it is.

    Raises:
        UserError: there is no such model or alias.
    """
    from segraft.tracking import connect

    match = _parse(uri)
    with connect(tracking) as tracker, _no_such_model(uri):
        return f"models:/{match[1]}/{_version(match, tracker)}"


def _parse(uri: str) -> re.Match[str]:
    """Name, alias or None, version or None; 01 is the version 1, which is how everything else calls it."""
    match = re.fullmatch(r"models:/([\w.-]+)(?:@([\w-]+)|/0*([0-9]{1,18}))", uri)
    if not match:
        raise UserError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return match


def _version(match: re.Match[str], tracker: Tracker) -> str:
    from segraft.registry.versions import aliases

    name, alias, version = match.groups()
    if version:
        return str(version)
    try:
        return aliases(tracker, name)[alias]
    except KeyError:
        raise UserError(f"{match[0]}: {name} has no alias {alias}") from None


@contextmanager
def _no_such_model(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"{uri}: not in the registry") from None


def load_registered(uri: str, tracking: Tracking) -> tuple[nn.Module, ModelCard]:
    """`open_registered`, and the network in it, on the CPU and in eval mode."""
    from segraft.checkpoint import load_model

    with tempfile.TemporaryDirectory() as scratch:
        return load_model(open_registered(uri, tracking, Path(scratch)))
