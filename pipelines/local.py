"""A pipeline on this machine: every task a subprocess, or a container."""

from __future__ import annotations

import builtins
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import cache as kfp_cache
from kfp.local import graph_utils, status, task_dispatcher

from pipelines.cache import ContentCache
from pipelines.keep import KEEP, ended_well, in_use, prune
from segraft.errors import UserError
from segraft.orchestration.component import WORK
from segraft.orchestration.execution import NOTES, RUN, TRACKING, noted
from segraft.params import Tracking

ROOT = Path("build/kubeflow")
"""Where outputs and the cache lie."""


@contextmanager
def subprocesses(_: Path) -> Iterator[Any]:
    """A runner: every task is a process of this Python."""
    yield local.SubprocessRunner(use_venv=False)


Runner = Callable[[Path], AbstractContextManager[Any]]
"""Root → kfp's runner."""


def run(pipeline: Any, tracking: Tracking, runner: Runner = subprocesses, root: Path = ROOT, keep: int = KEEP) -> None:
    """Run a pipeline to its end.

    Args:
        pipeline: from `pipelines.graph.draw`.
        tracking: where a failure is noted.
        runner: `subprocesses`, or `pipelines.containers.containers(…)`.
        root: where outputs and the cache lie.
        keep: of how many good runs, this one among them, the outputs stay.

    Raises:
        UserError: a step failed; the message is the step's own.
    """
    root = root.absolute()
    cache = ContentCache(root / "cache")
    with in_use(root), execution(pipeline.name, tracking, root), runner(root) as how, _session(how, cache, root):
        try:
            pipeline()
        except RuntimeError as error:
            notes = [f"{note['step']}: {note['message']}" for note in noted()]
            raise UserError("\n".join(notes) or f"{error} Its log is above.") from None
        ended_well(root, os.environ[RUN], cache.used)
    prune(root, keep)
    print(f"ran: {', '.join(cache.made) or 'nothing'}; there already: {', '.join(cache.hits) or 'nothing'}")


def plan(pipeline: Any, root: Path = ROOT) -> dict[str, list[str]]:
    """Task → why it would run; a task whose outputs are there already is left out.

    kfp's own orchestrator walks the pipeline, with a dispatcher that runs nothing: what the cache lacks would run, and
    so would everything after it.
    """
    root = root.absolute()
    cache, missing = ContentCache(root / "cache"), dict[str, list[str]]()

    def refuse(component_name: str, arguments: dict[str, Any], **_: Any) -> tuple[dict[str, Any], status.Status]:
        missing[component_name.removeprefix("comp-")] = cache.why(arguments)
        return {}, status.Status.FAILURE

    refusing = replaced(task_dispatcher, run_single_task_implementation=refuse)
    with subprocesses(root) as how, _session(how, cache, root), refusing, suppress(RuntimeError), _silence():
        pipeline()
    plan: dict[str, list[str]] = {}
    for name, before in tasks(pipeline):
        if name in missing:
            plan[name] = missing[name]
        elif after := [task for task in before if task in plan]:
            plan[name] = [f"after {', '.join(after)}"]
    return plan


def tasks(pipeline: Any) -> list[tuple[str, list[str]]]:
    """(task, all that it waits for) of every step, in an order that they can run in; the exit handler is none."""
    components = pipeline.pipeline_spec.components

    def walk(dag: Any, before: list[str]) -> Iterator[tuple[str, list[str]]]:
        members: dict[str, list[str]] = {}
        for name in reversed(graph_utils.topological_sort_tasks(dag.tasks)):
            task = dag.tasks[name]
            waits = before + [one for group in task.dependent_tasks for one in members[group]]
            component = components[task.component_ref.name]
            found = list(walk(component.dag, waits)) if component.HasField("dag") else [(name, waits)]
            members[name] = [one for one, _ in found]
            yield from found

    return [(name, waits) for name, waits in walk(pipeline.pipeline_spec.root.dag, []) if name != "finish"]


@contextmanager
def execution(name: str, tracking: Tracking, root: Path) -> Iterator[None]:
    """Name the execution in the environment, which subprocesses inherit (see `segraft.orchestration.execution`)."""
    run = f"{name}-{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"
    notes, before = root / "notes" / run, dict(os.environ)
    notes.mkdir(parents=True)
    os.environ.update({RUN: run, NOTES: str(notes), WORK: str(root / "work"), TRACKING: tracking.model_dump_json()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _session(runner: Any, cache: ContentCache, root: Path) -> Iterator[None]:
    """kfp.local, set up, and with a cache that goes by content."""
    local.init(runner, pipeline_root=str(root / "runs"), enable_caching=True)
    own_print = replaced(builtins, print=print)  # kfp indents it, and forgets to stop where tasks run in parallel
    with own_print, replaced(kfp_cache, get_local_cache=lambda: cache), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*custom or non-Python base image|.*have no effect in the current local"
        )
        yield


@contextmanager
def _silence() -> Iterator[None]:
    """Kfp narrates on standard output, which is the plan's."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def replaced(where: Any, **names: Any) -> Iterator[None]:
    """Other values for some of a module's names, for as long as the block lasts."""
    before = {name: getattr(where, name) for name in names}
    for name, value in names.items():
        setattr(where, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(where, name, value)
