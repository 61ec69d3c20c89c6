"""Tiny packed datasets that differ in what the planner looks at."""

import json
from dataclasses import dataclass, replace

import pandas as pd
import pytest

from segraft.data.mixing import PASTED
from segraft.data.packed import CARD, DatasetCard, PackedDataset, ShardWriter
from segraft.params import load_params
from segraft.steps import run
from tests.test_contract import ROOT
from tests.training.conftest import CLASSES, ONLINE, disc, discs  # noqa: F401

PARAMS = load_params(ROOT / "params.yaml")
MODEL = PARAMS.model.model_copy(update={"arch": "lraspp", "encoder": "mobilenet_v3_small", "weights": "random"})
TRAINING = PARAMS.finetune.model_copy(update={"epochs": 2, "steps_per_epoch": 4, "checkpoint_every": 0, "threads": 1})
PARAMS = PARAMS.model_copy(update={"model": MODEL, "finetune": TRAINING})


@dataclass(frozen=True)
class Look:
    """What a set of discs looks like."""

    train: int = 6
    val: int = 2
    unlabelled: int = 0
    source: int = 0
    night: bool = False
    blank: int = 0
    """how many of the train images show no disc"""
    tiny: bool = False
    """the disc has a handful of pixels"""
    pasted: int = 0
    """further train images, that were made of two others"""


PLAIN = Look()


def sample(seed, look, blank):
    made = disc(seed)
    mask = made.mask.copy()
    if look.tiny or blank:
        mask[mask == 1] = 0
    if look.tiny and not blank:
        mask[40:46, 40:46] = 1
    return replace(made, mask=mask, image=255 - made.image[..., ::-1] if look.night else made.image)


def pack(folder, look=PLAIN):
    splits = {}
    counts = {"train": look.train, "val": look.val, "unlabelled": look.unlabelled, "source": look.source}
    for i, (split, count) in enumerate(counts.items()):
        writer = ShardWriter(folder, split, len(CLASSES), "raw", 1)
        for n in range(count):
            writer.add(sample(100 * i + n, look, split == "train" and n < look.blank))
        for n in range(look.pasted if split == "train" else 0):
            writer.add(replace(sample(n, look, False), id=f"disc+paste{n}", tags=(PASTED,)))
        splits[split] = writer.close()
    card = DatasetCard(taxonomy="discs", classes=CLASSES, codec="raw", crop=(64, 64), online=ONLINE, splits=splits)
    (folder / CARD).write_text(json.dumps(card.model_dump()))
    return folder


def manifest(dataset: PackedDataset):
    """What validate would have written of the train images."""
    rows = [("train", s.group, *s.mask.shape) for s in dataset.split("train") if PASTED not in s.tags]
    return pd.DataFrame(rows, columns=["split", "group", "height", "width"])


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, discs):  # noqa: F811
    folder = tmp_path_factory.mktemp("planned")
    settings = TRAINING.model_copy(update={"epochs": 1, "steps_per_epoch": 2})
    paths = {"dataset": discs, "work": folder / "work", "weights": folder / "model", "log": folder / "log"}
    run("pretrain", {"model": MODEL, "pretrain": settings.model_dump()}, paths)
    return folder / "model"
