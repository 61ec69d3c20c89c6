"""What a pod must be: Pod Security's "restricted" profile, a read-only root, requests and limits."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
ON_THE_HOST = ("hostNetwork", "hostPID", "hostIPC")


def pods(value, path="", labels=None):
    """(path, pod spec, labels) of every pod template anywhere in a resource."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from pods(item, f"{path}.{i}")
    elif isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield path, value, labels or {}
        for key, item in value.items():
            if key != "containers":
                own = value.get("metadata", {}).get("labels") if isinstance(value.get("metadata"), dict) else None
                yield from pods(item, f"{path}.{key}", own)


def violations(pod):
    """What the restricted profile, and this project, refuse in a pod spec."""
    whole = pod.get("securityContext", {})
    yield from (f"{name}" for name in ON_THE_HOST if pod.get(name))
    for volume in pod.get("volumes", []):
        if not VOLUMES & set(volume):
            yield f"volume {volume['name']}: {sorted(set(volume) - {'name'})} is not allowed"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for problem in (*_security(container.get("securityContext", {}), whole), *_resources(container)):
            yield f"{container['name']}: {problem}"


def _security(own, whole):
    merged = whole | own
    if merged.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if merged.get("runAsUser") == 0:
        yield "runs as root"
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccompProfile"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield "privileged"
    if own.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "does not drop ALL capabilities"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root file system can be written to"


def _resources(container):
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if resource not in container.get("resources", {}).get(kind, {}):
                yield f"no {resource} in its {kind}"
