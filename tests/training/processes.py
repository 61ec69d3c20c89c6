"""A training step as one process and as several, killed on purpose or not."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.arch=unet",
    "model.encoder=resnet18",
    "model.weights=random",
    "pretrain.epochs=3",
    "pretrain.steps_per_epoch=5",
    "pretrain.batch_size=4",
    "pretrain.optimizer=sgd",
    "pretrain.lr=0.002",
    "pretrain.momentum=0.0",
    "pretrain.precision=fp32",
    "pretrain.checkpoint_every=3",
    "pretrain.threads=1",
]
TOLERANCE = 1e-3
"""Largest difference of a weight, float32, after 15 steps: sums over a batch are added up in another order, and a
network of random weights makes much of it. In float64 nothing is left of that: `EXACT`."""
EXACT = 1e-9


def torchrun(processes, *arguments, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += arguments
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


def step(folder, dataset, *more):
    settings = [word for setting in (*SETTINGS, *more) for word in ("-S", setting)]
    paths = ["--dataset", dataset, "--work", folder / "work", "--weights", folder / "model", "--log", folder / "log"]
    return ["segraft", "pretrain", *settings, *map(str, [*paths, "--metrics", folder / "metrics.json"])]


def weights(folder):
    return load_file(folder / "model/weights.safetensors")


def farthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def losses(folder):
    records = map(json.loads, (folder / "log/history.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


KILLING = """
import os, signal, sys
from pathlib import Path
from segraft.__main__ import main
from segraft.training import loop

step, marker = loop.Run._step, Path(os.environ["MARKER"])
def killing(self, batch):
    step(self, batch)
    if self.progress.step == int(os.environ["AT"]) and os.environ["RANK"] == "1" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), int(os.environ["NUMBER"]))
loop.Run._step = killing
sys.exit(main(sys.argv[1:]))
"""


def killed(folder, discs, number, at, *options, settings=(), **more):
    script = folder / "killing.py"
    script.write_text(textwrap.dedent(KILLING))
    environment = {"MARKER": str(folder / "marker"), "NUMBER": str(int(number)), "AT": str(at), "PYTHONPATH": str(ROOT)}
    return torchrun(2, *options, "--", str(script), *step(folder, discs, *settings)[1:], **environment, **more)
