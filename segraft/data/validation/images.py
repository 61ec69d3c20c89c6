"""What one image is: its kind, its hashes, and the statistics of its pixels."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segraft.data import reading
from segraft.data.validation.files import File, Header, decoded

GRID = 256
"""Longest side, in cells, of the small copy on which statistics and edges are taken; it bounds their cost."""
STATISTICS = ("brightness", "contrast", "warmth", "saturation", "detail")
"""Per image, compared between source and target: mean and standard deviation of luma, mean of red minus blue, mean of
the largest minus the smallest channel, mean of the absolute Laplacian; all in grey levels of 255."""

Pixels = NDArray[np.uint8]


def read_image(file: File) -> tuple[Pixels | None, dict[str, Any]]:
    """H×W×3 uint8 RGB, or None if pixels of this kind are not accepted; and what to record of it.

    Raises:
        Fault: undecodable_file.
    """
    kind, found = _kind(file.header)
    facts = {"image_kind": kind, "image_found": found}
    if kind not in (None, "palette_image", "opaque_alpha", "grey_image"):
        return None, facts
    pixels = file.decode(reading.read_image)
    height, width = pixels.shape[:2]
    return pixels, facts | {"height": height, "width": width, "image_size": f"{width}×{height}"}


def _kind(header: Header) -> tuple[str | None, str | None]:
    """The rule that this kind of image breaks, and what was found."""
    image = header.image
    if header.bits > 8:
        return "image_depth", f"{header.bits} bits a channel{_not_finite(image)}"
    grey = image.mode in ("1", "L", "LA")
    if not grey and image.mode not in ("RGB", "RGBA", "P", "PA"):
        return "image_colors", f"{image.mode} colours"
    if image.mode in ("RGBA", "PA", "LA") or "transparency" in image.info:
        low, high = decoded(image.convert, "RGBA").getchannel("A").getextrema()
        if low != 255:
            return "transparent_image", f"an alpha channel from {low} to {high}"
        if not grey:
            return "opaque_alpha", "an alpha channel that is opaque everywhere"
    if grey:
        return "grey_image", f"one channel ({image.mode})"
    return ("palette_image", "palette indices") if image.mode == "P" else (None, None)


def _not_finite(image: Image.Image) -> str:
    if image.mode != "F":
        return ""
    bad = int(np.count_nonzero(~np.isfinite(decoded(np.asarray, image))))
    return f" (floating point), {bad} of them NaN or infinite" if bad else " (floating point)"


def describe(pixels: Pixels, copy: Pixels) -> dict[str, Any]:
    """Hashes and statistics of an image and its `small` copy; the sha256 is of the decoded pixels and their shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    mean, std = (values.ravel() for values in cv2.meanStdDev(pixels))
    luma = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(copy)
    chroma = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    brightness, contrast = (float(value.item()) for value in cv2.meanStdDev(luma))
    return {
        "pixels_sha256": digest.hexdigest(),
        "dhash": difference_hash(luma),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "spread": float(std.max()),
        "brightness": brightness,
        "contrast": contrast,
        "warmth": float(mean[0] - mean[2]),
        "saturation": float(cv2.mean(chroma)[0]),
        "detail": float(cv2.mean(cv2.convertScaleAbs(cv2.Laplacian(luma, cv2.CV_16S)))[0]),
    }


def difference_hash(luma: Pixels) -> int:
    """64 bits: is each of 8×8 cells brighter than its left neighbour (dHash, Krawetz 2013).

    By more than a grey level, so that noise does not decide over even areas.
    """
    cells = cv2.resize(luma.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1] + 1).tobytes())


def factor(shape: tuple[int, ...]) -> int:
    """How many pixels of an H×W… image make a cell of its small copy; whole, for OpenCV is then 9 times faster.

    A strip that is thinner than such a cell is its own copy.
    """
    by = -(-max(shape[:2]) // GRID)
    return by if by <= min(shape[:2]) else 1


def small(pixels: NDArray[Any]) -> NDArray[Any]:
    """A copy at most GRID cells wide and high, each the mean of `factor`² pixels; a rest at the edge is left out."""
    by = factor(pixels.shape)
    height, width = pixels.shape[0] // by, pixels.shape[1] // by
    if by == 1:
        return pixels
    copy: NDArray[Any] = cv2.resize(pixels[: height * by, : width * by], (width, height), interpolation=cv2.INTER_AREA)
    return copy
