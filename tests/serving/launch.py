"""`python -m tests.serving.launch FOLDER …`: make a small untrained model, once, note what it answers, and serve it."""

import sys
from pathlib import Path

import numpy as np

CLASSES = {"road": (128, 64, 128), "tree": (107, 142, 35), "sky": (70, 130, 180), "car": (0, 0, 142)}
SIZES = {"small": (64, 96), "odd": (45, 71), "large": (160, 224)}


def sample(name: str) -> np.ndarray:
    """(H, W, 3) uint8: blobs of colour, so that the untrained network says different things of different places."""
    import cv2

    height, width = SIZES[name]
    coarse = np.random.default_rng(len(name)).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def make(folder: Path) -> None:
    """Write a model folder, and in expected.npz beside it ids and logits of the samples."""
    import torch

    from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, save_model
    from segraft.models import create_model
    from segraft.serving.runtime import open_runtime

    torch.manual_seed(1)
    card = ModelCard(
        arch="unet",
        encoder="efficientnet_lite0",
        taxonomy="test",
        classes=tuple(ClassCard(name=name, color=color) for name, color in CLASSES.items()),
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    )
    save_model(folder, create_model(card.arch, card.encoder, len(card.classes)), card)
    runtime, expected = open_runtime(folder, "torch", 1), {}
    for name in SIZES:
        prediction = runtime.predict(sample(name)[None], logits=True)
        assert prediction.logits is not None and len(np.unique(prediction.ids)) > 1
        expected[name], expected[f"{name}.logits"] = prediction.ids[0], prediction.logits[0]
    np.savez(folder.with_suffix(".npz"), **expected)


if __name__ == "__main__":
    from segraft.__main__ import main

    if not Path(sys.argv[1]).exists():
        make(Path(sys.argv[1]))
    sys.exit(main(["serve", *sys.argv[1:]]))
