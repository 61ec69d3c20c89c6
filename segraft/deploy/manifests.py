"""The manifests of k8s/ without kubectl, which whoever draws a pipeline need not have.

Of kustomize it knows what k8s/ uses for serving, and patches of one's own; it refuses the rest. tests/deploy compares
the two.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from segraft.deploy.kustomization import Head, Image, Kustomization, Operations, Patch, Target
from segraft.errors import UserError
from segraft.params import build as checked
from segraft.params import read_yaml

Resource = dict[str, Any]
PASSED_OVER = {"generatorOptions", "secretGenerator"}
"""They make Secrets, which are not asked for here."""


def build(folder: Path, kind: str, above: tuple[Path, ...] = ()) -> list[Resource]:
    """The resources of one kind that a kustomization gives.

    Args:
        folder: it holds a kustomization.yaml.
        kind: InferenceService or ServingRuntime; in other kinds kustomize changes more.
        above: the folders whose kustomizations led here.

    Raises:
        UserError: a file is missing or broken, or the kustomization uses what is not known here.
    """
    path, here = folder / "kustomization.yaml", folder.resolve()
    if here in above:
        raise UserError(f"{path}.resources: they lead back to {folder}, which is being read")
    told = _kustomization(path)
    found = [resource for entry in told.resources for resource in _read(folder / entry, kind, (*above, here))]
    for number, patch in enumerate(told.patches):
        found = _patched(found, patch, kind, path, f"{path}.patches.{number}")
    for resource in found:
        metadata = resource["metadata"]
        if told.namespace:
            metadata["namespace"] = told.namespace
        for entry in told.labels:
            metadata["labels"] = metadata.get("labels", {}) | entry.pairs
        for image in told.images:
            _rename(resource, image)
    return found


def _kustomization(path: Path) -> Kustomization:
    told = read_yaml(path)
    if not isinstance(told, dict):
        raise UserError(f"{path}: expected a kustomization, such as resources: [../cpu]; found {type(told).__name__}")
    known = _without_nulls({key: value for key, value in told.items() if key not in PASSED_OVER})
    kustomization: Kustomization = checked(Kustomization, known, str(path))
    return kustomization


def _read(place: Path, kind: str, above: tuple[Path, ...]) -> list[Resource]:
    if place.is_dir():
        return build(place, kind, above)
    try:
        documents = list(yaml.safe_load_all(place.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split())}; a kustomization names it") from None
    found = [_without_nulls(one) for one in documents if isinstance(one, dict) and one.get("kind") == kind]
    for resource in found:
        checked(Head, resource, str(place))
    return found


def _without_nulls(value: Any) -> Any:
    """To Kubernetes a field that is null is not there."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _patched(found: list[Resource], patch: Patch, kind: str, path: Path, where: str) -> list[Resource]:
    """The resources of one kind after a patch of the kustomization at `path`, which messages call `where`."""
    content, text = _content(patch, path, where)
    if isinstance(content, list):
        if patch.target is None:
            raise UserError(f"{where}.target: missing; say by kind and name what the operations are for")
        changed = _operated(found, content, patch.target, text)
    else:
        changed = _merged(found, content, patch.target, kind, text)
    for resource in changed:
        checked(Head, resource, f"{text}: after it {kind}")
    return changed


def _content(patch: Patch, path: Path, where: str) -> tuple[Any, str]:
    """A patch as YAML has it, and what messages call it; its file, as kustomize wants it, is not outside the folder."""
    if patch.path is None:
        content, text = _parsed(patch.patch or "", f"{where}.patch"), f"{where}.patch"
    else:
        file = path.parent / patch.path
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise UserError(f"{where}.path: {patch.path}: outside {path.parent}; kustomize reads no patch from there")
        content, text = read_yaml(file), str(file)
    if not isinstance(content, list | dict):
        raise UserError(f"{text}: neither a list of operations (RFC 6902) nor a part of a resource; found {content!r}")
    return content, text


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _operated(found: list[Resource], operations: list[Any], target: Target, where: str) -> list[Resource]:
    """Operations of RFC 6902 on what a target means."""
    checked(Operations, {"operations": operations}, where)
    return [_after(one, operations, where) if _means(target, one) else one for one in found]


def _after(resource: Resource, operations: list[Any], where: str) -> Resource:
    try:
        changed: Resource = jsonpatch.apply_patch(resource, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise UserError(f"{where}: patch of {resource['kind']} {resource['metadata']['name']}: {error}") from None
    return changed


def _means(target: Target, resource: Resource) -> bool:
    names = ((target.kind, resource["kind"]), (target.name, resource["metadata"]["name"]))
    return all(re.fullmatch(pattern or ".*", name) for pattern, name in names)


def _merged(found: list[Resource], part: Any, target: Target | None, kind: str, where: str) -> list[Resource]:
    """Part of a resource, merged into what a target means; without one into the resource that the part names."""
    head: Head = checked(Head, _without_nulls(part), where)
    chosen = [_means(target, one) if target else _names(head, one) for one in found]
    if target is None and head.kind == kind and not any(chosen):
        there = ", ".join(one["metadata"]["name"] for one in found) or "none"
        raise UserError(f"{where}: no {kind} {head.metadata.name} of {head.apiVersion}; there: {there}")
    if any(chosen) and _directs(part):
        raise UserError(f"{where}: keys such as $patch are not known here; say it with operations (RFC 6902)")
    return [_overlaid_itself(one, part) if ours else one for one, ours in zip(found, chosen, strict=True)]


def _directs(value: Any) -> bool:
    """Whether it holds directives of kustomize's."""
    if isinstance(value, list):
        return any(map(_directs, value))
    return isinstance(value, dict) and any(str(key).startswith("$") or _directs(one) for key, one in value.items())


def _names(head: Head, resource: Resource) -> bool:
    own, metadata = resource["metadata"], head.metadata
    same = (head.apiVersion, head.kind, metadata.name) == (resource["apiVersion"], resource["kind"], own["name"])
    return same and metadata.namespace in ("", own.get("namespace", ""))


def _overlaid_itself(resource: Resource, part: Resource) -> Resource:
    """A resource with a part laid over it, by the name that it has."""
    changed: Resource = _overlaid(resource, part)
    names = {key: text for key, text in resource["metadata"].items() if key in ("name", "namespace")}
    kept = {key: value for key, value in changed["metadata"].items() if key not in ("name", "namespace")}
    return changed | {"kind": resource["kind"], "metadata": kept | names}


def _overlaid(value: Any, part: Any) -> Any:
    """RFC 7396: what kustomize's strategic merge is where no schema says how lists are merged."""
    if not isinstance(part, dict):
        return part
    changed = dict(value) if isinstance(value, dict) else {}
    for key, item in part.items():
        if item is None:
            changed.pop(key, None)
        else:
            changed[key] = _overlaid(changed.get(key), item)
    return changed


def _rename(value: Any, image: Image) -> None:
    """Give every container whose image has that name its new name, tag or digest."""
    if isinstance(value, list):
        for item in value:
            _rename(item, image)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("containers", "initContainers") and isinstance(item, list):
                for container in item:
                    if isinstance(container, dict) and isinstance(container.get("image"), str):
                        container["image"] = _renamed(container["image"], image)
            _rename(item, image)


def _renamed(used: str, image: Image) -> str:
    match = re.fullmatch(r"(.+?)(:[\w.-]+)?(@sha256:\w+)?", used)
    if not match or match[1] != image.name:
        return used
    suffix = (f":{image.newTag}" if image.newTag else "") + (f"@{image.digest}" if image.digest else "")
    return (image.newName or match[1]) + (suffix or (match[2] or "") + (match[3] or ""))
