"""Outlines of a mask's shapes along the edges of its pixels, so that a polygon's area is its number of pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import ClassCard
from segraft.serving.errors import Refused

Ring = NDArray[np.int64]
MOST = 20_000
"""Shapes of one answer."""
CLOSED = 4
"""Points of the smallest ring: a triangle, closed."""
RIGHT, DOWN, LEFT, UP = range(4)
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""(x, y) of each direction; the shape lies to the right of every edge, in image coordinates (y points down)."""


def geojson(ids: NDArray[np.uint8], classes: tuple[ClassCard, ...], simplify: float, min_area: int) -> dict[str, Any]:
    """A GeoJSON FeatureCollection (RFC 7946) of (H, W) trainIds: one Polygon a 4-connected shape.

    Coordinates are pixels: [x, y] from the top left corner; the first ring is the outline, the others are holes.

    Args:
        ids: (H, W) uint8.
        classes: the model's classes.
        simplify: how far an outline may be off, in pixels (Douglas and Peucker, 1973); 0 keeps it exact.
        min_area: shapes of fewer pixels are left out.

    Raises:
        Refused: more than `MOST` shapes.
    """
    labels, owners, areas = _shapes(ids, min_area)
    rings: dict[int, list[Ring]] = {}
    for label, ring in _rings(np.pad(labels, 1)):
        rings.setdefault(label, []).append(ring)
    features = []
    for label, borders in sorted(rings.items()):
        borders.sort(key=_signed_area, reverse=True)
        outline = [_close(_simplified(ring, simplify)) for ring in borders]
        name = classes[owners[label]].name
        properties = {"id": owners[label], "class": name, "pixels": areas[label]}
        geometry = {"type": "Polygon", "coordinates": [ring for ring in outline if len(ring) >= CLOSED]}
        if len(outline[0]) >= CLOSED:
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _shapes(ids: NDArray[np.uint8], min_area: int) -> tuple[NDArray[np.int32], list[int], list[int]]:
    """(H, W) labels of the 4-connected shapes, 0 where a shape is too small; by label, class and number of pixels."""
    labels, owners, areas = np.zeros(ids.shape, np.int32), [-1], [0]
    for index in np.unique(ids).tolist():
        mask = (ids == index).view(np.uint8)
        count, found, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        sizes = stats[1:, cv2.CC_STAT_AREA]
        kept = np.flatnonzero(sizes >= max(min_area, 1))
        if len(owners) + len(kept) > MOST:
            raise Refused(413, f"parameters.min_area: more than {MOST:,} shapes; ask for larger ones alone")
        names = np.zeros(count, np.int32)
        names[1 + kept] = np.arange(len(owners), len(owners) + len(kept))
        np.copyto(labels, names[found], where=mask.view(bool))
        owners += [index] * len(kept)
        areas += sizes[kept].tolist()
    return labels, owners, areas


def _rings(labels: NDArray[np.int32]) -> list[tuple[int, Ring]]:
    """(label, (N, 2) corners) of every closed border; outlines turn clockwise on the screen, holes the other way.

    `labels` is padded with a border of zeros. Every unit edge between a shape and what is not of it is one directed
    edge, keyed by where it starts and where it goes; at a corner where two shapes touch, the edge turns right, which
    keeps to its own 4-connected shape.
    """
    width = labels.shape[1]
    above, below = labels[:-1], labels[1:]
    before, after = labels[:, :-1], labels[:, 1:]
    # y, x of the corner at which an edge starts, in corners of the padded image: corner (y, x) is the pixel's top left
    found = [
        (*_where((below != above) & (below > 0), 1, 0), RIGHT, below),
        (*_where((above != below) & (above > 0), 1, 1), LEFT, above),
        (*_where((before != after) & (before > 0), 0, 1), DOWN, before),
        (*_where((after != before) & (after > 0), 1, 1), UP, after),
    ]
    starts = np.concatenate([(y * (width + 1) + x) * 4 + direction for y, x, direction, _ in found])
    owners = np.concatenate([of[_index(y, x, direction)] for y, x, direction, of in found])
    order = np.argsort(starts)
    starts, owners = starts[order], owners[order]
    successors = _successors(starts, owners, width + 1)
    return [(int(owners[ring[0]]), _corners(starts[ring], width + 1)) for ring in _cycles(successors)]


def _where(edges: NDArray[np.bool_], down: int, right: int) -> tuple[Ring, Ring]:
    y, x = np.nonzero(edges)
    return y + down, x + right


def _index(y: Ring, x: Ring, direction: int) -> tuple[Ring, Ring]:
    """Undo `_where`'s shift: where the edge's own pixel lies in the array that `found` names beside it."""
    down, right = {RIGHT: (1, 0), LEFT: (1, 1), DOWN: (0, 1), UP: (1, 1)}[direction]
    return y - down, x - right


def _successors(starts: Ring, owners: NDArray[np.int32], stride: int) -> Ring:
    """Index of the edge that follows each: of its own shape, turning right if it can, else straight on, else left."""
    direction = starts % 4
    dx, dy = STEPS[direction].T
    ends = (starts // 4 + dy * stride + dx) * 4
    successors = np.full(len(starts), -1)
    for turn in (-1, 0, 1):  # the last that fits wins: right over straight over left
        wanted = ends + (direction + turn) % 4
        at = np.minimum(np.searchsorted(starts, wanted), len(starts) - 1)
        fits = (starts[at] == wanted) & (owners[at] == owners)
        successors[fits] = at[fits]
    return successors


def _cycles(successors: Ring) -> list[Ring]:
    following, seen, cycles = successors.tolist(), bytearray(len(successors)), []
    for first in range(len(following)):
        if seen[first]:
            continue
        cycle, at = [], first
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = following[at]
        cycles.append(np.array(cycle))
    return cycles


def _corners(starts: Ring, stride: int) -> Ring:
    """(N, 2) [x, y], in the unpadded image, of the corners at which a cycle of edges turns."""
    direction = starts % 4
    place = (starts // 4)[direction != np.roll(direction, 1)]
    return np.stack([place % stride - 1, place // stride - 1], 1)


def _signed_area(ring: Ring) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def _simplified(ring: Ring, tolerance: float) -> Ring:
    if not tolerance:
        return ring
    points = cv2.approxPolyDP(ring.astype(np.int32).reshape(-1, 1, 2), tolerance, closed=True)
    return np.asarray(points, np.int64).reshape(-1, 2)


def _close(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]
