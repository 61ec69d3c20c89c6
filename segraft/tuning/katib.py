"""The search as a Katib Experiment: the space of `search`, each trial a Job of `segraft tune --trial`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from segraft.errors import UserError
from segraft.orchestration.secrecy import refuse_passwords
from segraft.params import Choice, Params, Range
from segraft.tuning.search import check, number, text

USER = 10001
"""Who runs in a pod: the image's own user."""
NAME = "trialName"
KNOBS = ("model", "finetune", "tune", "tracking")
"""Sections that a trial is given; the rest of params.yaml is the image's own."""


def write_katib(params: Params, dataset: Path, pretrained: Path, path: Path) -> None:
    """Write the search as a Katib Experiment; the arguments are those of `katib`."""
    written = yaml.safe_dump(katib(params, dataset, pretrained), sort_keys=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written, encoding="utf-8")
    except FileNotFoundError:  # a file system on which no folder can be made
        raise UserError(f"--katib: {path}: no file can be made there; name another") from None


def katib(params: Params, dataset: Path, pretrained: Path) -> dict[str, Any]:
    """The Experiment (kubeflow.org/v1beta1).

    Args:
        params: the knobs; `cluster` says what a Job needs.
        dataset: the packed target dataset, below `cluster.store` or absolute.
        pretrained: model folder to start from, likewise.

    Raises:
        UserError: the space is wrong, a URL holds a password, or there is no store that the Jobs could read from.
    """
    check(params)
    refuse_passwords(params)
    tune = params.tune
    if not params.cluster.store:
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
                "algorithmName": "multivariate-tpe",  # Optuna's; `tpe` is Hyperopt's, which takes no n_startup_trials
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
            "parallelTrialCount": min(tune.parallel, tune.trials),  # Katib refuses more than maxTrialCount
            "maxFailedTrialCount": min(3, tune.trials),
            "metricsCollectorSpec": {
                "collector": {"kind": "StdOut"},
                "source": {"filter": {"metricsFormat": [r"(\w+)=([0-9.]+)"]}},
            },
            "parameters": [_katib_parameter(key, where) for key, where in tune.space.items()],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [
                    *({"name": name, "reference": name, "description": f"finetune.{name}"} for name in names),
                    {"name": NAME, "reference": "${trialSpec.Name}", "description": "its name in MLflow"},
                ],
                "trialSpec": _job(params, _command(params, dataset, pretrained)),
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


def _command(params: Params, dataset: Path, pretrained: Path) -> list[str]:
    """`segraft tune --trial` with this machine's knobs, and the values that Katib draws in place of some.

    As a shell's: to collect metrics, Katib joins the words of any other command with spaces and hands them to `sh -c`.
    """
    store, name = Path(params.cluster.store), f"${{trialParameters.{NAME}}}"
    command = ["python", "-m", "segraft", "tune", "--trial", name, "--dataset", str(store / dataset)]
    command += ["--pretrained", str(store / pretrained), "--folder", str(store / "tune" / name)]
    for section in KNOBS:
        command += ["-S", f"{section}={params.section(section).model_dump_json(by_alias=True)}"]
    for key in params.tune.space:
        command += ["-S", f"finetune.{key}=${{trialParameters.{key}}}"]
    return ["sh", "-c", shlex.join(command)]


def _job(params: Params, command: list[str]) -> dict[str, Any]:
    """A trial's Job; a pod that is lost is made again, and goes on from the trial's last checkpoint in the store."""
    cluster = params.cluster
    needs: dict[str, Any] = {"cpu": cluster.heavy.cpu, "memory": cluster.heavy.memory}
    if cluster.gpu.count:
        needs[cluster.gpu.type] = cluster.gpu.count
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
        "env": [
            {"name": secret.env, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
            for secret in cluster.secrets
        ],
        "resources": {"requests": needs, "limits": dict(needs)},
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
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": dict(cluster.node_selector),
        "tolerations": [taint.model_dump(exclude_none=True) for taint in cluster.tolerations],
        "containers": [container],
        "volumes": volumes,
    }
    labels = {"sidecar.istio.io/inject": "false"}
    job: dict[str, Any] = {"backoffLimit": 2, "template": {"metadata": {"labels": labels}, "spec": pod}}
    if cluster.timeout:
        job["activeDeadlineSeconds"] = cluster.timeout
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": job}
