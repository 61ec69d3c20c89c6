"""The model registry: what is registered is data alone, and none of it is opened before it has been verified."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from segraft.checkpoint import ModelCard
    from segraft.params import Tracking


def open_registered(uri: str, tracking: Tracking, destination: Path) -> Path:
    """The model folder of `models:/NAME@ALIAS` or `models:/NAME/VERSION`, downloaded and verified; torch is not needed.

    Args:
        uri: which model.
        tracking: which store.
        destination: an empty folder.

    Raises:
        UserError: there is no such model, or it is not what was registered.
    """
    from segraft.registry.versions import aliases, fetch
    from segraft.tracking import connect

    match = re.fullmatch(r"models:/([\w.-]+)(?:@([\w-]+)|/(\d+))", uri)
    if not match:
        raise UserError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = match.groups()
    with connect(tracking) as tracker:
        from mlflow.exceptions import MlflowException

        try:
            version = aliases(tracker, name)[alias] if alias else version
            return fetch(tracker, name, version, destination)
        except KeyError:
            raise UserError(f"{uri}: {name} has no alias {alias}") from None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UserError(f"{uri}: not in the registry") from None


def load_registered(uri: str, tracking: Tracking) -> tuple[nn.Module, ModelCard]:
    """`open_registered`, and the network in it, on the CPU and in eval mode."""
    from segraft.checkpoint import load_model

    with tempfile.TemporaryDirectory() as scratch:
        return load_model(open_registered(uri, tracking, Path(scratch)))
