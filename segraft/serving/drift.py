"""Drift: how far the images and answers of late are from those of training.

Each image is summed up in a few numbers. The reference holds their histograms over the training images, between
deciles; the population stability index (PSI; Siddiqi, Credit Risk Scorecards, 2006) compares the latest images with
it. Below 0.1 is called stable, above 0.25 a shift that asks for action.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from segraft.params import Section, build, parse_json
from segraft.serving.images import Pixels

SERVING = "serving.json"
"""The file of a model folder that export writes; its key `reference` is a `Reference`."""
MODERATE, MAJOR = 0.1, 0.25
CENTRE = 256
"""Side of the crop on which sharpness is measured."""


class Histogram(Section):
    """One statistic over the training images: shares of the bins between, below and above the edges."""

    edges: tuple[float, ...]
    shares: tuple[float, ...] = Field(min_length=1)
    mean: float


class Reference(Section):
    """What the training images looked like to the model."""

    images: int = Field(ge=1)
    statistics: dict[str, Histogram]


def statistics(image: Pixels, pixels: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """An image and its answer in a few numbers.

    Args:
        image: (H, W, 3) uint8 RGB.
        pixels: (C,) pixels of each class in the answer.
        names: of the classes.
    """
    thumbnail = np.ascontiguousarray(image[:: max(1, image.shape[0] // 128), :: max(1, image.shape[1] // 128)])
    top, left = (max(0, (side - CENTRE) // 2) for side in image.shape[:2])
    grey = cv2.cvtColor(np.ascontiguousarray(image[top : top + CENTRE, left : left + CENTRE]), cv2.COLOR_RGB2GRAY)
    red, _, blue, _ = cv2.mean(thumbnail)
    brightness, contrast = _mean_and_deviation(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY))
    numbers = {
        "brightness": brightness,
        "contrast": contrast,
        "warmth": red - blue,
        "sharpness": math.log1p(_mean_and_deviation(cv2.Laplacian(grey, cv2.CV_16S))[1] ** 2),
        "aspect": image.shape[1] / image.shape[0],
    }
    shares = pixels / max(1, int(pixels.sum()))
    return numbers | {f"area.{name}": float(share) for name, share in zip(names, shares, strict=True)}


def _mean_and_deviation(values: NDArray[Any]) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(values)  # in one pass, without the copies that NumPy makes
    return float(mean[0, 0]), float(deviation[0, 0])


def summarize(rows: Iterable[Mapping[str, float]]) -> Reference:
    """The reference of the training images' statistics; "confidence" may be among them."""
    table = list(rows)
    names = [name for name in table[0] if all(name in row for row in table)]
    return Reference(images=len(table), statistics={name: _histogram([row[name] for row in table]) for name in names})


def _histogram(values: list[float]) -> Histogram:
    edges = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    shares = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values)
    return Histogram(edges=tuple(edges.tolist()), shares=tuple(shares.tolist()), mean=float(np.mean(values)))


def read_reference(folder: Path) -> Reference | None:
    """The reference that export measured, if the model folder has one.

    Raises:
        UserError: it has one that cannot be read.
    """
    path = folder / SERVING
    if not path.is_file():
        return None
    told = parse_json(path.read_bytes(), str(path))
    found = told.get("reference") if isinstance(told, dict) else told
    reference: Reference | None = build(Reference, found, f"{path}: reference") if found is not None else None
    return reference


def compare(reference: Reference, rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """PSI and level of each statistic that both know.

    Chance alone makes a PSI of about (bins - 1) (1 / reference + 1 / live images); a level is only given beyond it.
    """
    found = {}
    for name, expected in reference.statistics.items():
        values = [row[name] for row in rows if name in row]
        if values:
            psi, chance = _psi(expected, values, reference.images)
            level = "major" if psi > MAJOR + chance else "moderate" if psi > MODERATE + chance else "stable"
            means = {"reference_mean": expected.mean, "live_mean": float(np.mean(values))}
            found[name] = {"psi": psi, "chance": chance, "level": level, "images": len(values), **means}
    return found


def _psi(expected: Histogram, values: list[float], reference_images: int) -> tuple[float, float]:
    bins = len(expected.shares)
    counts = np.bincount(np.searchsorted(expected.edges, values), minlength=bins)
    live = (counts + 0.5) / (len(values) + 0.5 * bins)
    before = np.asarray(expected.shares) * reference_images
    before = (before + 0.5) / (reference_images + 0.5 * bins)
    psi = float(((live - before) * np.log(live / before)).sum())
    return psi, (bins - 1) * (1 / len(values) + 1 / reference_images)
