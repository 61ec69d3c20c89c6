"""The search as a Katib Experiment: the same space as `segraft.tuning`, each trial a Job of `segraft tune --trial`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segraft.errors import UserError
from segraft.params import Choice, Params, Range
from segraft.tuning import check, number, text


def write_katib(params: Params, path: Path) -> None:
    """Write the search as a Katib Experiment: the same space, the same trials, each a Job of `segraft tune --trial`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(katib(params), sort_keys=False), encoding="utf-8")


def katib(params: Params) -> dict[str, Any]:
    """The Experiment (kubeflow.org/v1beta1); its Jobs read the packed dataset and the model from `cluster.store`."""
    check(params)
    tune, store = params.tune, params.cluster.store
    if not store:
        raise UserError(
            "cluster.store: name the folder, on one of cluster.volumes, that holds the trials' data and model"
        )
    names = list(tune.space)
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "segraft-tune"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "miou"},
            "algorithm": {
                "algorithmName": "tpe",
                "algorithmSettings": [
                    {"name": "n_startup_trials", "value": str(tune.startup)},
                    {"name": "random_state", "value": str(tune.seed)},
                ],
            },
            "earlyStopping": {
                "algorithmName": "medianstop",
                "algorithmSettings": [{"name": "min_trials_required", "value": str(max(1, tune.startup))}],
            },
            "maxTrialCount": tune.trials,
            "parallelTrialCount": tune.parallel,
            "maxFailedTrialCount": 3,
            "metricsCollectorSpec": {
                "collector": {"kind": "StdOut"},
                "source": {"filter": {"metricsFormat": [r"(\w+)=([0-9.]+)"]}},
            },
            "parameters": [_katib_parameter(key, where) for key, where in tune.space.items()],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [
                    {"name": name, "reference": name, "description": f"finetune.{name}"} for name in names
                ],
                "trialSpec": _job(params, names, store),
            },
        },
    }


def _katib_parameter(key: str, where: Choice | Range) -> dict[str, Any]:
    if isinstance(where, Choice):
        return {
            "name": key,
            "parameterType": "categorical",
            "feasibleSpace": {"list": [text(v) for v in where.choices]},
        }
    space = {"min": text(number(where, where.low)), "max": text(number(where, where.high))}
    space["distribution"] = "logUniform" if where.log else "uniform"
    return {"name": key, "parameterType": "int" if where.integer else "double", "feasibleSpace": space}


def _job(params: Params, names: list[str], store: str) -> dict[str, Any]:
    cluster = params.cluster
    needs: dict[str, Any] = {"cpu": cluster.heavy.cpu, "memory": cluster.heavy.memory}
    if cluster.gpu.count:
        needs[cluster.gpu.type] = cluster.gpu.count
    command = ["python", "-m", "segraft", "tune", "--trial", "--dataset", f"{store}/packed/target"]
    command += ["--pretrained", f"{store}/pretrained", "--folder", "/tmp/tune"]
    for name in names:
        command += ["-S", f"finetune.{name}=${{trialParameters.{name}}}"]
    mounts = [{"name": f"volume-{n}", "mountPath": volume.path} for n, volume in enumerate(cluster.volumes)]
    volumes: list[dict[str, Any]] = [
        {"name": f"volume-{n}", "persistentVolumeClaim": {"claimName": volume.claim}}
        for n, volume in enumerate(cluster.volumes)
    ]
    mounts += [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}]
    volumes += [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shm}}]
    volumes += [{"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}}]
    container = {
        "name": "trial",
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        "command": command,
        "resources": {"requests": needs, "limits": needs},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": dict(cluster.node_selector),
        "tolerations": [taint.model_dump(exclude_none=True) for taint in cluster.tolerations],
        "containers": [container],
        "volumes": volumes,
    }
    labels = {"sidecar.istio.io/inject": "false"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"backoffLimit": 2, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
