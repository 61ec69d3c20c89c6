"""Everything flat: each ground pixel's material, its texture, and the shadows on it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import SUBPIXEL, Camera, Canvas, Fixed, Image, times
from segraft.data.streets.grid import Field, Grid, fraction, ground_grid, lookup, markings
from segraft.data.streets.street import Material, Rng, Street
from segraft.data.streets.textures import SIZE, fractal, grain


class Footprint(NamedTuple):
    """The rectangle on which a thing stands, for its shadow."""

    s: float
    z: float
    half_width: float
    half_length: float
    height: float
    lift: float = 0.0
    """height at which the thing begins: a tree's crown"""


def paint_ground(
    canvas: Canvas, street: Street, rng: Rng, footprints: list[Footprint], skyline: tuple[Field, Field]
) -> None:
    """Paint road, markings, pavement and terrain with the shadows that fall on them.

    Args:
        canvas: where to.
        street: the street.
        rng: for the textures.
        footprints: the things that stand on it.
        skyline: heights of the buildings on the left and on the right for each metre of z from -50 m.
    """
    camera, light = canvas.camera, canvas.light
    grid = ground_grid(camera)
    materials, which = _strips(street, grid)
    shade, stains = _texture(street, materials, which, grid, rng)
    paints = markings(street, grid, rng, stains)
    sun, sky = _sunlight(canvas, street, grid, footprints, skyline)
    sun *= np.float32(0.4) + np.float32(0.6) * sky
    table = np.zeros((256, 3), np.float32)
    table[: len(materials)] = [m.color for m in materials]
    sky *= shade
    sun *= shade
    planes = []
    for c in range(3):
        channel = cv2.LUT(which, table[:, c])
        for coverage, tint in paints:
            channel += coverage * (np.float32(tint[c]) - channel)
        channel *= cv2.addWeighted(sky, light.ambient[c], sun, light.direct[c] * light.sun[1], 0)
        planes.append(cv2.convertScaleAbs(channel))
    inside = grid.inside.view(np.uint8)
    cv2.copyTo(cv2.merge(planes), inside, canvas.image[grid.top :])
    scale = 1 / (camera.focal * camera.eye)
    plane = (-camera.roll * scale, scale, (camera.roll * camera.u0 - camera.v0) * scale)
    layers = [canvas.layer(material.label, plane=plane) for material in materials]
    cv2.copyTo(which.astype(np.uint16) + np.uint16(layers[0]), inside, canvas.layers[grid.top :])


def _road(street: Street) -> int:
    """The index of the carriageway among the materials."""
    return len(street.left.strips) + 1


def _strips(street: Street, grid: Grid) -> tuple[list[Material], Image]:
    """Materials from left to right, and the index of each pixel's material."""
    left, right = street.sides
    parking = Material(labels.ROAD, times(street.asphalt.color, 0.93), 0.07, 0.1)
    materials = (
        [m for _, m in reversed(left.strips)] + [parking, street.asphalt, parking] + [m for _, m in right.strips]
    )
    borders = [-b for b, _ in reversed(left.strips[:-1])] + [-left.edge, -left.edge + 2.2 * left.parking]
    borders += [right.edge - 2.2 * right.parking, right.edge] + [b for b, _ in right.strips[:-1]]
    which = np.zeros(grid.s.shape, np.uint8)
    for border in borders:
        which += (grid.s > np.float32(border)).view(np.uint8)
    if street.crossing is not None:
        start, end = street.crossing
        beyond = (grid.s < -left.wall) | (grid.s > right.wall)
        around = (grid.z > start - 3) & (grid.z < end + 3)
        pavement = next((i for i, m in enumerate(materials) if m.label == labels.SIDEWALK and m.slab), None)
        if pavement is not None:
            which[around & beyond] = pavement
        which[(grid.z > start) & (grid.z < end)] = _road(street)
    return materials, which


def _texture(street: Street, materials: list[Material], which: Image, grid: Grid, rng: Rng) -> tuple[Field, Field]:
    """Brightness of each pixel: grit and stains, fading with the distance, and the joints of slabs; the bare stains."""
    shift = [rng.random() * SIZE for _ in range(4)]
    z = np.minimum(grid.z, 300)
    depth = z[:, z.shape[1] // 2, None]  # of the row: good enough for fading
    fine = lookup(grain(), z * 22 + np.float32(shift[0]), grid.s * 55 + np.float32(shift[1]))
    fine *= np.minimum(1, 9 / depth)
    half = np.s_[::2, ::2]  # what is soft is computed at half the resolution
    coarse = lookup(fractal(), z[half] * 5 + np.float32(shift[2]), grid.s[half] * 14 + np.float32(shift[3]))
    wheels = np.float32(0.035) * np.cos(grid.s[half] * np.float32(4 * np.pi / street.lane_width))
    stains, tracks = (cv2.resize(field, z.shape[::-1]) for field in (coarse * np.minimum(1, 40 / depth[::2]), wheels))
    table = np.zeros((256, 3), np.float32)
    table[: len(materials)] = [(m.grit, m.stain, m.slab) for m in materials]
    fine *= cv2.LUT(which, table[:, 0])
    stains *= cv2.LUT(which, table[:, 1])
    shade: Field = fine + stains
    shade += 1
    cv2.subtract(shade, tracks + np.float32(0.035), shade, cv2.compare(which, _road(street), cv2.CMP_EQ))
    rows = np.flatnonzero(z[:, 0] < 15)
    if table[:, 2].any() and len(rows):
        near = np.s_[rows[0] :]
        side = cv2.LUT(which[near], table[:, 2])
        unit = 1 / np.maximum(side, 0.1)
        joint = np.minimum(np.abs(fraction(grid.s[near] * unit) - 0.5), np.abs(fraction(z[near] * unit) - 0.5))
        fade = np.clip(1.4 - z[near] * unit / 18, 0, np.clip(15 - z[near], 0, 1))
        shade[near] -= np.float32(0.16) * (side > 0) * (joint < 0.05) * fade
    return shade, coarse


def _sunlight(
    canvas: Canvas, street: Street, grid: Grid, footprints: list[Footprint], skyline: tuple[Field, Field]
) -> tuple[Field, Field]:
    """How much of the sun and how much of the sky each ground pixel sees, 0…1."""
    shape = canvas.image.shape[:2]
    sun, sky = np.full(shape, 255, np.uint8), np.full(shape, 255, np.uint8)
    x, y, away = canvas.light.sun
    if footprints:
        for hull in _shadows(canvas.camera, footprints, (-x / y, -away / y), 0.0):
            cv2.fillConvexPoly(sun, hull, 40, cv2.LINE_8, SUBPIXEL)
        for hull in _shadows(canvas.camera, [f for f in footprints if f.lift == 0], (0.0, 0.0), 0.12):
            cv2.fillConvexPoly(sky, hull, 96, cv2.LINE_8, SUBPIXEL)
    sun, sky = cv2.blur(sun[grid.top :], (3, 3)), cv2.GaussianBlur(sky[grid.top :], (0, 0), 1.4)
    sunny, open_sky = (cv2.multiply(a, 1 / 255, dtype=cv2.CV_32F) for a in (sun, sky))
    side = street.right if x > 0 else street.left
    half = np.s_[::2, ::2]  # shadows of buildings are smooth enough for half the resolution
    way = np.maximum(side.wall - side.sign * grid.s[half], 0) * np.float32(1 / max(0.08, abs(x)))
    heights = skyline[int(side.sign > 0)]
    at = np.clip(grid.z[half] + np.float32(away) * way + 50, 0, len(heights) - 1).astype(np.int32)
    seen = 1 - np.clip((np.take(heights, at) - np.float32(y) * way) * np.float32(1.5), 0, 1)
    seen[side.sign * grid.s[half] >= side.wall] = 1
    sunny *= cv2.resize(seen, sunny.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return sunny, open_sky


def _shadows(camera: Camera, footprints: list[Footprint], offset: tuple[float, float], grow: float) -> list[Fixed]:
    """Outlines of the shadows in the image: each footprint swept along `offset` times its height."""
    feet = np.array([(f.s, f.z, f.half_width + grow, f.half_length + grow, f.lift, f.height) for f in footprints])
    corners = np.zeros((len(feet), 2, 4, 3))
    for axis, away, signs in ((0, 0, (-1, 1, 1, -1)), (2, 1, (-1, -1, 1, 1))):
        base = feet[:, away, None] + feet[:, away + 2, None] * np.array(signs)
        corners[..., axis] = base[:, None] + feet[:, 4:, None] * offset[away]
    corners[..., 2] = np.maximum(corners[..., 2], 1.0)
    pixels = camera.fixed(corners.reshape(len(feet), 8, 3))
    seen = (
        (pixels[..., 0].max(1) > 0) & (pixels[..., 0].min(1) < camera.width << SUBPIXEL) & (pixels[..., 1].max(1) > 0)
    )
    if offset == (0.0, 0.0):
        return list(pixels[seen, :4])
    return [cv2.convexHull(outline) for outline in pixels[seen]]
