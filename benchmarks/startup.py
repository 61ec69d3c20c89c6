"""CPU-seconds of the pipeline's processes when there is next to nothing to do: imports and set-up.

    python -m benchmarks.startup

Runs every stage's command on the smallest data that passes, as `dvc repro` would, one process each; the peer is a stage
that imports everything at its top; the floor a pipeline whose processes import what `LIBRARIES` says, and do nothing.
Bytecode is compiled before, by an unmeasured round.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.common import machine

ROOT = Path(__file__).parents[1]
EVERYTHING = "import torch, torchvision, segmentation_models_pytorch, mlflow, great_expectations, pandas, cv2"
LIBRARIES = {"torch, timm": 5, "great_expectations": 1, "mlflow": 1}
"""What the stages cannot do without → how many import it; timm brings torchvision, and that torch._dynamo."""
AS_A_STAGE = "from segraft.processes import collect_rarely; collect_rarely(); import {}"
TINY = {
    "streets.size": [96, 192],
    "streets.source": {"train": 40, "val": 12, "test": 0, "conditions": ["clear"]},
    "streets.target": {"train": 24, "val": 12, "test": 12, "conditions": ["night"]},
    "augment.crop": [32, 32],
    "pretrain.epochs": 0,
    "finetune.epochs": 0,
}


def cpu_seconds(command: list[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stage_commands(project: Path) -> dict[str, list[str]]:
    """Stage → its command in a project's dvc.yaml, in pipeline order."""
    data = yaml.safe_load((project / "params.yaml").read_text())["data"]
    commands = {}
    for name, stage in yaml.safe_load((project / "dvc.yaml").read_text())["stages"].items():
        command = stage["cmd"]
        for which in ("source", "target"):
            command = command.replace(f"${{data.{which}.path}}", data[which]["path"])
        commands[name] = [sys.executable, *shlex.split(command)[1:]]
    return commands


def stages(folder: Path) -> dict[str, float]:
    """Stage → CPU-seconds, run in pipeline order."""
    changes = [word for key, value in TINY.items() for word in ("-S", f"{key}={value}")]
    (folder / "data").mkdir(exist_ok=True)
    if not (folder / "data" / "taxonomies").exists():
        (folder / "data" / "taxonomies").symlink_to(ROOT / "data" / "taxonomies")
        (folder / "params.yaml").symlink_to(ROOT / "params.yaml")
    seconds = {}
    for name, command in stage_commands(ROOT).items():
        seconds[name] = cpu_seconds([*command, *changes], folder)
    return seconds


def main() -> None:
    everything = [sys.executable, "-c", EVERYTHING]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages(folder)
        cpu_seconds(everything, folder)
        seconds = stages(folder)
        peer = cpu_seconds(everything, folder)
        floors = {name: cpu_seconds([sys.executable, "-c", AS_A_STAGE.format(name)], folder) for name in LIBRARIES}
    print(machine())
    for stage, spent in seconds.items():
        print(f"{stage:<12}{spent:6.1f} CPU-s")
    total = sum(seconds.values())
    print(f"{'together':<12}{total:6.1f} CPU-s; importing everything {len(seconds)} times: {peer * len(seconds):.1f}")
    floor = sum(count * floors[name] for name, count in LIBRARIES.items())
    parts = ", ".join(f"{LIBRARIES[name]} × {name} {spent:.1f}" for name, spent in floors.items())
    print(f"{'floor':<12}{floor:6.1f} CPU-s: {parts}")


if __name__ == "__main__":
    main()
