"""The manifests of k8s/ without kubectl, which whoever draws a pipeline need not have.

Of kustomize it knows what k8s/ uses for serving, and refuses the rest; tests/deploy compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from segraft.errors import UserError
from segraft.params import read_yaml

Resource = dict[str, Any]
USED = {"apiVersion", "kind", "namespace", "labels", "images", "resources", "patches"}
PASSED_OVER = {"generatorOptions", "secretGenerator"}
"""They make Secrets, which are not asked for here."""


def build(folder: Path, kind: str) -> list[Resource]:
    """The resources of one kind that a kustomization gives.

    Args:
        folder: it holds a kustomization.yaml.
        kind: InferenceService or ServingRuntime; in other kinds kustomize changes more.

    Raises:
        UserError: a file is missing or broken, or the kustomization uses what is not known here.
    """
    path = folder / "kustomization.yaml"
    told = read_yaml(path)
    unknown = sorted(set(told) - USED - PASSED_OVER)
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: not known here; `kubectl apply -k {folder}` knows it, or do without")
    found = [resource for entry in told.get("resources", []) for resource in _read(folder / entry, kind)]
    for patch in told.get("patches", []):
        found = [_patched(resource, patch, path) for resource in found]
    for resource in found:
        metadata = resource["metadata"]
        if "namespace" in told:
            metadata["namespace"] = told["namespace"]
        for entry in told.get("labels", []):
            metadata["labels"] = metadata.get("labels", {}) | entry["pairs"]
        for image in told.get("images", []):
            _rename(resource, image)
    return found


def _read(place: Path, kind: str) -> list[Resource]:
    if place.is_dir():
        return build(place, kind)
    try:
        documents = list(yaml.safe_load_all(place.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split())}; a kustomization names it") from None
    return [found for found in documents if isinstance(found, dict) and found.get("kind") == kind]


def _patched(resource: Resource, patch: dict[str, Any], path: Path) -> Resource:
    target, operations = patch.get("target", {}), yaml.safe_load(patch["patch"])
    if set(target) - {"kind", "name"} or not isinstance(operations, list):
        raise UserError(f"{path}: patches: only lists of operations (RFC 6902) on a kind and a name are known here")
    names = {"kind": resource["kind"], "name": resource["metadata"]["name"]}
    if not all(re.fullmatch(target[key], names[key]) for key in target):
        return resource
    try:
        changed: Resource = jsonpatch.apply_patch(resource, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise UserError(f"{path}: patch of {names['kind']} {names['name']}: {error}") from None
    return changed


def _rename(value: Any, image: dict[str, str]) -> None:
    """Give every container whose image has that name its new name, tag or digest."""
    if isinstance(value, list):
        for item in value:
            _rename(item, image)
    elif isinstance(value, dict):
        for container in value.get("containers") or []:
            container["image"] = _renamed(container["image"], image)
        for item in value.values():
            _rename(item, image)


def _renamed(used: str, image: dict[str, str]) -> str:
    match = re.fullmatch(r"(.+?)(:[\w.-]+)?(@sha256:\w+)?", used)
    assert match is not None
    if match[1] != image["name"]:
        return used
    suffix = f"@{image['digest']}" if "digest" in image else f":{image['newTag']}" if "newTag" in image else ""
    return image.get("newName", match[1]) + (suffix or (match[2] or "") + (match[3] or ""))
