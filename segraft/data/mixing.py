"""Mixing two labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.transforms import IGNORE

Pixels = NDArray[np.uint8]
PASTED = "pasted"
"""Tag of a packed sample that was made of two others; such samples come after those that were labelled."""


def copy_paste(
    image: Pixels, mask: Pixels, guest: Pixels, guest_mask: Pixels, classes: Sequence[int], rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Paste the guest's pixels of some classes into an image: Simple Copy-Paste (Ghiasi et al. 2021).

    The guest is mirrored half of the time and zoomed by 0.7 to 1.4 about its middle, so that what stands on a road
    still stands on one; edges are feathered by a pixel.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 trainIds.
        guest: (h, w, 3) uint8 RGB.
        guest_mask: (h, w) uint8 trainIds.
        classes: trainIds to paste.
        rng: the only source of chance.

    Returns:
        A new image and mask of the first pair's size.
    """
    height, width = mask.shape
    zoom = rng.uniform(0.7, 1.4) * np.array([width / guest_mask.shape[1], height / guest_mask.shape[0]])
    mirror = 1 if rng.random() < 0.5 else -1
    middle, guest_middle = np.array([width, height]) / 2, np.array(guest_mask.shape[::-1]) / 2
    linear = np.diag(zoom * [mirror, 1])
    matrix = np.column_stack([linear, middle - linear @ guest_middle])
    border = cv2.BORDER_REPLICATE  # black would show as a rim where an object touches the edge of its photograph
    guest = cv2.warpAffine(guest, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
    guest_mask = cv2.warpAffine(guest_mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(IGNORE,))
    chosen = np.isin(guest_mask, classes)
    alpha = cv2.GaussianBlur(chosen.astype(np.float32), (0, 0), 0.7)[..., None]
    blended = (alpha * guest + (1 - alpha) * image + 0.5).astype(np.uint8)
    return blended, np.where(chosen, guest_mask, mask)
