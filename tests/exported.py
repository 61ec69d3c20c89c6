"""A small trained model and what export makes of it, for the tests of runtimes and of compression."""

from __future__ import annotations

from pathlib import Path

import pytest

KNOBS = {"images": 2, "calibration_images": 4, "max_miou_loss": 5.0, "min_agreement": 0.9, "threads": 1}
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.3)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `packed` and `finetuned`, a U-Net that has learned to see discs."""
    from tests.training.conftest import pack

    folder = tmp_path_factory.mktemp("learned")
    pack(folder / "packed")
    _train(folder / "finetuned")
    return folder


def export(learned: Path, exported: Path, runtimes: tuple[str, ...], **knobs: object) -> dict[str, float]:
    """Run the step; returns its metrics."""
    from segraft.steps import run

    paths = {"finetuned": learned / "finetuned", "dataset": learned / "packed", "exported": exported}
    return run("export", {"export": {"runtimes": runtimes, **KNOBS, **knobs}}, paths)


def _train(folder: Path) -> None:
    import numpy as np
    import torch

    from segraft.checkpoint import ModelCard, Preprocessing, save_model
    from segraft.models import create_model
    from tests.training.conftest import CLASSES, disc

    torch.manual_seed(0)
    how = Preprocessing(mean=MEAN, std=STD)
    card = ModelCard(arch="unet", encoder="efficientnet_lite0", taxonomy="discs", classes=CLASSES, preprocessing=how)
    network = create_model(card.arch, card.encoder, len(CLASSES))
    samples = [disc(seed) for seed in range(8)]
    images = torch.from_numpy(np.stack([s.image[:64, :96] for s in samples])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([s.mask[:64, :96] for s in samples])).long()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network((images / 255 - mean) / std), masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(folder, network.eval(), card)
