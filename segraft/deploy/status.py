"""Why an endpoint is not ready, in the words of its InferenceService and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from segraft.deploy.manifests import Resource

BROKEN = ("BlockedByFailedLoad", "InvalidSpec")
"""KServe's transitionStatus of what will not get ready by itself."""


def reasons(service: Resource) -> tuple[bool, list[str]]:
    """Whether an InferenceService has failed for good, and why it is not ready; no reasons: it is."""
    status = service.get("status", {})
    conditions, model = status.get("conditions", []), status.get("modelStatus", {})
    failed = model.get("transitionStatus") in BROKEN
    why = [
        f"{c['type']}: {c.get('message') or c.get('reason') or 'not yet'}" for c in conditions if c["status"] != "True"
    ]
    if failed:
        last = model.get("lastFailureInfo", {})
        why.insert(0, f"{last.get('reason', model['transitionStatus'])}: {last.get('message', 'no message')}")
    if not any(c["type"] == "Ready" for c in conditions):
        why.append("no status yet")
    predictor = status.get("components", {}).get("predictor", {})
    created, ready = (predictor.get(f"latest{kind}Revision") for kind in ("Created", "Ready"))
    if ready and created != ready:
        why.append(f"revision {created} is not ready")
    return failed, why


def split(pods: Iterable[Resource], annotation: str, value: str) -> tuple[list[Resource], list[Resource]]:
    """The living pods that have an annotation of this value, and the others."""
    living = [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    has = [pod["metadata"].get("annotations", {}).get(annotation) == value for pod in living]
    return [p for p, own in zip(living, has, strict=True) if own], [
        p for p, own in zip(living, has, strict=True) if not own
    ]


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
