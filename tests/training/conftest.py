import json
import subprocess
import sys

import numpy as np
import pytest

from segraft.checkpoint import ClassCard
from segraft.data.packed import CARD, DatasetCard, Packed, ShardWriter
from segraft.params import Online
from tests.training.processes import ROOT, step, torchrun

ONLINE = Online(flip=0.5, rotate=5, scale=(0.75, 1.5), color=0.3, noise=3, blur=0.1, rare_crop=0.3)
CLASSES = (ClassCard(name="ground", color=(90, 60, 30)), ClassCard(name="disc", color=(230, 30, 30)))


def disc(seed: int, height: int = 72, width: int = 100) -> Packed:
    """A red disc on brown ground: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = ((y - rng.integers(20, height - 20)) ** 2 + (x - rng.integers(20, width - 20)) ** 2 < 15**2).astype(np.uint8)
    mask[0] = 255
    colors = np.array([c.color for c in CLASSES], np.float32)
    image = colors[np.minimum(mask, 1)] + rng.normal(0, 12, (height, width, 3))
    return Packed(f"disc_{seed:03d}", "discs", (), image.clip(0, 255).astype(np.uint8), mask)


def pack(
    folder, train=6, val=3, codec="raw", crop=(64, 64), shard_mb=1, further=None, names=(), kin=None, taxonomy="discs"
):
    """A packed dataset; `further` split → (first seed, samples), `names` of its classes, if not those of the discs."""
    classes = tuple(ClassCard(name=n, color=(i, i, i)) for i, n in enumerate(names)) or CLASSES
    splits = {}
    for split, (first, count) in {"train": (0, train), "val": (100, val), "test": (200, 2), **(further or {})}.items():
        writer = ShardWriter(folder, split, len(classes), codec, shard_mb)
        for seed in range(first, first + count):
            writer.add(disc(seed))
        splits[split] = writer.close()
    card = DatasetCard(
        taxonomy=taxonomy, classes=classes, codec=codec, crop=crop, online=ONLINE, splits=splits, kin=kin or {}
    )
    (folder / CARD).write_text(json.dumps(card.model_dump()))
    return folder


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory, discs):
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", *step(folder, discs)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def together(tmp_path_factory, discs):
    folder = tmp_path_factory.mktemp("together")
    done = torchrun(2, "-m", "--", *step(folder, discs))
    assert done.returncode == 0, done.stderr
    return folder
