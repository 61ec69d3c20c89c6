"""What a Kubeflow component's body calls: a step's door, with artifacts for paths and JSON for sections.

kfp hands a component its inputs and outputs as objects with a `path`, a `uri` and `metadata`; that is all of kfp that
is known here. Every output's metadata says its content (`md5`, the digest that DVC gives it) and what it was made of
(`made_of`); with a store (`SEGRAFT_STORE`, a folder on a volume) datasets stay there, and only their place travels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from segraft import steps
from segraft.__main__ import EXIT_DATA
from segraft.errors import UserError
from segraft.orchestration import trainjob
from segraft.orchestration.digest import digest
from segraft.steps import Metrics

STORE, WORK = "SEGRAFT_STORE", "SEGRAFT_WORK"
"""Environment: folder where datasets stay; folder where unfinished work outlives a killed step."""
PLACE, MD5, MADE_OF = "place", "md5", "made_of"
"""Metadata of an artifact: where it is if not at its path; its digest; input → digest."""


class Artifact(Protocol):
    """What is used of kfp's artifacts."""

    uri: str
    metadata: dict[str, Any]
    schema_title: str

    @property
    def path(self) -> str:
        """Where its bytes are, or are to be."""


def run(name: str, arguments: Mapping[str, Any]) -> Metrics:
    """Run step `name` as a component.

    Args:
        name: a step.
        arguments: the component's arguments by name: sections as JSON, paths as artifacts. What the step takes as one
            folder may be given in parts: `taxonomies` as JSON (file name → text), `logs` as artifacts called
            `{step}_log`; `lock` is written from the lineage of `dataset`.

    Returns:
        The step's metrics. Everything that a page can show is rendered into the other outputs (see `rendering`).
    """
    from segraft.orchestration.rendering import render

    step = steps.spec(name)
    with reported(name, arguments), tempfile.TemporaryDirectory() as scratch:
        paths = {path: _path(step, path, arguments, Path(scratch)) for path in step.paths}
        metrics = trainjob.door(name, {section: arguments[section] for section in step.sections}, paths)
        render(name, arguments, {path: Path(place) for path, place in paths.items()}, metrics)
        origins = made_of(arguments)  # before an output is settled, for then it would count as one
        for path in (path for path, kind in step.paths.items() if kind == "out"):
            settle(arguments[path], origins)
        for path in (path for path, kind in step.paths.items() if kind == "work"):
            steps.remove(Path(paths[path]))
    return metrics


@contextmanager
def reported(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Whatever fails inside is noted in the execution's MLflow run; what the user can mend ends without a traceback."""
    from segraft.orchestration.execution import note

    try:
        yield
    except UserError as error:
        note(name, str(error), [Path(arguments[key].path) for key in error.keep])
        print(f"segraft {name}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_DATA) from None
    except Exception as error:
        note(name, f"{type(error).__name__}: {error}")
        raise


def locate(artifact: Artifact) -> str:
    """Where an artifact's bytes are: in the store, or at its path."""
    return str(artifact.metadata.get(PLACE) or artifact.path)


def settle(artifact: Artifact, origins: Mapping[str, str], made: Path | None = None) -> None:
    """Give a finished output its digest and lineage, and move a dataset to the store, if there is one.

    Args:
        artifact: the output.
        origins: input → digest.
        made: where its bytes are, if not at its path.
    """
    path, store = Path(artifact.path), os.environ.get(STORE)
    made = made or path
    artifact.metadata |= {MD5: digest(made), MADE_OF: dict(origins)}
    if store and artifact.schema_title == "system.Dataset":
        place = Path(store) / artifact.metadata[MD5]
        if not place.exists():
            with steps.temporary(place) as moved:
                shutil.move(made, moved)
                if not place.exists():  # another pod may have made the same
                    steps.publish(moved, place)
        steps.remove(made)
        path.write_text(f"{place}\n", encoding="utf-8")
        artifact.metadata[PLACE] = str(place)


def made_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Input → digest, of the inputs that have one; outputs have none yet."""
    artifacts = {name: value.metadata for name, value in arguments.items() if hasattr(value, "metadata")}
    return {name: metadata[MD5] for name, metadata in artifacts.items() if MD5 in metadata}


def _path(step: steps.Spec, path: str, arguments: Mapping[str, Any], scratch: Path) -> str | Path:
    if path == "logs":
        return _logs(arguments, scratch / "logs")
    if path == "lock":
        return _lock(arguments["dataset"], scratch / "dvc.lock")
    if step.paths[path] == "work":
        return _work(step, arguments)
    value = arguments[path]
    if isinstance(value, str):
        return files(json.loads(value), scratch / path)
    return locate(value) if step.paths[path] == "in" else Path(value.path)


def _work(step: steps.Spec, arguments: Mapping[str, Any]) -> Path:
    """A folder for these sections and inputs alone: a retry finds it again, and a parallel task has its own."""
    known = [step.name, *(arguments[section] for section in step.sections), made_of(arguments)]
    name = hashlib.md5(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    return Path(os.environ.get(WORK, tempfile.gettempdir()), f"{step.name}-{name}")


def files(content: Mapping[str, str], folder: Path) -> Path:
    """Write texts (file name → text) into a new folder."""
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _logs(arguments: Mapping[str, Any], folder: Path) -> Path:
    folder.mkdir()
    for name, artifact in arguments.items():
        if name.endswith("_log"):
            (folder / name.removesuffix("_log")).symlink_to(Path(locate(artifact)).absolute())
    return folder


def _lock(dataset: Artifact, path: Path) -> Path:
    """A dvc.lock that knows what the packed dataset is and what it was made of; missing if nobody knows."""
    if MD5 in dataset.metadata:
        packed = [{"path": locate(dataset), "md5": dataset.metadata[MD5]}]
        raw = [{"path": name, "md5": md5} for name, md5 in dataset.metadata.get(MADE_OF, {}).items()]
        stages = {"augment": {"deps": raw, "outs": packed}, "finetune": {"deps": packed}, "scratch": {"deps": packed}}
        path.write_text(json.dumps({"schema": "2.0", "stages": stages}), encoding="utf-8")
    return path
