"""One execution of a pipeline, as MLflow sees it: a step that fails notes why, and the end closes what was left open.

Who runs the steps names the execution in the environment, not in parameters, which would make every run a new one
for Kubeflow's cache: `SEGRAFT_RUN` (its id), `SEGRAFT_TRACKING` (the tracking section as JSON) and, where steps share a
file system with who started them, `SEGRAFT_NOTES` (a folder).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.params import Tracking, build
from segraft.steps import write_json

if TYPE_CHECKING:
    from segraft.tracking import Tracker

RUN, TRACKING, NOTES = "SEGRAFT_RUN", "SEGRAFT_TRACKING", "SEGRAFT_NOTES"
EXECUTION, MESSAGE = "segraft.execution", "mlflow.note.content"
"""Tags of a run; MLflow shows the second as the run's description."""
UNKNOWN = "a step ended without a message; its own log says more"


def note(step: str, message: str, kept: Sequence[Path] = ()) -> None:
    """Say in the execution's MLflow run why a step failed, and keep what it left to explain it; never fails itself."""
    if folder := os.environ.get(NOTES):
        write_json(Path(folder) / f"{step}.json", {"step": step, "message": message, "time": time.time()})
    with _store() as tracker:
        if tracker is None:
            return
        run = _open_run(tracker, step)
        tracker.client.set_tag(run, MESSAGE, f"{step}: {message}")
        for path in (path for path in kept if path.exists()):
            log = tracker.client.log_artifacts if path.is_dir() else tracker.client.log_artifact
            log(run, str(path), path.name)


def close(succeeded: bool) -> str:
    """Close the execution's MLflow runs; returns what is to be reported.

    Args:
        succeeded: whether the pipeline did. A failed one has at least one run, FAILED, that says why.
    """
    if succeeded and os.environ.get(NOTES) and not noted():
        return "succeeded"
    messages: list[str] = []
    with _store() as tracker:
        if tracker is not None:
            if not succeeded and not _runs(tracker):
                tracker.client.set_tag(_open_run(tracker, "pipeline"), MESSAGE, UNKNOWN)
            for run in _runs(tracker):
                if run.info.status == "RUNNING":
                    tracker.client.set_terminated(run.info.run_id, "FINISHED" if succeeded else "FAILED")
                messages += [run.data.tags[MESSAGE]] if MESSAGE in run.data.tags else []
    return "succeeded" if succeeded else "\n".join(["FAILED", *messages])


def noted() -> list[dict[str, Any]]:
    """The notes of this execution's failed steps, oldest first, where steps share a file system with the caller."""
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in Path(os.environ[NOTES]).glob("*.json")]
    return sorted(notes, key=lambda note: float(note["time"]))


@contextmanager
def _store() -> Iterator[Tracker | None]:
    """The MLflow store, or None where there is no execution or no server."""
    from segraft.tracking import TrackingUnavailable, connect

    if not (os.environ.get(RUN) and os.environ.get(TRACKING)):
        yield None
        return
    tracking: Tracking = build(Tracking, json.loads(os.environ[TRACKING]), "tracking")
    try:
        with connect(tracking) as tracker:
            yield tracker
    except TrackingUnavailable as error:
        print(f"warning: not noted in MLflow: {error}", file=sys.stderr)


def _runs(tracker: Tracker) -> list[Any]:
    return list(tracker.client.search_runs([tracker.experiment], f"tags.`{EXECUTION}` = '{os.environ[RUN]}'"))


def _open_run(tracker: Tracker, step: str) -> str:
    """The execution's run that is open for notes, made if there is none yet."""
    open_runs = [run for run in _runs(tracker) if run.info.status == "RUNNING"]
    if open_runs:
        return str(open_runs[0].info.run_id)
    tags = {EXECUTION: os.environ[RUN], "segraft.step": step, "mlflow.source.type": "PIPELINE"}
    return str(tracker.client.create_run(tracker.experiment, tags=tags, run_name=f"failed-{step}").info.run_id)
