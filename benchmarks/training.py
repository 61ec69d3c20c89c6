"""Training from files to step, and the loader alone, against torchvision's references/segmentation recipe.

    python benchmarks/training.py [--rounds 5]

Same network (DeepLabV3+ on ResNet-18), files (360×480 PNG), crop (224×224), batch (8), optimizer (SGD) and geometric
augmentation (scale 0.5 to 2, flip, crop) on both sides, on all cores of the machine. The peer: fp32, PIL transforms,
torch.utils.data.DataLoader with 2 workers. Ours: the packed dataset (made once; its making is timed too), one loader
thread, bf16 where the hardware gains by it, channels_last. The two take turns of a few steps; medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

from benchmarks.common import interleaved, report, write_files
from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.data.loader import Loader
from segraft.data.packed import CARD, DatasetCard, Packed, PackedDataset, ShardWriter
from segraft.data.reading import read_image
from segraft.device import setup
from segraft.models import create_model
from segraft.params import Online, load_params
from segraft.training.checkpoints import CheckpointStore
from segraft.training.loop import Run

CROP, BATCH, CLASSES, STEPS, FILES = 224, 8, 34, 6, 96
READY = 4
"""Two workers times DataLoader's prefetch_factor of two."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class References(Dataset):
    """torchvision's references/segmentation: presets.SegmentationPresetTrain with the PIL backend."""

    def __init__(self, pairs, base=360):
        self.pairs, self.low, self.high = pairs, int(0.5 * base), int(2.0 * base)

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, target = Image.open(self.pairs[index][0]).convert("RGB"), Image.open(self.pairs[index][1])
        size = random.randint(self.low, self.high)
        image = F.resize(image, size, antialias=True)
        target = F.resize(target, size, interpolation=F.InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, target = F.hflip(image), F.hflip(target)
        image, target = self.pad(image, 0), self.pad(target, 255)
        top, left = (random.randint(0, side - CROP) for side in (image.height, image.width))
        image, target = F.crop(image, top, left, CROP, CROP), F.crop(target, top, left, CROP, CROP)
        tensor = F.normalize(F.convert_image_dtype(F.pil_to_tensor(image), torch.float), MEAN, STD)
        return tensor, torch.as_tensor(np.array(target), dtype=torch.int64)

    @staticmethod
    def pad(image, fill):
        right, bottom = max(0, CROP - image.width), max(0, CROP - image.height)
        return F.pad(image, [0, 0, right, bottom], fill=fill)


class Peer:
    """train_one_epoch of the recipe, a few steps at a time."""

    def __init__(self, pairs):
        loader = DataLoader(
            References(pairs), BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
        )
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))
        torch.manual_seed(0)
        self.model = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=CLASSES).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)

    def use_up_what_is_ready(self):
        """Batches that the workers made outside of the peer's turn would flatter it."""
        for _ in range(READY):
            next(self.batches)

    def load(self):
        for _ in range(STEPS):
            next(self.batches)

    def train(self):
        for image, target in itertools.islice(self.batches, STEPS):
            loss = torch.nn.functional.cross_entropy(self.model(image), target, ignore_index=255)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()


class Ours:
    """segraft's own loop on the packed files, a few steps at a time."""

    def __init__(self, packed, work):
        params = load_params(Path("params.yaml"))
        knobs = {"optimizer": "sgd", "ema": 0.0, "clip_norm": 0.0, "class_weights": "none", "checkpoint_every": 0}
        training = params.finetune.model_copy(update={"batch_size": BATCH, "epochs": 10**6, **knobs})
        device = setup(0)
        card = ModelCard(
            arch="deeplabv3plus",
            encoder="resnet18",
            taxonomy="labels",
            classes=packed.card.classes,
            preprocessing=Preprocessing(mean=MEAN, std=STD),
        )
        model = create_model("deeplabv3plus", "resnet18", CLASSES).to(device)
        self.run = Run(model, card, packed, training, device, CheckpointStore(work, "0" * 16))
        self.batches = Loader(packed, BATCH, seed=0).batches(0, 10**9)

    def load(self):
        for _ in range(STEPS):
            next(self.batches)

    def train(self):
        for batch in itertools.islice(self.batches, STEPS):
            self.run._step(batch)


def pack(pairs, folder):
    """The files as one packed split, labels as they are."""
    writer = ShardWriter(folder, "train", CLASSES, "raw", 64)
    for image, mask in pairs:
        labels = np.array(Image.open(mask))
        writer.add(
            Packed(image.stem, "", (), read_image(image), np.where(labels < CLASSES, labels, 255).astype(np.uint8))
        )
    online = Online(flip=0.5, rotate=0, scale=(0.5, 2), color=0, noise=0, blur=0, rare_crop=0)
    classes = tuple(ClassCard(name=str(i), color=(i, i, i)) for i in range(CLASSES))
    card = DatasetCard(
        taxonomy="labels",
        classes=classes,
        codec="raw",
        crop=(CROP, CROP),
        online=online,
        splits={"train": writer.close()},
    )
    (folder / CARD).write_text(json.dumps(card.model_dump()))
    return PackedDataset(folder)


def matrix_products(side=2048, turns=5):
    """Rates in float32 and bfloat16: how far they are apart bounds the gain, and changes with the machine's load."""
    square = torch.randn(side, side)
    halved = square.bfloat16()
    times = interleaved({"float32": lambda: square @ square, "bfloat16": lambda: halved @ halved}, turns)
    print("matrix products: " + ", ".join(f"{2e-12 * side**3 / t:.2f} TFLOP/s in {name}" for name, t in times.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help=f"turns of {STEPS} steps each")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = write_files(folder, FILES)
        peer = Peer(pairs)
        started = time.perf_counter()
        packed = pack(pairs, folder / "packed")
        print(f"packing once, one thread: {FILES / (time.perf_counter() - started):.0f} images/s")
        ours = Ours(packed, folder / "work")
        images = STEPS * BATCH
        # The workers refill their queue in the peer's absence: not in our turn, and not for free in theirs.
        before = {"references": peer.use_up_what_is_ready, "segraft": lambda: time.sleep(2)}
        print("loader alone:")
        report(
            interleaved({"references": peer.load, "segraft": ours.load}, rounds, before), "references", images, "images"
        )
        matrix_products()
        print("files to step:")
        report(
            interleaved({"references": peer.train, "segraft": ours.train}, rounds, before),
            "references",
            images,
            "images",
        )


if __name__ == "__main__":
    main()
