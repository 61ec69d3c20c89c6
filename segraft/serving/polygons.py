"""Outlines of a mask's shapes along the edges of its pixels, so that a polygon's area is its number of pixels.

A shape is found by its border alone: memory goes with the length of the borders, not with the pixels.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import ClassCard
from segraft.serving.errors import Refused

Ints = NDArray[np.int64]
MOST = 20_000
"""Shapes of one answer."""
EDGES = 2_000_000
"""Sides of pixels along all borders, from both of their sides; each takes a hundred bytes while it is traced."""
ROWS = 256
"""Rows in which edges are looked for at once."""
CLOSED = 4
"""Points of the smallest ring: a triangle, closed."""
NONE = 255
"""What lies around the image: no class."""
RIGHT, DOWN, LEFT, UP = range(4)
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""(x, y) of each direction; the shape lies to the right of every edge, in image coordinates (y points down)."""


@dataclass(frozen=True)
class Rings:
    """Closed borders; outlines turn clockwise on the screen, holes the other way.

    Attributes:
        edges: where each edge starts and goes to, ring by ring: 4 × its corner's number + direction.
        begins: index of each ring's first edge, which starts at its upper left corner; and the number of edges.
        owners: class of each ring.
        shapes: index of the outline of the shape that each ring belongs to.
        areas: pixels within each ring; those of a hole are negative.
    """

    edges: Ints
    begins: Ints
    owners: NDArray[np.uint8]
    shapes: Ints
    areas: Ints


def geojson(ids: NDArray[np.uint8], classes: tuple[ClassCard, ...], simplify: float, min_area: int) -> dict[str, Any]:
    """A GeoJSON FeatureCollection (RFC 7946) of (H, W) trainIds: one Polygon a 4-connected shape.

    Coordinates are pixels: [x, y] from the top left corner; the first ring is the outline, the others are holes. Each
    ring is an (N, 2) array.

    Args:
        ids: (H, W) uint8.
        classes: the model's classes.
        simplify: how far an outline may be off, in pixels (Douglas and Peucker, 1973); 0 keeps it exact.
        min_area: shapes of fewer pixels are left out.

    Raises:
        Refused: more than `MOST` shapes, or more than `EDGES` of their edges.
    """
    rings, stride = _rings(ids), ids.shape[1] + 1
    pixels = np.bincount(rings.shapes, rings.areas).astype(np.int64)
    kept = np.flatnonzero(pixels >= max(min_area, 1))
    if len(kept) > MOST:
        raise Refused(413, f"parameters.min_area: more than {MOST:,} shapes; ask for larger ones alone")
    by_class = kept[np.argsort(rings.owners[kept], kind="stable")]
    members: dict[int, list[Ints]] = {shape: [] for shape in by_class.tolist()}
    for ring, shape in enumerate(rings.shapes.tolist()):
        if shape in members:
            members[shape].append(_corners(rings.edges[rings.begins[ring] : rings.begins[ring + 1]], stride))
    features = []
    for shape, borders in members.items():
        outline = [_closed(_simplified(border, simplify)) for border in borders]
        index = int(rings.owners[shape])
        properties = {"id": index, "class": classes[index].name, "pixels": int(pixels[shape])}
        geometry = {"type": "Polygon", "coordinates": [ring for ring in outline if len(ring) >= CLOSED]}
        if len(outline[0]) >= CLOSED:
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _rings(ids: NDArray[np.uint8]) -> Rings:
    """Every border, in the order of their upper left corners.

    Every unit edge between a shape and what is not of it is one directed edge; at a corner where two shapes touch, the
    edge turns right, which keeps to its own 4-connected shape.
    """
    edges, owners = _edges(ids)
    stride = ids.shape[1] + 1
    order, begins = _cycles(_successors(edges, owners, stride))
    first = order[begins[:-1]]
    ordered = edges[order]
    areas = np.add.reduceat(ordered // 4 % stride * STEPS[ordered % 4, 1], begins[:-1])  # Green's theorem: ∮ x dy
    ring_of = np.empty(len(edges), np.int32)
    ring_of[order] = np.repeat(np.arange(len(first), dtype=np.int32), np.diff(begins))
    shapes = np.arange(len(first))
    for hole, beside in zip(*_beside_holes(edges, first, areas, stride), strict=True):
        shapes[hole] = shapes[ring_of[beside]]  # a ring that begins before the hole does: it is known already
    return Rings(ordered, begins, owners[first], shapes, areas)


def _edges(ids: NDArray[np.uint8]) -> tuple[Ints, NDArray[np.uint8]]:
    """Edges as in `Rings`, sorted, and the classes to the right of them."""
    height, width = ids.shape
    found: list[tuple[Ints, NDArray[np.uint8]]] = []
    for top in range(0, height + 1, ROWS):
        bottom = min(top + ROWS, height + 1)
        window = np.full((bottom - top + 1, width + 2), NONE, np.uint8)  # rows top - 1 to bottom - 1, and a margin
        inside = ids[max(top - 1, 0) : bottom]
        start = 1 if top == 0 else 0
        window[start : start + len(inside), 1:-1] = inside
        above, below = window[:-1, 1:-1], window[1:, 1:-1]
        before, after = window[1:, :-1], window[1:, 1:]
        for this, other, down, right, direction in (
            (below, above, 0, 0, RIGHT),
            (above, below, 0, 1, LEFT),
            (before, after, 0, 0, DOWN),
            (after, before, 1, 0, UP),
        ):
            y, x = np.nonzero((this != other) & (this != NONE))
            found.append((((top + down + y) * (width + 1) + x + right) * 4 + direction, this[y, x]))
        if sum(len(edges) for edges, _ in found) > EDGES:
            raise Refused(413, f"outputs: polygons: borders of more than {EDGES:,} pixels in all; ask for mask")
    edges, owners = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(edges)
    return edges[order], owners[order]


def _successors(edges: Ints, owners: NDArray[np.uint8], stride: int) -> Ints:
    """Index of the edge that follows each: of its own shape, turning right if it can, else straight on, else left."""
    direction = edges % 4
    dx, dy = STEPS[direction].T
    ends = (edges // 4 + dy * stride + dx) * 4
    successors = np.full(len(edges), -1)
    for turn in (-1, 0, 1):  # the last that fits wins: right over straight over left
        wanted = ends + (direction + turn) % 4
        at = np.minimum(np.searchsorted(edges, wanted), len(edges) - 1)
        fits = (edges[at] == wanted) & (owners[at] == owners)
        successors[fits] = at[fits]
    return successors


def _cycles(successors: Ints) -> tuple[Ints, Ints]:
    """Indices of the edges ring by ring; and where in them each ring begins, and the last ends."""
    following, seen = successors.data, bytearray(len(successors))
    order, begins = array("q"), array("q")
    first = 0
    while first >= 0:
        begins.append(len(order))
        at = first
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            at = following[at]
        first = seen.find(0, first)
    begins.append(len(order))
    return np.frombuffer(order, np.int64), np.frombuffer(begins, np.int64)


def _beside_holes(edges: Ints, first: Ints, areas: Ints, stride: int) -> tuple[list[int], list[int]]:
    """Rings that are holes; and an edge of the shape around each: the next on the left of its upper left pixel."""
    holes = np.flatnonzero(areas < 0)
    ups = np.flatnonzero(edges % 4 == UP)
    wanted = (edges[first[holes]] // 4 + stride) * 4 + UP
    return holes.tolist(), ups[np.searchsorted(edges[ups], wanted) - 1].tolist()


def _corners(edges: Ints, stride: int) -> Ints:
    """(N, 2) [x, y] of the corners at which a ring turns."""
    direction = edges % 4
    place = (edges // 4)[direction != np.roll(direction, 1)]
    return np.stack([place % stride, place // stride], 1)


def _simplified(ring: Ints, tolerance: float) -> Ints:
    if not tolerance:
        return ring
    points = cv2.approxPolyDP(ring.astype(np.int32).reshape(-1, 1, 2), tolerance, closed=True)
    return np.asarray(points, np.int64).reshape(-1, 2)


def _closed(ring: Ints) -> Ints:
    return np.concatenate([ring, ring[:1]])
