"""A pipeline on a Kubeflow cluster: as a file, as a run that is waited for, or on a schedule."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segraft.errors import UserError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL = 5.0
"""Seconds between two looks at a run."""


@dataclass(frozen=True)
class Submission:
    """What the command line says about a run."""

    host: str
    """empty: KF_PIPELINES_ENDPOINT, or the service of the cluster that we are in"""
    namespace: str | None
    experiment: str
    run_name: str | None
    schedule: str | None
    wait: bool


def compile_to(pipeline: Any, path: Path) -> None:
    """Write a pipeline, its platform part included, as YAML; the same pipeline gives the same bytes.

    Raises:
        UserError: the file's name is none of a YAML file, or it cannot be written.
    """
    from kfp import compiler

    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--compile: {path}: expected a file whose name ends with .yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(pipeline, str(path))
    except OSError as error:
        raise UserError(f"--compile: {path}: {error.strerror}; name a file that can be written") from None


def submit(pipeline: Any, submission: Submission, poll: float = POLL) -> None:
    """Run a pipeline on a cluster, now or on a schedule, and wait for a run's end.

    Args:
        pipeline: from `pipelines.graph.draw`.
        submission: where and how.
        poll: seconds between two looks.

    Raises:
        UserError: the cluster cannot be reached or refuses, or the run failed.
    """
    import kfp_server_api
    from urllib3.exceptions import HTTPError

    try:
        client = connect(submission)
        experiment = client.create_experiment(submission.experiment, namespace=submission.namespace)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pipeline.yaml"
            compile_to(pipeline, file)
            if submission.schedule:
                _schedule(client, experiment.experiment_id, pipeline.name, file, submission.schedule)
                return
            name = submission.run_name or f"{pipeline.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
            run = client.run_pipeline(experiment.experiment_id, name, str(file), enable_caching=True)
    except (kfp_server_api.ApiException, HTTPError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{submission.host or 'Kubeflow Pipelines'}: {reason}; see --help for token and namespace"
        ) from None
    if submission.wait:
        follow(client, run.run_id, poll)


def connect(submission: Submission) -> Any:
    """A client, with the token that the environment holds."""
    import kfp
    from kfp.client import ServiceAccountTokenVolumeCredentials

    token = os.environ.get("KF_PIPELINES_TOKEN")
    credentials = None
    if not token and os.environ.get("KF_PIPELINES_SA_TOKEN_PATH"):
        credentials = ServiceAccountTokenVolumeCredentials()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kfp.Client(
            host=submission.host or None,
            namespace=submission.namespace or "kubeflow",  # kfp's own word for none
            existing_token=token,
            credentials=credentials,
        )


def _schedule(client: Any, experiment: str, name: str, file: Path, cron: str) -> None:
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise UserError(f'--schedule: {cron!r}: expected minute hour day month weekday, for example "0 3 * * 1"')
    with_seconds = " ".join(fields if len(fields) == 6 else ["0", *fields])
    client.create_recurring_run(
        experiment,
        name,
        cron_expression=with_seconds,
        max_concurrency=1,
        pipeline_package_path=str(file),
        no_catchup=True,
    )
    print(f"{name}: runs at {cron} from now on")


def follow(client: Any, run_id: str, poll: float) -> None:
    """Print what changes until a run has ended.

    Raises:
        UserError: it did not succeed.
    """
    told: dict[str, str] = {}
    while True:
        run = client.get_run(run_id)
        tasks = (run.run_details.task_details or []) if run.run_details else []
        for task in tasks:
            if task.state and told.get(task.display_name) != task.state:
                told[task.display_name] = task.state
                print(f"  {task.display_name}: {task.state.lower()}", flush=True)
        if run.state in ENDED:
            break
        time.sleep(poll)
    if run.state != "SUCCEEDED":
        failed = [f"{task.display_name}: {_message(task)}" for task in tasks if task.state == "FAILED"]
        raise UserError("\n".join([f"the run ended as {run.state}", *failed]))
    print("succeeded")


def _message(failing: Any) -> str:
    return failing.error.message if failing.error and failing.error.message else "see its log"
