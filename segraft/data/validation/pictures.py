"""Small pictures of samples for the report, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segraft.data.taxonomy import UNKNOWN
from segraft.data.validation.facts import Source
from segraft.data.validation.files import Fault, File, decoded

WIDTH = 220
LOUD = (255, 0, 170)
"""Colour of pixels whose code the taxonomy does not know."""


def pictures(facts: pa.Table, row: int, source: Source, with_mask: bool) -> list[tuple[str, str]]:
    """(caption, data URI) of a sample's image, and of its mask over it; what cannot be decoded is left out."""
    sample = facts.slice(row, 1).to_pylist()[0]
    image = _open(source, sample["image"])
    shown = [("image", image)] if image else []
    if with_mask:
        labels = _labels(source, sample["mask"])
        if labels is not None:
            caption = "mask (pink: unknown)" if (labels == UNKNOWN).any() else "mask"
            shown.append((caption, overlay(image, labels, source.masks.taxonomy.palette)))
        elif (mask := _open(source, sample["mask"])) is not None:
            shown.append(("mask as it is", mask))
    return [(caption, _uri(picture)) for caption, picture in shown]


def _open(source: Source, relative: str) -> Image.Image | None:
    try:
        image = source.open(relative).header.image
        return decoded(lambda: ImageOps.exif_transpose(image).convert("RGB"))
    except Fault:
        return None


def _labels(source: Source, relative: str) -> NDArray[np.uint8] | None:
    try:
        file: File = source.open(relative)
        return source.masks.read(file)[0]
    except Fault:
        return None


def overlay(image: Image.Image | None, labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """The mask in its classes' colours, half transparent over the image where both have one size."""
    colors = palette.copy()
    colors[UNKNOWN] = LOUD
    mask = Image.fromarray(labels).resize(_fit(labels.shape[1], labels.shape[0]), Image.Resampling.NEAREST)
    colored = Image.fromarray(colors[np.asarray(mask)])
    if image is None or image.size != labels.shape[::-1]:
        return colored
    return Image.blend(image.resize(colored.size, Image.Resampling.BILINEAR), colored, 0.55)


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, WIDTH / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 72, "optimize": True}
    picture.resize(_fit(*picture.size), Image.Resampling.BILINEAR, reducing_gap=2.0).save(buffer, "JPEG", **options)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
