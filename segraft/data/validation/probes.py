"""Measurements that show a mask to be wrong although every code in it is legal."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.validation.correlation import correlation
from segraft.data.validation.images import factor, small

RAMPS = 0.6
"""A mask with a larger share of stepped transitions was interpolated: real ones stay below 0.45, resized above 0.7."""
SHORT = 4
"""Pixels: the longest run of one id that can be a step of a ramp."""
LAYERS = 0.9
"""Of a resized mask's stepped transitions two thirds at most lead from one id to the next but one."""
LINES = 128
"""At most about this many rows, and as many columns, are looked at."""
AROUND = 25
"""Cells: the side of the square that an edge is compared with."""
REACH = 12
"""Cells: how far a mask is moved over its image in search of a better place."""


def ramp_share(codes: NDArray[np.unsignedinteger[Any]]) -> tuple[float, int, int]:
    """How often a step from one region to another goes through ids that lie between the two, as interpolation makes it.

    Of runs along rows and columns: those at most SHORT pixels long whose id lies strictly between their neighbours',
    over these and the direct steps between longer runs whose ids differ by two or more. If they are of several ids, and
    nearly all lie between the ids before and after their own, it is not interpolation but classes in layers.

    Args:
        codes: H×W ids as in the file.

    Returns:
        The share, the number of transitions it is taken of, and the number of ids that are gone through: interpolation
        makes several, where there are more than three classes; a thin class between two others is one.
    """
    lines = (every[:: max(1, len(every) // LINES)] for every in (codes, cv2.transpose(codes)))
    found = [_steps(np.ascontiguousarray(one)) for one in lines]
    through, jumps, layers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ids = len(np.unique(through))
    if ids > 1 and np.count_nonzero(layers) > LAYERS * len(through):
        through, ids = through[:0], 0
    every = len(through) + int(np.count_nonzero(jumps))
    return len(through) / max(1, every), every, ids


def _steps(lines: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The id of each step of a ramp, where steps are direct, and whether each step of a ramp may be a layer."""
    width = lines.shape[1]
    start = _runs(lines, width)
    long = np.diff(start, append=lines.size) > SHORT
    value, first = lines.ravel()[start].astype(np.int32), start % width == 0
    step = np.where(first[1:], 0, np.diff(value))  # 0: the next run is on another line
    ramps = (step[:-1] * step[1:] > 0) & ~long[1:-1]
    layers = (np.abs(step[:-1]) == 1) & (np.abs(step[1:]) == 1) & long[:-2] & long[2:]
    jumps = (np.abs(step) >= 2) & long[1:] & long[:-1]
    return value[1:-1][ramps], jumps, layers[ramps]


def _runs(values: NDArray[np.unsignedinteger[Any]], width: int) -> NDArray[np.intp]:
    """Where runs of one value begin in a contiguous array; a new one every `width` values."""
    flat = values.ravel()
    begins = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    return np.flatnonzero(begins)


def agreement(copy: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, Any]:
    """How well the edges of an image lie on the boundaries of its mask, and where they would lie better.

    Normalised cross-correlation of the two edge maps, horizontal and vertical edges apart, over displacements of up to
    REACH cells.

    Args:
        copy: h×w×3 uint8 RGB, the `small` copy of an H×W image.
        labels: H×W uint8.

    Returns:
        `agreement`, the peak within two cells of no displacement less the mean away from it: about 0 for the mask of
        another image; or `move_x` and `move_y`, how many pixels to the right and down the mask must be moved for the
        edges to agree clearly better; or nothing, if the mask has too few boundaries.
    """
    image, mask = _image_edges(copy), _mask_edges(labels)
    reach = min(REACH, min(copy.shape[:2]) // 6)
    inner = np.ascontiguousarray(mask[reach : mask.shape[0] - reach, reach : mask.shape[1] - reach])
    if reach < 4 or cv2.countNonZero(inner.ravel()) < 64:
        return {}
    score = correlation(image, inner)
    here = score[reach - 2 : reach + 3, reach - 2 : reach + 3].max()
    _, best, _, (x, y) = cv2.minMaxLoc(score)
    shift = np.array([x - reach, y - reach])
    elsewhere = _outside(score, x, y)
    clear = best - here > 0.02 and np.hypot(*shift) >= 3 and best - elsewhere.mean() > 4 * elsewhere.std()
    if clear:
        move_x, move_y = (shift * factor(labels.shape)).tolist()
        return {"move_x": move_x, "move_y": move_y}
    return {"agreement": float(here - _outside(score, reach, reach).mean())}


def _outside(score: NDArray[np.float32], x: int, y: int) -> NDArray[np.float32]:
    keep = np.ones(score.shape, bool)
    keep[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = False
    return score[keep]


def _image_edges(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vertical and horizontal edges of the luma, relative to their surroundings."""
    gradients = cv2.spatialGradient(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    edges = cv2.merge([cv2.convertScaleAbs(one, alpha=0.25) for one in gradients])
    around = cv2.blur(edges, (AROUND, AROUND))
    return _soft(cv2.divide(edges, cv2.add(around, (1, 1, 0, 0)), dtype=cv2.CV_32F))


def _mask_edges(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vertical and horizontal boundaries between labels, as densities in the cells of the small copy."""
    regions = _without_void(labels)
    edges = np.zeros((2, *labels.shape), np.uint8)
    cv2.compare(regions[:, 1:], regions[:, :-1], cv2.CMP_NE, edges[0, :, 1:])
    cv2.compare(regions[1:], regions[:-1], cv2.CMP_NE, edges[1, 1:])
    if regions.min() == 0:
        edges &= cv2.compare(cv2.erode(regions, np.ones((2, 2), np.uint8)), 0, cv2.CMP_GT)
    return _soft(cv2.merge([small(one) for one in edges]).astype(np.float32))


def _without_void(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels from 1 on, and 0 for void but where it is a thin seam, as Pascal VOC draws it between objects."""
    regions = labels + np.uint8(1)  # 255, void, becomes 0
    if labels.max() == 255:
        np.copyto(regions, cv2.dilate(regions, np.ones((7, 7), np.uint8)), where=regions == 0)
    return regions


def _soft(edges: NDArray[Any]) -> NDArray[Any]:
    soft: NDArray[Any] = cv2.GaussianBlur(edges, (5, 5), 1)
    return soft


def histogram(values: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """Counts of the values of an H×W array, 256 of them or as many as there are.

    A mask is made of runs, and to count these takes a third of the time of counting pixels.
    """
    starts = _runs(values, values.size)
    lengths = np.diff(starts, append=values.size)
    return np.bincount(values.ravel()[starts], lengths, 256).astype(np.int64)


def class_warmth(copy: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> list[float]:
    """Mean red minus blue of each class's pixels, grey levels; NaN for a class that hardly shows.

    Args:
        copy: h×w×3 uint8 RGB, the `small` copy of an H×W image.
        labels: H×W uint8.
        classes: how many.
    """
    by = factor(labels.shape)
    cells = labels[by // 2 :: by, by // 2 :: by][: copy.shape[0], : copy.shape[1]]
    there, colors = cells[::2, ::2].ravel(), copy[::2, ::2]
    counts = np.bincount(there, minlength=256)[:classes]
    warmth = np.subtract(colors[..., 0], colors[..., 2], dtype=np.float64).ravel()
    sums = np.bincount(there, warmth, minlength=256)[:classes]
    means: list[float] = np.where(counts >= 16, sums / np.maximum(counts, 1), np.nan).tolist()
    return means
