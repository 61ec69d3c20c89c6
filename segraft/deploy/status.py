"""Why an endpoint is not ready, in the words of its InferenceService and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from segraft.deploy.manifests import Resource

BROKEN = ("BlockedByFailedLoad", "InvalidSpec")
"""KServe's transitionStatus of what will not get ready by itself."""
GOOD_IF_FALSE = ("Stopped",)
"""Conditions that say nothing of readiness."""


def reasons(service: Resource) -> tuple[bool, list[str]]:
    """Whether an InferenceService has failed for good, and why it is not ready; no reasons: it is."""
    status = service.get("status", {})
    conditions, model = status.get("conditions", []), status.get("modelStatus", {})
    why = []
    if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        unmet = [c for c in conditions if c["status"] != "True" and c["type"] not in GOOD_IF_FALSE]
        why = [f"{c['type']}: {c.get('message') or c.get('reason') or 'not yet'}" for c in unmet] or ["no status yet"]
    failed = model.get("transitionStatus") in BROKEN
    if failed:
        last = model.get("lastFailureInfo", {})
        why.insert(0, f"{last.get('reason', model['transitionStatus'])}: {last.get('message', 'no message')}")
    predictor = status.get("components", {}).get("predictor", {})
    created, ready = (predictor.get(f"latest{kind}Revision") for kind in ("Created", "Ready"))
    if ready and created != ready:
        why.append(f"revision {created} is not ready")
    return failed, why


def split(pods: Iterable[Resource], annotation: str, value: str) -> tuple[list[Resource], list[Resource]]:
    """The living pods that have an annotation of this value, and the others."""
    ours: list[Resource] = []
    others: list[Resource] = []
    for pod in pods:
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            same = pod["metadata"].get("annotations", {}).get(annotation) == value
            (ours if same else others).append(pod)
    return ours, others


def waits(pods: Sequence[Resource]) -> list[str]:
    """What the pods that are not ready wait for."""
    return [
        f"pod {pod['metadata']['name']}: {', '.join(_waiting(pod)) or 'not ready'}" for pod in pods if not _ready(pod)
    ]


def _ready(pod: Resource) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _waiting(pod: Resource) -> Iterator[str]:
    status = pod["status"]
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        if waiting := container.get("state", {}).get("waiting"):
            last = container.get("lastState", {}).get("terminated", {}).get("message", "")
            yield f"{container['name']}: {last.strip() or waiting.get('message') or waiting.get('reason', 'waits')}"
