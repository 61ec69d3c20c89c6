"""Components that are no steps: they bring a pipeline what exists already, or choose among what it made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segraft import steps
from segraft.errors import UserError
from segraft.orchestration.component import MD5, PLACE, Artifact, locate, made_of, reported, settle
from segraft.orchestration.digest import digest
from segraft.orchestration.rendering import scalars
from segraft.params import Deploy, Tracking, as_section
from segraft.tracking import without_password


def refer(place: str, md5: str, dataset: Artifact) -> None:
    """Make `dataset` a reference to a folder that is there already; nothing is copied.

    Args:
        place: the folder.
        md5: what its digest must be; empty: whatever it is.
        dataset: the artifact.
    """
    with reported("locate", {}):
        if not Path(place).exists():
            raise UserError(
                f"{place}: not found; mount the volume that holds it (cluster.volumes), or mend data.*.path"
            )
        found = _unchanged(Path(place), md5)
        Path(dataset.path).write_text(f"{place}\n", encoding="utf-8")
        dataset.metadata |= {MD5: found, PLACE: place}


def _unchanged(place: Path, md5: str) -> str:
    """The digest of what is there, which must be `md5` unless that is empty."""
    found = digest(place)
    if md5 and md5 != found:
        raise UserError(
            f"{place}: its md5 is {found}, not {md5}: it was changed since the run was submitted; submit anew"
        )
    return found


def fetch(repo: str, rev: str, path: str, dataset: Artifact) -> None:
    """Bring what DVC tracks in a git repository, from the repository's own remote; or what an object store holds now.

    Args:
        repo: the git repository; empty: `path` is a URL.
        rev: branch, tag or commit of the repository.
        path: of the dataset in the repository, or its URL.
        dataset: the artifact.
    """
    with reported("fetch", {}):
        target = Path(dataset.path).absolute()
        with steps.beside(target) as made, tempfile.TemporaryDirectory() as nowhere:
            asked = ["get", repo, path, "--rev", rev, "--out"] if repo else ["get-url", path]
            command = [sys.executable, "-m", "dvc", *asked, str(made), "--quiet"]
            environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
            done = subprocess.run(command, cwd=nowhere, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise UserError(without_password(f"dvc {' '.join(asked)}: {done.stderr.strip()}"))
        settle(dataset, {})
        dataset.metadata |= {"repo": without_password(repo), "rev": rev}


def bring(place: str, version: str, tracking: str, weights: Artifact, log: Artifact) -> None:
    """Bring a model to start from, and a training log that says what its card knows.

    Args:
        place: models:/NAME@ALIAS or models:/NAME/VERSION, which is verified, or a model folder.
        version: what the folder's digest must be; empty: whatever it is.
        tracking: the params section, as JSON.
        weights: the model folder.
        log: its training log.
    """
    from segraft.checkpoint import load_weights, read_card
    from segraft.registry import open_registered

    with reported("pretrained", {}), tempfile.TemporaryDirectory() as scratch:
        section = as_section("tracking", tracking)
        assert isinstance(section, Tracking)
        folder = open_registered(place, section, Path(scratch)) if place.startswith("models:") else Path(place)
        if version:  # a registered one is verified already
            _unchanged(folder, version)
        card = read_card(folder)
        load_weights(folder, card)
        shutil.copytree(folder, weights.path)
        now = time.time()
        made = card.provenance
        told = {
            "step": made.get("step"),
            "params": {"model": made.get("model", {}), "training": made.get("training", {})},
            "dataset": made.get("dataset", ""),
            "steps": made.get("steps", 0),
            "best_epoch": made.get("best_epoch", 0),
            "best_miou": None,
            "seconds": 0.0,
            "images_per_second": None,
            "peak_memory_mb": 0.0,
            "graft": [],
            "started": now,
            "ended": now,
            "environment": {"brought_from": place},
        }
        Path(log.path).mkdir(parents=True)
        steps.write_json(Path(log.path) / "training.json", told)
        settle(weights, {})
        settle(log, {})


def release(tracking: str, deploy: str, manifests: str, registered: Artifact) -> None:
    """Give a registered version the alias `deployed`; with `deploy.pipeline: endpoint`, once the endpoint serves it.

    Args:
        tracking: the params section, as JSON.
        deploy: the params section, as JSON.
        manifests: the endpoint's, as JSON: name → manifest; `{}`: only the alias moves.
        registered: what the register step wrote.
    """
    from segraft.deploy import point, roll_out

    with reported("deploy", {}):
        outcome = json.loads(Path(locate(registered)).read_text(encoding="utf-8"))
        registry, knobs = as_section("tracking", tracking), as_section("deploy", deploy)
        assert isinstance(registry, Tracking) and isinstance(knobs, Deploy)
        version = f"models:/{outcome['name']}/{outcome['version']}"
        if knobs.pipeline == "endpoint":
            if not (given := list(json.loads(manifests).values())):
                raise UserError("deploy.pipeline: endpoint: the pipeline was drawn without its manifests; draw it anew")
            print(roll_out(version, knobs, registry, manifests=given))
        else:
            point(outcome["name"], str(outcome["version"]), registry)
            print(f"models:/{outcome['name']}@deployed is version {outcome['version']}")


def choose(
    models: Sequence[Artifact], logs: Sequence[Artifact], weights: Artifact, log: Artifact, metrics: Any
) -> None:
    """Take the model with the best mIoU on val; of equals the first.

    Args:
        models: model folders.
        logs: their training logs, in the same order.
        weights: the best model folder.
        log: its training log.
        metrics: gets the mIoU of each, and which was chosen.
    """
    with reported("choose", {}):
        scores = [_best_miou(Path(locate(one))) for one in logs]
        best = max(range(len(scores)), key=lambda index: scores[index])
        for artifact, chosen in ((weights, models[best]), (log, logs[best])):
            shutil.copytree(locate(chosen), artifact.path)
            settle(artifact, made_of({str(index): one for index, one in enumerate(models)}))
        scalars(metrics, {f"miou_{index}": score for index, score in enumerate(scores)} | {"chosen": float(best)})


def _best_miou(log: Path) -> float:
    best = json.loads((log / "training.json").read_text(encoding="utf-8"))["best_miou"]
    if best is None:
        raise UserError(f"{log}: no mIoU on val; give the target a val split (data.target.holdout) to choose by")
    return float(best)
