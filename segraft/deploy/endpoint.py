"""The endpoint of one version of a model: the manifests, and what the section `deploy` changes in them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segraft.commands import serve
from segraft.deploy.kustomization import Service
from segraft.deploy.manifests import Resource, build
from segraft.deploy.version import Version
from segraft.errors import UserError
from segraft.params import Deploy
from segraft.params import build as checked

MODE = "serving.kserve.io/deploymentMode"
MODEL, NUMBER, DIGEST, ALIAS = "segraft/model", "segraft/version", "segraft/sha256", "segraft/alias"
"""What an endpoint says of its model: NUMBER as a label, the others as annotations; KServe gives them to the pods."""


def read(deploy: Deploy, root: Path = Path()) -> list[Resource]:
    """The manifests: the ServingRuntime, if `deploy.runtime` names one, and the InferenceService, last.

    Raises:
        UserError: one is missing or broken.
    """
    runtimes = build(root / deploy.runtime, "ServingRuntime") if deploy.runtime else []
    if deploy.runtime and not runtimes:
        raise UserError(
            f"deploy.runtime: {deploy.runtime}: no ServingRuntime; name an overlay, such as k8s/overlays/cpu"
        )
    services = build(root / deploy.endpoint, "InferenceService")
    if len(services) != 1:
        raise UserError(f"deploy.endpoint: {deploy.endpoint}: {len(services)} InferenceServices; expected one")
    checked(Service, services[0], f"deploy.endpoint: {deploy.endpoint}: InferenceService")
    return [*runtimes, *services]


def render(version: Version, deploy: Deploy, manifests: Sequence[Resource] = ()) -> list[Resource]:
    """The manifests of an endpoint, made to serve a version.

    Args:
        version: what is to be served.
        deploy: what the endpoint is to be.
        manifests: what `read` gave; empty: it is asked now.

    Raises:
        UserError: a manifest is missing or broken, or a knob means nothing to this endpoint.
    """
    resources = copy.deepcopy(list(manifests)) or read(deploy)
    metadata, predictor = resources[-1]["metadata"], resources[-1]["spec"]["predictor"]
    _identify(metadata, version)
    _model(predictor["model"], version, deploy)
    _scale(predictor, metadata["name"], deploy)
    if deploy.canary is not None:
        if metadata["annotations"].get(MODE) != "Knative":
            raise UserError(f"deploy.canary: {deploy.endpoint}: only Knative shares requests among versions; use null")
        predictor["canaryTrafficPercent"] = deploy.canary
    for resource in resources:
        resource["metadata"]["namespace"] = deploy.namespace
    return resources


def share(service: Resource) -> int:
    """Per cent of the requests that the new version of an InferenceService gets."""
    return int(service["spec"]["predictor"].get("canaryTrafficPercent", 100))


def _identify(metadata: dict[str, Any], version: Version) -> None:
    metadata["labels"] = metadata.get("labels", {}) | {NUMBER: version.number}
    said = {MODEL: f"models:/{version.name}/{version.number}", DIGEST: version.sha256, ALIAS: version.alias}
    metadata["annotations"] = metadata.get("annotations", {}) | {key: text for key, text in said.items() if text}


def _model(model: dict[str, Any], version: Version, deploy: Deploy) -> None:
    """Here, rather than in the runtime, the image changes together with the model, and no other endpoint's does."""
    model["storageUri"] = version.storage
    given = {serve.VERSION: version.number, serve.SHA256: version.sha256}
    kept = [entry for entry in model.get("env", []) if entry["name"] not in given]
    model["env"] = kept + [{"name": name, "value": value} for name, value in given.items()]
    if deploy.image:
        model["image"] = deploy.image


def _scale(predictor: dict[str, Any], name: str, deploy: Deploy) -> None:
    """A query is told which pods are this endpoint's: those of KServe's Deployment NAME-predictor."""
    if deploy.replicas is not None:
        predictor["minReplicas"], predictor["maxReplicas"] = deploy.replicas
    listed = predictor.get("autoScaling", {}).get("metrics", [])
    metrics = [metric["external"] for metric in listed if "external" in metric]
    for external in metrics:
        query = re.sub(r'namespace="[^"]*"', f'namespace="{deploy.namespace}"', external["metric"]["query"])
        external["metric"]["query"] = re.sub(r'pod=~"[^"]*-predictor-', f'pod=~"{name}-predictor-', query)
    if deploy.target is None:
        return
    if not metrics and "scaleTarget" not in predictor:
        raise UserError(f"deploy.target: {deploy.endpoint} does not scale by requests; use null")
    if "scaleTarget" in predictor:
        predictor["scaleTarget"] = deploy.target
    for external in metrics:
        external["target"]["value"] = str(deploy.target)
