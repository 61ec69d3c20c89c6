"""What was found in an image, as clients read it; made of the files that a server or the engine answers with."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class ClassFound:
    """A class that the model knows, and how much of the image it is.

    Attributes:
        id: trainId: its value in the mask.
        name: of the class.
        color: RGB, 0 … 255.
        pixels: how many have it.
        share: of all pixels, 0 … 1.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    pixels: int
    share: float


@dataclass(frozen=True)
class Segmentation:
    """One image's answer, in the size and orientation of the pixels as the file stores them.

    Attributes:
        mask: (H, W) uint8 trainIds.
        classes: all that the model knows, by trainId.
        confidence: (H, W) float32, 0 … 1 in steps of 1/255: softmax of the winning class; None if not asked for.
        mask_png: the mask as a PNG with the classes' colours as palette.
        overlay_png: the classes' colours over the picture as a PNG; None if not asked for.
        model: which one answered: NAME/VERSION;sha256=…
        seconds: that it took, as seen by the one who asked.
    """

    mask: NDArray[np.uint8]
    classes: tuple[ClassFound, ...]
    confidence: NDArray[np.float32] | None
    mask_png: bytes
    overlay_png: bytes | None
    model: str
    seconds: float

    @classmethod
    def of(cls, files: Mapping[str, bytes], model: str, seconds: float) -> Self:
        """Read the outputs "mask", "area" and, where they are, "confidence" and "overlay"."""
        picture = Image.open(io.BytesIO(files["mask"]), formats=["PNG"])
        palette = picture.getpalette() or []
        classes = tuple(
            ClassFound(i, c["class"], (palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]), c["pixels"], c["share"])
            for i, c in enumerate(json.loads(files["area"])["classes"])
        )
        confidence = None
        if "confidence" in files:
            grey = Image.open(io.BytesIO(files["confidence"]), formats=["PNG"])
            confidence = np.asarray(grey, np.float32) / np.float32(255)
        mask = np.asarray(picture, np.uint8)
        return cls(mask, classes, confidence, files["mask"], files.get("overlay"), model, seconds)


def outputs_for(confidence: bool, overlay: bool) -> tuple[str, ...]:
    """The outputs to ask for, by the names that `segraft.serving.asks.Options` knows."""
    return ("mask", "area", *(["confidence"] if confidence else []), *(["overlay"] if overlay else []))
