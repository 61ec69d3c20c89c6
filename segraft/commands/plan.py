"""Say which steps would run, and why, under `dvc repro` and under kfp.local, before anything starts.

Each engine is asked through its own command line, for each knows best what it would do: segraft imports neither.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segraft.errors import UserError
from segraft.params import read_yaml

Plan = dict[str, list[str]]
"""Step → why it would run."""
RUNS = Path("build/kubeflow")
"""What kfp's local runs leave."""
ENGINES = {"dvc": "dvc repro", "kubeflow": "python pipelines/run.py --local"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft plan`."""
    parser.add_argument(
        "engine", nargs="?", choices=list(ENGINES), help="one alone (dvc, and kubeflow if it has run here)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON: engine → step → reasons")


def main(args: argparse.Namespace) -> None:
    """Print the plan of one engine, or of those that are used here.

    Raises:
        UserError: an engine is not installed here, or cannot read the project.
    """
    asked = {"dvc": dvc_plan, "kubeflow": kubeflow_plan}
    used = [name for name in ENGINES if name == "dvc" or RUNS.exists()]
    plans = {name: asked[name](Path()) for name in ([args.engine] if args.engine else used)}
    if args.json:
        print(json.dumps(plans))
        return
    for name, plan in plans.items():
        print(f"{ENGINES[name]}:")
        lines = [f"  {step:<10} {'; '.join(why)}" for step, why in plan.items()]
        print("\n".join(lines) or "  nothing: every output is there already")


def kubeflow_plan(project: Path) -> Plan:
    """What pipelines/run.py says."""
    plan: Plan = json.loads(_ask([sys.executable, "pipelines/run.py", "--local", "--plan", "--json"], project))
    return plan


def dvc_plan(project: Path) -> Plan:
    """What `dvc status` says, in our words, and the stages after those."""
    status = json.loads(_ask([sys.executable, "-m", "dvc", "status", "--json"], project))
    stages = _interpolated(read_yaml(project / "dvc.yaml")["stages"], read_yaml(project / "params.yaml"))
    lock = read_yaml(project / "dvc.lock") if (project / "dvc.lock").exists() else {"stages": {}}
    params = read_yaml(project / "params.yaml")
    plan: Plan = {}
    for name, stage in stages.items():
        before = lock["stages"].get(name)
        own = list(_reasons(status.get(name, []), before, params)) if before else ["it has not run yet"]
        after = [other for other in plan if set(_paths(stages[other], "outs", "metrics")) & set(_paths(stage, "deps"))]
        if own or after:
            plan[name] = own or [f"after {', '.join(after)}"]
    return plan


def _reasons(changes: Sequence[Any], locked: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """`dvc status` of one stage: a changed section is told by its keys."""
    for change in changes:
        if isinstance(change, str):
            yield {"changed command": "its command changed", "always changed": "it always runs"}.get(change, change)
            continue
        for path, how in (item for found in change.values() for item in found.items()):
            if isinstance(how, dict):
                known = locked.get("params", {}).get(path, {})
                yield from (line for key in how for line in _difference(key, known.get(key), params.get(key)))
            else:
                yield f"{path} {'is missing' if how == 'deleted' else f'is {how}'}"


def _difference(key: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for inner in {**before, **now}:
            if before.get(inner) != now.get(inner):
                yield from _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    else:
        yield f"{key}: {before} → {now}"


def _paths(stage: Mapping[str, Any], *kinds: str) -> list[str]:
    return [path if isinstance(path, str) else next(iter(path)) for kind in kinds for path in stage.get(kind, [])]


def _interpolated(value: Any, params: Mapping[str, Any]) -> Any:
    """dvc.yaml with its ${section.key} filled in."""
    if isinstance(value, dict):
        return {_interpolated(key, params): _interpolated(one, params) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one, params) for one in value]
    return re.sub(r"\$\{([\w.]+)\}", lambda m: str(_lookup(params, m[1])), value) if isinstance(value, str) else value


def _lookup(params: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        params = params[part]
    return params


def _ask(command: list[str], project: Path) -> str:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()
        said = why[-1] if why else f"exit status {done.returncode}"
        raise UserError(f"{' '.join(command[1:]).removeprefix('-m ')}: {said}")
    return done.stdout
