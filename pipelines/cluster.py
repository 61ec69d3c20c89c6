"""What the params section `cluster` does to a task: the only place that knows Kubernetes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kfp import dsl, kubernetes

from segraft.orchestration.execution import RUN, TRACKING
from segraft.orchestration.trainjob import TRAINJOB

if TYPE_CHECKING:
    from pipelines.graph import Target

HEAVY = ("pretrain", "finetune", "scratch", "evaluate")
"""Steps that train or score."""
TRAINED = ("pretrain", "finetune", "scratch")
"""Steps that many nodes can do as one TrainJob; the task's own pod then only watches."""
USER = 10001
"""Who runs in a pod: the image's own user, never root."""
RETRIED = ("pretrain", "finetune", "scratch", "fetch", "pretrained", "register", "deploy")
"""Steps that go on where they were, or that speak with a server: the same call may succeed the next time."""


def apply(task: dsl.PipelineTask, name: str, target: Target) -> dsl.PipelineTask:
    """Give a task of component `name` its image and, on a cluster, everything that its pod needs."""
    knobs = target.params.cluster
    task.set_container_image(knobs.image)
    if not target.remote:
        return task
    _resources(task, name, target)
    kubernetes.set_image_pull_policy(task, knobs.pull_policy)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    for volume in knobs.volumes:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)
    for secret in knobs.secrets:
        kubernetes.use_secret_as_env(task, secret.name, {secret.key: secret.env})
    if knobs.timeout:
        kubernetes.set_timeout(task, knobs.timeout)
    if knobs.retries and name in RETRIED:
        task.set_retry(knobs.retries, backoff_duration="30s", backoff_factor=2)
    _environment(task, target)
    return task


def _resources(task: dsl.PipelineTask, name: str, target: Target) -> None:
    knobs = target.params.cluster
    watches = knobs.nodes.count > 0 and name in TRAINED
    needs = knobs.heavy if name in HEAVY and not watches else knobs.light
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    if watches:
        task.set_env_variable(TRAINJOB, _nodes(target))
    if name not in HEAVY or watches:
        return
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=knobs.shm)
    if knobs.gpu.count:
        task.set_accelerator_type(knobs.gpu.type).set_accelerator_limit(knobs.gpu.count)
    for label, value in knobs.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in knobs.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)


def _nodes(target: Target) -> str:
    """The TrainJob of a training step, as `segraft.orchestration.trainjob` reads it."""
    knobs = target.params.cluster
    resources = {"cpu": knobs.heavy.cpu, "memory": knobs.heavy.memory}
    if knobs.gpu.count:
        resources[knobs.gpu.type] = str(knobs.gpu.count)
    nodes = {"runtime": knobs.nodes.runtime, "nodes": knobs.nodes.count, "strategy": knobs.nodes.strategy}
    return json.dumps(nodes | {"image": knobs.image, "resources": resources})


def _environment(task: dsl.PipelineTask, target: Target) -> None:
    """Which execution this is comes from the pod's label, so that it is no part of the cache's key."""
    knobs = target.params.cluster
    kubernetes.use_field_path_as_env(task, RUN, "metadata.labels['pipeline/runid']")
    task.set_env_variable(TRACKING, target.params.tracking.model_dump_json())
    if knobs.store:
        task.set_env_variable("SEGRAFT_STORE", knobs.store)
        task.set_env_variable("SEGRAFT_WORK", f"{knobs.store}/work")
