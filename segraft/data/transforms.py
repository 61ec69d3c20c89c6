"""Random crops of image and mask together: one affine warp and one colour matrix, all in uint8."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.params import Online

IGNORE = 255
Pixels = NDArray[np.uint8]
_GREY = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def random_crop(
    image: Pixels, mask: Pixels, crop: tuple[int, int], online: Online, rare: Sequence[int], rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A random crop for training; the mask moves with the image, and what lies outside the image is ignored.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 trainIds, 255 ignored.
        crop: height and width of the result.
        online: the knobs.
        rare: trainIds on which a share `online.rare_crop` of the crops is centred.
        rng: the only source of chance.

    Returns:
        (h, w, 3) uint8 RGB and (h, w) uint8.
    """
    matrix = _affine(mask, crop, online, rare, rng)
    size = (crop[1], crop[0])
    flags = cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, matrix, size, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.warpAffine(mask, matrix, size, flags=flags | cv2.INTER_NEAREST, borderValue=(IGNORE,))
    return _photometric(image, online, rng), mask


def _affine(
    mask: Pixels, crop: tuple[int, int], online: Online, rare: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(2, 3) map from pixels of the crop to pixels of the image."""
    low, high = np.log(online.scale)
    zoom = np.exp(rng.uniform(low, high))
    angle = np.deg2rad(rng.uniform(-online.rotate, online.rotate))
    mirror = -1.0 if rng.random() < online.flip else 1.0
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    linear = np.array([[mirror * cosine, -sine], [mirror * sine, cosine]])
    window = np.array(crop) / zoom
    centre = _centre(mask, window, online.rare_crop, rare, rng)
    middle = (np.array([crop[1], crop[0]]) - 1) / 2
    return np.column_stack([linear, centre - linear @ middle])


def _centre(
    mask: Pixels, window: NDArray[np.float64], rare_crop: float, rare: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(x, y) around which to cut: anywhere, or near a pixel of a rare class, with the window inside if it fits."""
    size = np.array(mask.shape)
    wanted = rng.random(2) * size
    if rng.random() < rare_crop:
        wanted = _rare_pixel(mask, rare, rng, wanted)
    wanted = wanted + (rng.random(2) - 0.5) * window / 2
    half = window / 2
    inside = np.where(window < size, np.clip(wanted, half, np.maximum(size - half, half)), size / 2)
    return inside[::-1] - 0.5


def _rare_pixel(
    mask: Pixels, rare: Sequence[int], rng: np.random.Generator, otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    for train_id in rng.permutation(np.asarray(rare, np.int64)):
        places = np.flatnonzero(mask == train_id)
        if len(places):
            return np.array(divmod(int(places[rng.integers(len(places))]), mask.shape[1]), float)
    return otherwise


def _photometric(image: Pixels, online: Online, rng: np.random.Generator) -> Pixels:
    if online.color:
        image = cv2.transform(image, _color_matrix(online.color, rng))
    if rng.random() < online.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if online.noise:
        sigma = rng.uniform(0, online.noise)
        noise = rng.standard_normal(image.shape[:2], np.float32) * sigma
        # One draw for the three channels: brightness noise, a third of the cost.
        image = cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
    return image


def _color_matrix(strength: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 4) RGB → RGB: hue, saturation, contrast and brightness in one matrix."""
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    turn = strength * rng.uniform(-0.35, 0.35)
    hue = np.eye(3)
    hue[1:, 1:] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix = _FROM_YIQ @ hue @ _TO_YIQ
    matrix = saturation * matrix + (1 - saturation) * np.tile(_GREY, (3, 1))
    offset = 128 * (1 - contrast)
    return np.column_stack([brightness * contrast * matrix, np.full(3, brightness * offset)])


def rare_classes(class_pixels: Sequence[int]) -> list[int]:
    """TrainIds of the rarest third of the classes that occur, rarest first."""
    present = [i for i in np.argsort(class_pixels, kind="stable") if class_pixels[i]]
    return [int(i) for i in present[: max(1, len(present) // 3)]]
