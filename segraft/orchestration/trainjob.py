"""A training step on many nodes: the same call as `steps.run`, made by a Kubeflow TrainJob that this process watches.

The nodes run `torchrun -m segraft STEP` on a TrainingRuntime (k8s/base/training.yaml). They see this process's files
only on a volume that all of them mount at one path: what lies elsewhere is copied there, and results are fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft import steps
from segraft.errors import UserError
from segraft.params import as_section
from segraft.processes import ended_by_sigterm
from segraft.steps import Metrics
from segraft.training import STRATEGY

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

TRAINJOB = "SEGRAFT_TRAINJOB"
"""Environment: the fields of a `Job` as JSON, for steps that are to run as one; `shared` is SEGRAFT_STORE."""
COMPLETE, FAILED = "Complete", "Failed"
PATIENCE = 60
"""How many polls in a row the API server may leave unanswered."""
OUTCOME = "metrics.json"


@dataclass(frozen=True)
class Job:
    """What a TrainJob is to be."""

    runtime: str
    """name of a TrainingRuntime in this namespace"""
    image: str
    nodes: int
    shared: Path
    """folder on the volume that all nodes mount at this path"""
    resources: Mapping[str, str] | None = None
    """of a node, for example {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"}; None: the runtime's"""
    strategy: str = "ddp"
    """how its processes share the network: ddp or fsdp"""
    poll: float = 10.0
    """seconds"""


def door(name: str, sections: Mapping[str, Any], paths: Mapping[str, str | Path]) -> Metrics:
    """`steps.run`, here or, if the environment says so, as a TrainJob."""
    told = os.environ.get(TRAINJOB)
    if not told:
        return steps.run(name, sections, paths)
    return run(name, sections, paths, Job(**json.loads(told), shared=Path(os.environ["SEGRAFT_STORE"])))


def run(
    name: str,
    sections: Mapping[str, Any],
    paths: Mapping[str, str | Path],
    job: Job,
    client: TrainerClient | None = None,
) -> Metrics:
    """Run step `name` as a TrainJob and wait for its end.

    Called again with the same arguments (the watching pod was lost), it watches the job that is there. SIGTERM deletes
    the job.

    Args:
        name: a step that trains.
        sections: as for `steps.run`.
        paths: as for `steps.run`; the nodes keep unfinished work in `work`, which must be below `job.shared`.
        job: what the TrainJob is to be.
        client: how to speak with Kubeflow; None: as the pod's service account.

    Raises:
        UserError: the step's own message, or a path that the nodes cannot see.
        RuntimeError: the job failed without one.
    """
    if client is None:
        from kubeflow.trainer import TrainerClient

        client = TrainerClient()
    knobs = {section: as_section(section, value).model_dump_json(by_alias=True) for section, value in sections.items()}
    identity = json.dumps([knobs, sorted((k, str(v)) for k, v in paths.items()), job.image, job.nodes], sort_keys=True)
    title = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    folder = job.shared / "jobs" / title
    seen = {path: _seen(path, kind, paths[path], job.shared, folder) for path, kind in steps.spec(name).paths.items()}
    with ended_by_sigterm():
        started = _name(client, title)
        try:
            if not _is_there(client, started):
                _create(client, started, _command(name, knobs, seen, folder), job)
            _watch(client, started, job.poll)
        except SystemExit:
            if _is_there(client, started):  # the signal may have come while it was made
                client.delete_job(started)
            raise
    if (status := client.get_job(started).status) != COMPLETE:
        raise _failure(client, started, name, status)
    metrics: Metrics = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    for path, kind in steps.spec(name).paths.items():
        if kind == "out":
            _copy(Path(seen[path]), Path(paths[path]))
    client.delete_job(started)
    steps.remove(folder)
    return metrics


def _seen(path: str, kind: str, place: str | Path, shared: Path, folder: Path) -> str:
    """Where the nodes find, or leave, what this process has at `place`."""
    if kind == "out":
        return str(folder / path)
    if "://" in str(place) or Path(place).resolve().is_relative_to(shared.resolve()):
        return str(place)
    if kind == "work":
        raise UserError(f"{place}: the nodes of a TrainJob keep unfinished work where all see it, below {shared}")
    copy = folder / path
    if not copy.exists():
        _copy(Path(place), copy)
    return str(copy)


def _copy(place: Path, to: Path) -> None:
    """What is copied stays: a watching pod that is lost in between is followed by one that needs all of it."""
    with steps.beside(to) as made:
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, made)


def _command(name: str, knobs: Mapping[str, str], seen: Mapping[str, str], folder: Path) -> list[str]:
    settings = [word for section, value in knobs.items() for word in ("-S", f"{section}={value}")]
    flags = [word for path, place in seen.items() for word in (f"--{path.replace('_', '-')}", place)]
    # Without the dashes torchrun takes our flags for abbreviations of its own.
    return ["torchrun", "-m", "--", "segraft", name, *settings, *flags, "--metrics", str(folder / OUTCOME)]


def _name(client: TrainerClient, title: str) -> str:
    """The name of the job: the one that is there unless it has failed, else a new one."""
    status = {known.name: known.status for known in client.list_jobs()}
    attempt = 1
    while status.get(f"{title}-{attempt}") == FAILED:
        attempt += 1
    return f"{title}-{attempt}"


def _is_there(client: TrainerClient, name: str) -> bool:
    return name in {known.name for known in client.list_jobs()}


def _create(client: TrainerClient, name: str, command: list[str], job: Job) -> None:
    from kubeflow.trainer import CustomTrainerContainer
    from kubeflow.trainer.options import Name, TrainerCommand

    resources = dict(job.resources) if job.resources else None
    trainer = CustomTrainerContainer(job.image, job.nodes, resources, {STRATEGY: job.strategy})
    client.train(job.runtime, trainer=trainer, options=[Name(name), TrainerCommand(command)])


def _watch(client: TrainerClient, name: str, poll: float) -> None:
    """Return when the job has ended, well or not; an API server that is away for a while is waited for."""
    shown, unanswered = "", 0
    while shown not in (COMPLETE, FAILED):
        try:
            status, unanswered = client.get_job(name).status, 0
        except (RuntimeError, TimeoutError) as error:
            unanswered += 1
            if unanswered >= PATIENCE:
                raise
            print(f"TrainJob {name}: no answer: {error}", file=sys.stderr, flush=True)
            status = shown
        if status != shown:
            print(f"TrainJob {name}: {status}", flush=True)
            shown = status
        if shown not in (COMPLETE, FAILED):
            time.sleep(poll)


def _failure(client: TrainerClient, started: str, name: str, status: str) -> Exception:
    """The step's own message, if its first node's log has one."""
    log = list(client.get_job_logs(started))
    print("\n".join(log[-100:]), flush=True)
    own = [match[1] for line in log if (match := re.search(rf"segraft {name}: (.+)", line))]
    return UserError(own[-1]) if own else RuntimeError(f"TrainJob {started}: {status}; the end of its log is above")
