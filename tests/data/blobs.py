"""A small clean dataset for tests: coloured shapes whose masks follow their edges, as `format: folder` reads them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

NAMES = ("ground", "sky", "tree", "car", "wall")
COLORS = ((150, 110, 70), (90, 150, 230), (60, 150, 60), (200, 50, 50), (200, 190, 120))
TAXONOMY = {
    "name": "blobs",
    "void": {"ids": [255], "colors": [[0, 0, 0]]},
    "classes": [{"name": n, "color": list(c), "ids": [i]} for i, (n, c) in enumerate(zip(NAMES, COLORS, strict=True))],
}
SIZE = (96, 128)


@dataclass(frozen=True)
class Blobs:
    """Where a generated dataset lies; a sample is named as in "train/03"."""

    root: Path
    taxonomies: Path

    def image(self, sample: str) -> Path:
        return self.root / f"images/{sample}.png"

    def mask(self, sample: str) -> Path:
        return self.root / f"masks/{sample}.png"


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """H×W×3 uint8 RGB and H×W uint8 ids: sky over ground, with five shapes of every class, and noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[: int(height * rng.uniform(0.3, 0.6))] = 1
    for label in (2, 3, 4, 0, 2):
        center = rng.integers((0, 0), (width, height)).tolist()
        axes = rng.integers(8, 22, 2).tolist()
        cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    shade = rng.normal(0, 12, (len(NAMES), 3))
    image = np.clip(np.array(COLORS) + shade, 0, 255)[mask]
    image += np.linspace(*rng.normal(0, 10, 2), width)[None, :, None] + rng.normal(0, 5, (*size, 1))
    return cv2.GaussianBlur(np.clip(image, 0, 255), (3, 3), 0.6).astype(np.uint8), mask


def make_blobs(folder: Path, train: int = 12, val: int = 6, test: int = 6, seed: int = 0) -> Blobs:
    """Write a dataset and a taxonomy of its own."""
    blobs = Blobs(folder / "data", folder / "taxonomies")
    blobs.taxonomies.mkdir(parents=True)
    (blobs.taxonomies / "blobs.yaml").write_text(yaml.safe_dump(TAXONOMY))
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        (blobs.root / "images" / split).mkdir(parents=True)
        (blobs.root / "masks" / split).mkdir(parents=True)
        for index in range(count):
            image, mask = scene(seed + 1000 * number + index)
            Image.fromarray(image).save(blobs.image(f"{split}/{index:02}"))
            Image.fromarray(mask).save(blobs.mask(f"{split}/{index:02}"))
    return blobs
