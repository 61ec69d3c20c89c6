"""What an engine costs on top of the steps: wall seconds of the whole pipeline under kfp's local runner and under DVC.

    python -m benchmarks.kubeflow [SECTION.KEY=VALUE …]

The peer is the same commands one after the other. Each runs in a copy of the working tree of its own, with the budgets
below (the smaller the steps, the larger an engine's share). Compiling is counted in CPU-seconds, with Python's start.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import machine
from benchmarks.startup import ROOT, stage_commands

SMALL: dict[str, dict[str, Any]] = {
    "streets": {"source": {"train": 64, "val": 12}, "target": {"train": 24, "val": 12, "test": 12}},
    "pretrain": {"epochs": 1, "steps_per_epoch": 20},
    "finetune": {"epochs": 1, "steps_per_epoch": 10},
}


def copy(folder: Path, settings: list[str]) -> Path:
    """The working tree's files as a repository of its own, with small budgets."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    given = [(*key.split(".", 1), yaml.safe_load(value)) for key, _, value in (one.partition("=") for one in settings)]
    for section, values in [*SMALL.items(), *((section, {key: value}) for section, key, value in given)]:
        for key, value in values.items():
            held = params[section][key]
            params[section][key] = held | value if isinstance(held, dict) else value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    author = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "copy"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def seconds(commands: list[list[str]], folder: Path) -> float:
    started = time.perf_counter()
    for command in commands:
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")
    return time.perf_counter() - started


def main() -> None:
    python, settings = sys.executable, sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folders = [copy(Path(name) / engine, settings) for engine in ("steps", "kubeflow", "dvc")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds([[python, "pipelines/run.py", "--compile", "pipeline.yaml"]], folders[1])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        bare = seconds(list(stage_commands(folders[0]).values()), folders[0])
        kubeflow = seconds([[python, "pipelines/run.py", "--local"]], folders[1])
        dvc = seconds([[python, "-m", "dvc", "repro"]], folders[2])
    print(machine())
    print(f"compile      {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:7.1f} CPU-s")
    print(f"steps alone  {bare:7.1f} s")
    print(f"kfp.local    {kubeflow:7.1f} s  {kubeflow / bare:.2f} x the steps alone")
    print(f"dvc repro    {dvc:7.1f} s  {dvc / bare:.2f} x the steps alone")


if __name__ == "__main__":
    main()
