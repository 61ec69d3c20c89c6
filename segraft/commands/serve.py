"""Serve a model at a KServe endpoint: V1, V2, gRPC and plain image files. See docs/serving.md.

MODEL is a model folder, or models:/NAME@ALIAS or models:/NAME/VERSION of the registry.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError

if TYPE_CHECKING:
    from segraft.params import Params, Tracking
    from segraft.serving.stamp import Stamp

MOUNTED = "/mnt/models"
"""Where KServe mounts what `storageUri` names."""
VERSION, SHA256 = "SEGRAFT_MODEL_VERSION", "SEGRAFT_MODEL_SHA256"
"""Environment: the registered version of a mounted folder, and what its digest must be; `segraft deploy` sets both."""
PREFIX = "SEGRAFT_SERVE_"
KUBERNETES = (
    re.compile(r"(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)"),
    ("tcp://", "udp://", "sctp://"),
)
"""Names and values of what Kubernetes sets behind that prefix when there is a Service called segraft-serve, or
segraft-serve-predictor."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft serve`."""
    parser.add_argument("model", nargs="?", default=MOUNTED, help=f"folder, or models:/NAME@ALIAS ({MOUNTED})")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    version = os.environ.get(VERSION, "")
    parser.add_argument("--model-version", default=version, help="of a folder: its registered version, for the header")


def main(args: argparse.Namespace) -> None:
    """Load the model, serve it until SIGTERM, and drain."""
    from segraft.params import load_params
    from segraft.serving.logs import configure

    params = load_params(args.params, [*from_environment(os.environ), *args.set])
    sys.argv = sys.argv[:1]  # kserve parses it on import
    configure()
    with tempfile.TemporaryDirectory() as scratch:
        folder, version = find_model(args.model, args.model_version, params, Path(scratch))
        serve(folder, version, params)


def serve(folder: Path, version: str, params: Params) -> None:
    """Serve a model folder until SIGTERM."""
    from segraft.serving.model import SegmentationModel
    from segraft.serving.runtime import open_runtime
    from segraft.serving.server import Server

    settings = params.serve
    stamp = identify(folder, settings.name, version, os.environ.get(SHA256, ""))
    model = SegmentationModel(settings, folder, lambda: open_runtime(folder, settings.runtime, settings.threads), stamp)
    model.load()
    Server(model).run()


def identify(folder: Path, name: str, version: str, expected: str) -> Stamp:
    """The stamp of a model folder.

    Raises:
        UserError: its digest is not the expected one ("": any is).
    """
    from segraft.serving.stamp import Stamp, folder_sha256

    found = folder_sha256(folder)
    if expected and found != expected:
        raise UserError(
            f"{folder}: its sha256 is {found}, not {expected} as deployed: replaced or damaged; deploy anew"
        )
    return Stamp(name, version, found)


def find_model(model: str, version: str, params: Params, scratch: Path) -> tuple[Path, str]:
    """The folder of a model, and its registered version ("" if it is not known).

    Raises:
        UserError: there is no such model.
    """
    if model.startswith("models:"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            fetched = child.submit(_fetch, model, params.tracking, scratch)
            import segraft.serving.server  # noqa: F401  # meanwhile

            return fetched.result()
    if not Path(model).is_dir():
        raise UserError(f"{model}: no such folder; give a model folder, or models:/NAME@champion")
    return Path(model), version


def _fetch(uri: str, tracking: Tracking, scratch: Path) -> tuple[Path, str]:
    """Runs in a process of its own: what serves has no use for MLflow in its memory."""
    from segraft.registry import open_registered, resolve

    version = resolve(uri, tracking)
    return open_registered(version, tracking, scratch), version.rpartition("/")[2]


def from_environment(environment: Mapping[str, str]) -> list[str]:
    """SEGRAFT_SERVE_LIMITS__BODY_MB=32 as serve.limits.body_mb=32."""
    found = {key[len(PREFIX) :]: value for key, value in environment.items() if key.startswith(PREFIX)}
    names, values = KUBERNETES
    ours = {key: value for key, value in found.items() if not names.fullmatch(key) and not value.startswith(values)}
    return [f"serve.{key.lower().replace('__', '.')}={value}" for key, value in sorted(ours.items())]
