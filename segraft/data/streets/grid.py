"""Where on the street each ground pixel lies, and the markings that are painted there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import copysign

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.streets.canvas import Camera, Color
from segraft.data.streets.street import Rng, Street
from segraft.data.streets.textures import SIZE

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Where on the street each pixel of the lower image lies."""

    top: int
    """the image row of the first row here"""
    inside: NDArray[np.bool_]
    """below the horizon"""
    s: Field
    z: Field
    pixel: Field
    """metres that a pixel spans across the road"""

    @cached_property
    def fine(self) -> Field:
        """Pixels that a metre across the road spans."""
        fine: Field = np.float32(1) / self.pixel
        return fine


def ground_grid(camera: Camera) -> Grid:
    """The place of each pixel on the plane y = 0."""
    top = int(max(0, camera.v0 - abs(camera.roll) * camera.width))
    us: Field = (np.arange(camera.width) - camera.u0).astype(np.float32)
    vs = (np.arange(top, camera.height) - camera.v0).astype(np.float32)[:, None]
    below = vs - us * np.float32(camera.roll)
    pixel: Field = np.divide(camera.eye, np.maximum(below, 0.2), dtype=np.float32)
    z: Field = pixel * np.float32(camera.focal)
    s = us * pixel - camera.sway(z)
    return Grid(top, below > 0.2, s, z, pixel)


def fraction(field: Field) -> Field:
    """What `field % 1` gives, five times faster."""
    share: Field = field - np.floor(field)
    return share


def lookup(table: Field, rows: Field, columns: Field) -> Field:
    """Nearest values of a table that repeats; five times faster than an interpolating cv2.remap."""
    index, along = rows.astype(np.int32), columns.astype(np.int32)
    index &= SIZE - 1
    index *= SIZE
    along &= SIZE - 1
    index += along
    field: Field = np.take(table, index)
    return field


def markings(street: Street, grid: Grid, rng: Rng, stains: Field) -> list[tuple[Field, Color]]:
    """Coverage and colour of lane lines, stop line, zebra and rails; smooth at their edges, however far.

    Args:
        street: the street.
        grid: where each pixel lies.
        rng: for what there is.
        stains: (half the grid) deviation 1; where they are strong the paint is worn.
    """
    s, z, left, right = grid.s, grid.z, street.left, street.right
    dash = (fraction(z / np.float32(9) + np.float32(rng.random())) < 0.4).astype(np.float32)
    middle = _lines(grid, [0.0], 0.14)
    if street.rails is None and rng.random() < 0.5:
        middle *= dash
    lines = np.zeros_like(s) if street.yellow else middle.copy()
    borders = [lane + copysign(street.lane_width / 2, lane) for lane in street.lanes]
    inner = [border for border in borders if abs(border) < (right.edge if border > 0 else left.edge) - 1]
    if inner:
        lines += _lines(grid, inner, 0.14) * dash
    outer = [side.sign * (side.edge - 0.3 - 2.2 * side.parking) for side in street.sides if rng.random() < 0.5]
    if outer:
        lines += _lines(grid, outer, 0.12)
    if street.crossing is not None:
        open_road = (z < street.crossing[0] - 1) | (z > street.crossing[1] + 1)
        lines, middle = lines * open_road, middle * open_road
    _crosswise(street, grid, lines)
    worn = np.abs(stains)
    worn *= np.float32(-0.25)
    worn += np.float32(1.15)
    np.clip(worn, 0.5, 1, out=worn)
    worn *= np.float32(rng.uniform(0.75, 1))
    worn = np.asarray(cv2.resize(worn, s.shape[::-1]))
    paints: list[tuple[Field, Color]] = [(np.minimum(lines, 1) * worn, (232, 232, 228))]
    if street.yellow:
        paints.append((middle * worn, (226, 180, 60)))
    if street.rails is not None:
        rails = _lines(grid, [street.rails - 0.72, street.rails + 0.72], 0.1)
        paints.append((rails * np.float32(0.85), (66, 62, 60)))
    return paints


def _crosswise(street: Street, grid: Grid, lines: Field) -> None:
    """Add zebra and stop line."""
    s, z = grid.s, grid.z
    across = (s > -street.left.edge + 0.2) & (s < street.right.edge - 0.2)
    if street.zebra is not None:
        band = (z > street.zebra) & (z < street.zebra + 3.4) & across
        stripes = 0.5 + (0.25 - np.abs(fraction(s[band]) - 0.5)) / grid.pixel[band]
        lines[band] = np.clip(stripes, 0, 1)
    if street.crossing is not None:
        stop = street.crossing[0] - (7.5 if street.zebra is not None else 2)
        lines[(z > stop) & (z < stop + 0.45) & (s > 0.2) & across] = 1


def _lines(grid: Grid, places: list[float], width: float) -> Field:
    """Share of each pixel that lines along the road cover."""
    line: Field = np.abs(grid.s - np.float32(places[0]))
    for place in places[1:]:
        np.minimum(line, np.abs(grid.s - np.float32(place)), out=line)
    np.subtract(np.float32(width / 2), line, out=line)
    line *= grid.fine
    line += np.float32(0.5)
    np.maximum(line, 0, out=line)
    np.minimum(line, np.minimum(1, np.float32(width) * grid.fine), out=line)
    return line
