"""The fully connected CRF of DeepLab v1 and v2: sharpens a network's answer along the image's own edges.

Krähenbühl & Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.errors import UserError
from segraft.params import Crf

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SMALLEST = 1e-6


def refine(probabilities: Floats, image: NDArray[np.uint8], crf: Crf) -> Floats:
    """Mean-field inference with a Potts model and two Gaussian kernels: position and colour, and position alone.

    Args:
        probabilities: (H, W, C) float32, the network's softmax.
        image: (H, W, 3) uint8 RGB.
        crf: iterations (0 gives the probabilities back), weights and widths of the kernels.

    Returns:
        (H, W, C) float32 probabilities. Kernels are normalised symmetrically, as the authors' later code does, so
        that weights mean the same at a border as within.
    """
    height, width, classes = probabilities.shape
    unary = np.log(np.maximum(probabilities, SMALLEST))
    if not crf.iterations:
        return probabilities
    lattice = Permutohedral(_features(image, crf))
    ones = np.ones((height, width, 1), np.float32)
    sides = 1 / np.sqrt(lattice.filter(ones.reshape(-1, 1)) + SMALLEST)
    smooth_sides = 1 / np.sqrt(_blur(ones, crf.smooth_std) + SMALLEST)
    answer = probabilities
    for _ in range(crf.iterations):
        message = sides * lattice.filter(sides * answer.reshape(-1, classes))
        energy = unary + crf.appearance * message.reshape(answer.shape)
        energy += crf.smooth * smooth_sides * _blur(smooth_sides * answer, crf.smooth_std)
        answer = np.exp(energy - energy.max(2, keepdims=True))
        answer /= answer.sum(2, keepdims=True)
    return answer


def _features(image: NDArray[np.uint8], crf: Crf) -> Floats:
    """(H·W, 5): row, column, R, G, B, in standard deviations."""
    rows, columns = np.indices(image.shape[:2], np.float32)
    places = np.stack([rows, columns], 2) / crf.position_std
    return np.concatenate([places, image / np.float32(crf.color_std)], 2).reshape(-1, 5).astype(np.float32)


def _blur(values: Floats, deviation: float) -> Floats:
    """Gaussian filter of each channel of (H, W, C); nothing lies beyond the border."""
    planes = [cv2.GaussianBlur(p, (0, 0), deviation, borderType=cv2.BORDER_CONSTANT) for p in np.moveaxis(values, 2, 0)]
    return np.stack(planes, 2)


class Permutohedral:
    """Gaussian filtering of points in few dimensions, in time linear in their number (Adams, Baek & Davis 2010).

    Points are splatted onto the corners of the simplices that hold them, corners are blurred along each axis of the
    lattice, and points read the result back. The output is Σ_j exp(-|f_i - f_j|² / 2) v_j up to a common factor.

    Args:
        features: (N, D) float32, in standard deviations.
    """

    def __init__(self, features: Floats) -> None:
        from scipy.sparse import csr_array

        count, dimensions = features.shape
        corners, shares = _simplex(features)
        keys, radix = _packed(corners)
        known, places = np.unique(keys, return_inverse=True)
        places = places.reshape(count, dimensions + 1)
        starts = np.arange(count + 1) * (dimensions + 1)
        self._splat: Any = csr_array((shares.ravel(), places.ravel(), starts), shape=(count, len(known)))
        self._neighbours = [_neighbours(known, step) for step in _steps(radix)]

    def filter(self, values: Floats) -> Floats:
        """(N, C) → (N, C) float32."""
        corners = self._splat.T @ values
        for before, after in self._neighbours:
            corners = np.concatenate([corners, np.zeros_like(corners[:1])])  # place -1: no such corner
            corners = corners[:-1] + (corners[before] + corners[after]) / 2
        filtered: Floats = self._splat @ corners
        return filtered


def _simplex(features: Floats) -> tuple[Ints, Floats]:
    """Corners (N, D + 1, D) of the simplex around each point, and its share (N, D + 1) of each."""
    count, d = features.shape
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    scaled = features * scale.astype(np.float32)
    # Onto the plane where coordinates add up to 0.
    later = np.concatenate([np.cumsum(scaled[:, ::-1], 1)[:, ::-1], np.zeros((count, 1), np.float32)], 1)
    elevated = later.copy()
    elevated[:, 1:] -= np.arange(1, d + 1, dtype=np.float32) * scaled
    nearest = np.rint(elevated / (d + 1)).astype(np.int64)
    excess = nearest.sum(1, keepdims=True)
    nearest *= d + 1
    order = np.argsort(-(elevated - nearest), 1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(d + 1), order.shape), 1)
    rank += excess
    wrapped = (rank < 0).astype(np.int64) - (rank > d)
    rank += wrapped * (d + 1)
    nearest += wrapped * (d + 1)
    # Barycentric coordinates are the gaps between the sorted remainders.
    remainder = np.empty((count, d + 1), np.float32)
    np.put_along_axis(remainder, d - rank, (elevated - nearest) / (d + 1), 1)
    shares = np.empty_like(remainder)
    shares[:, 1:] = np.diff(remainder, axis=1)
    shares[:, 0] = 1 + remainder[:, 0] - remainder[:, d]
    level = np.arange(d + 1)[:, None]
    corners = nearest[:, None, :d] + level - (d + 1) * (rank[:, None, :d] > d - level)
    return corners, shares


def _packed(corners: Ints) -> tuple[Ints, Ints]:
    """One integer a corner, and what a step along each coordinate adds to it."""
    d = corners.shape[-1]
    low = corners.min((0, 1)) - d - 1
    sizes = corners.max((0, 1)) + d + 2 - low
    if np.prod(sizes.astype(np.float64)) >= 2**62:  # keys have 64 bits
        raise UserError("evaluate.crf: position_std or color_std (0…255) is too small for this image; raise it")
    radix = np.concatenate([[1], np.cumprod(sizes[:-1])])
    return ((corners - low) @ radix), radix


def _steps(radix: Ints) -> list[int]:
    """What leads from a corner to its neighbour along each of the D + 1 axes; the last coordinate is implied."""
    d = len(radix)
    return [*(int(d * r - (radix.sum() - r)) for r in radix), -int(radix.sum())]


def _neighbours(known: Ints, step: int) -> tuple[Ints, Ints]:
    """Places of the corners at ± step; -1 where there is none."""

    def places(keys: Ints) -> Ints:
        found = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[found] == keys, found, -1)

    return places(known - step), places(known + step)
