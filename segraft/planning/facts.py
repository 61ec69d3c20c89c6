"""What the planner measures of the data: labels, classes, objects, resolution, and how far the source is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.progress import progress

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 16
"""Pixels below which a connected component is taken for noise of the label."""
MOST_MASKS = 200
"""Masks that objects are looked for in, evenly spaced over the split."""
TYPICAL = 75
"""Percentile of the classes whose median object a crop is to hold."""
STEPS, PASSES = 500, 20
"""BiT-HyperRule's steps for a small dataset (Kolesnikov et al. 2020), and how often a larger one is seen."""


@dataclass(frozen=True)
class Objects:
    """The connected components of the masks."""

    extent: tuple[int, int]
    """height and width, pixels, that hold the median object of three quarters of the classes"""
    smallest: float
    """pixels of the median object of the class whose objects are smallest"""


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    The fields after `noise` are known once the machine was asked; until then every budget is short.
    """

    images: int
    groups: int
    val: int
    unlabelled: int
    mixed: int
    """source images packed with the target"""
    size: tuple[int, int]
    """median height and width of the packed train images"""
    native: tuple[int, int]
    """the same of the files, as the manifest knows them"""
    imbalance: float
    """pixels of the commonest class over those of the rarest that occurs"""
    rare_share: float
    """share of the images that show the class that fewest show"""
    extent: tuple[int, int]
    smallest: float
    norms: bool
    """whether the network has BatchNorm"""
    source: int
    """images that the pretrained model has learned from (0: it was not trained)"""
    distance: float | None
    """KID between source and target; None without a source"""
    noise: float | None
    """what the KID stays below in 95 % of random splits of the same images"""
    compute: int = 0
    """pixels that training may see"""
    crop: tuple[int, int] = (0, 0)
    """of the packed data; then the chosen one"""
    batch: int = 0
    capped: bool = False
    """a larger batch would be faster, but leave fewer steps than the data wants of as many pixels as now"""
    images_per_second: float = 0.0
    fastest: float = 0.0
    """images a second at the best batch size"""
    steps: int = 0
    """that the compute allows"""
    lr: float | None = None
    """that the range test found; None: it found none"""
    lr_why: str = ""
    """the range test in words"""
    lr_before: float = 0.0
    """that the params had"""

    @property
    def shifted(self) -> bool:
        """Whether source and target look different to the encoder, beyond chance; unknown counts as different."""
        return self.distance is None or self.noise is None or self.distance > self.noise

    @property
    def wanted(self) -> int:
        """Steps that the data is worth: 500, or twenty passes over a larger dataset."""
        return max(STEPS, PASSES * self.images // max(1, self.batch))

    @property
    def short(self) -> bool:
        """Whether the compute allows fewer steps than that."""
        return self.steps < self.wanted

    @property
    def gap(self) -> str:
        """The distance in words."""
        if self.distance is None or self.noise is None:
            return "no source"
        return f"KID {self.distance:.3g}, chance alone gives up to {self.noise:.3g}"


def measure(
    dataset: PackedDataset,
    manifest: pd.DataFrame,
    source: int,
    distance: tuple[float, float] | None,
    norms: bool,
) -> Facts:
    """The facts of a packed target.

    Args:
        dataset: the packed target.
        manifest: its manifest.
        source: images that the pretrained model has learned from.
        distance: KID and what chance alone gives, if there is a source.
        norms: whether the network has BatchNorm.

    Raises:
        UserError: there are no train images, or none shows a class.
    """
    train, rows = dataset.split("train"), manifest[manifest["split"] == "train"]
    images = min(len(train), len(rows))  # copies with pasted objects, which are packed after these, hold no new labels
    if not images or not any(train.card.class_pixels):
        raise UserError(
            f"{dataset.location}: no labelled train image to plan for; run the augment step on labelled data"
        )
    chosen = np.unique(np.linspace(0, images - 1, min(images, MOST_MASKS)).round().astype(int))
    masks = [train[int(i)].mask for i in progress(chosen, "look at the labels")]
    classes = len(dataset.card.classes)
    found, pixels = objects(masks, classes), np.array(train.card.class_pixels)
    shown = np.array([sum(bool((mask == c).any()) for mask in masks) for c in range(classes)])
    return Facts(
        images=images,
        groups=int(rows["group"].nunique()),
        val=len(dataset.split("val")),
        unlabelled=len(dataset.split("unlabelled")),
        mixed=len(dataset.split("source")),
        size=_median_size([mask.shape for mask in masks]),
        native=_median_size(rows[["height", "width"]].to_numpy().tolist()),
        imbalance=float(pixels.max() / pixels[pixels > 0].min()),
        rare_share=float(shown[shown > 0].min() / len(masks)),
        extent=found.extent,
        smallest=found.smallest,
        norms=norms,
        source=source,
        distance=distance[0] if distance else None,
        noise=distance[1] if distance else None,
        crop=dataset.card.crop,
    )


def objects(masks: Sequence[NDArray[np.uint8]], classes: int) -> Objects:
    """The connected components (8 neighbours) of (H, W) uint8 trainIds, by class; specks are left out."""
    boxes: dict[int, list[NDArray[np.int32]]] = {}
    for mask in masks:
        for label in np.unique(mask[mask < classes]).tolist():
            stats = cv2.connectedComponentsWithStats((mask == label).astype(np.uint8))[2][1:]
            boxes.setdefault(label, []).append(stats[stats[:, cv2.CC_STAT_AREA] >= SMALLEST])
    every = [np.concatenate(of_class) for of_class in boxes.values()]
    medians = np.array([np.median(of_class, axis=0) for of_class in every if len(of_class)])
    if not len(medians):
        return Objects((0, 0), 0.0)
    height, width = (np.percentile(medians[:, i], TYPICAL) for i in (cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH))
    return Objects((round(height), round(width)), float(medians[:, cv2.CC_STAT_AREA].min()))


def _median_size(sizes: Sequence[Sequence[int]]) -> tuple[int, int]:
    height, width = np.median(np.array(sizes).reshape(-1, 2), axis=0) if len(sizes) else (0, 0)
    return int(height), int(width)
