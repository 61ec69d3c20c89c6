"""Where on the street each ground pixel lies, and the markings that are painted there."""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign

import numpy as np
from numpy.typing import NDArray

from segraft.data.streets.canvas import Camera, Color
from segraft.data.streets.street import Rng, Street
from segraft.data.streets.textures import SIZE, fractal

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
    last = SIZE - 1
    index = (rows.astype(np.int32) & last) * SIZE + (columns.astype(np.int32) & last)
    field: Field = np.take(table, index)
    return field


def markings(street: Street, grid: Grid, rng: Rng) -> list[tuple[Field, Color]]:
    """Coverage and colour of lane lines, stop line, zebra and rails; smooth at their edges, however far."""
    s, z, left, right = grid.s, grid.z, street.left, street.right
    dash = fraction(z / np.float32(9) + np.float32(rng.random())) < 0.4
    middle = _line(grid, 0.0, 0.14)
    if street.rails is None and rng.random() < 0.5:
        middle *= dash
    lines = np.zeros_like(s) if street.yellow else middle.copy()
    for lane in street.lanes:
        border = lane + copysign(street.lane_width / 2, lane)
        if abs(border) < (right.edge if border > 0 else left.edge) - 1:
            lines += _line(grid, border, 0.14) * dash
    for side in street.sides:
        if rng.random() < 0.5:
            lines += _line(grid, side.sign * (side.edge - 0.3 - 2.2 * side.parking), 0.12)
    if street.crossing is not None:
        open_road = (z < street.crossing[0] - 1) | (z > street.crossing[1] + 1)
        lines, middle = lines * open_road, middle * open_road
    _crosswise(street, grid, lines)
    patches: Field = lookup(fractal(), np.minimum(z, 300) * 9, s * 21)
    worn: Field = np.clip(1.15 - 0.25 * np.abs(patches), 0.5, 1)
    worn *= rng.uniform(0.75, 1)
    paints: list[tuple[Field, Color]] = [(np.minimum(lines, 1) * worn, (232, 232, 228))]
    if street.yellow:
        paints.append((middle * worn, (226, 180, 60)))
    if street.rails is not None:
        rails = _line(grid, street.rails - 0.72, 0.1) + _line(grid, street.rails + 0.72, 0.1)
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


def _line(grid: Grid, where: float, width: float) -> Field:
    """Share of each pixel that a line along the road covers."""
    half = np.float32(width / 2)
    reach = (half - np.abs(grid.s - np.float32(where))) / grid.pixel + np.float32(0.5)
    line: Field = np.clip(reach, 0, np.minimum(1, 2 * half / grid.pixel))
    return line
