"""A street with things on it, and what is known about each before it is painted: its depth and its shadow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sin
from typing import NamedTuple

import cv2
import numpy as np

from segraft.data.streets.canvas import SUBPIXEL, Array, Canvas
from segraft.data.streets.grid import Field
from segraft.data.streets.ground import Footprint
from segraft.data.streets.pen import Pen
from segraft.data.streets.street import Rng, Street

Drawing = Callable[[Canvas, Rng, float], None]
"""Paints one thing; the last argument is the share of the sun that is hidden from it."""


PANEL = 0.05
"""Half the width of walls and fences, metres; all else is wider."""
CELL = 2
"""The mask of what is hidden has a cell for each square of 1 << CELL pixels."""


class Thing(NamedTuple):
    """Something to be painted."""

    far: float
    """z of its far end: things are painted from far to near"""
    draw: Drawing
    foot: Footprint
    over: float = 0.3
    """by how much it is wider and higher than its footprint says, metres"""
    solid: float = 0.0
    """the share of its height up to which nothing is seen through it"""
    casts: bool = True
    """whether its shadow is that of its footprint; those of buildings come from the skyline"""


@dataclass
class Scene:
    """A street and what stands on it."""

    street: Street
    things: list[Thing] = field(default_factory=list)
    skyline: tuple[Field, Field] = field(default_factory=lambda: (np.zeros(220, np.float32), np.zeros(220, np.float32)))

    def shadow(self, s: float, z: float) -> float:
        """The share of the sun that buildings hide from a place."""
        sun = self.street.light.sun
        side = self.street.right if sun[0] > 0 else self.street.left
        way = max(0.0, side.wall - side.sign * s) / max(0.08, abs(sun[0]))
        heights = self.skyline[int(side.sign > 0)]
        height = float(heights[min(max(int(z + sun[2] * way + 50), 0), len(heights) - 1)])
        return min(1.0, max(0.0, height - 1.0 - sun[1] * way))

    def stand(
        self,
        s: float,
        z: float,
        draw: Callable[[Pen], None],
        size: tuple[float, float, float],
        heading: float = 0.0,
        lift: float = 0.0,
        awake: bool = True,
        over: float = 0.3,
        solid: float = 0.0,
    ) -> None:
        """Add a thing with a pen of its own; size: half its width, half its length, its height."""

        def paint(canvas: Canvas, rng: Rng, shadow: float) -> None:
            draw(Pen(canvas, s, z, heading, shadow, awake))

        turned = abs(sin(heading)) > 0.7
        half_width, half_length = (size[1], size[0]) if turned else size[:2]
        far = z + half_length if half_length > 1 else z
        self.things.append(Thing(far, paint, Footprint(s, z, half_width, half_length, size[2], lift), over, solid))


def in_view(scene: Scene) -> list[Thing]:
    """The things of which something may be in the picture, from far to near.

    From near to far, the outlines of what is solid are gathered in a coarse mask; a thing whose bounding box lies
    wholly in it is hidden. A quarter of all that stands in a town is.
    """
    camera, things = scene.street.camera, scene.things
    if not things:
        return []
    feet = np.array([(*t.foot[:5], t.solid, t.over) for t in things])
    s, z, half_width, half_length, height, solid, over = feet.T
    panel, house = half_width <= PANEL, half_width > 3
    across = half_width + np.where(panel | (solid > 0), 0, half_length) + over
    outer = camera.fixed(_corners(s, z, across, half_length, 0 * s, height + over)) >> (SUBPIXEL + CELL)
    lower = np.where(panel | house, 0.0, 0.3)
    inner = camera.fixed(_corners(s, z, half_width - 0.1, half_length - 0.1, lower, solid * height, 2.0)) >> CELL
    mask = np.zeros(((camera.height >> CELL) + 1, (camera.width >> CELL) + 1), np.uint8)
    (left, top), (right, bottom) = outer.min(1).T, outer.max(1).T
    seen = (right >= 0) & (left < mask.shape[1]) & (bottom >= 0) & (top < mask.shape[0])
    seen &= panel | house | (z - half_length > 3.2)
    boxes = np.stack([np.maximum(left, 0), right + 1, np.maximum(top, 0), bottom + 1], 1).tolist()
    shown = []
    for i in np.flatnonzero(seen)[::-1].tolist():
        x0, x1, y0, y1 = boxes[i]
        if not mask[y0:y1, x0:x1].all():
            shown.append(things[i])
            if things[i].solid:
                cv2.fillConvexPoly(mask, cv2.convexHull(inner[i]), 1, cv2.LINE_8, SUBPIXEL)
    return shown[::-1]


def _corners(s: Array, z: Array, across: Array, along: Array, low: Array, high: Array, near: float = 0.0) -> Array:
    """(n, 8, 3): the corners (s, y, z) of upright boxes around (s, z); what is nearer than `near` is cut off."""
    corners = np.empty((len(s), 2, 4, 3))
    corners[..., 0] = s[:, None, None] + across[:, None, None] * (-1, 1, 1, -1)
    corners[..., 1] = np.stack([low, high], 1)[..., None]
    corners[..., 2] = np.maximum(z[:, None, None] + along[:, None, None] * (-1, -1, 1, 1), near)
    return corners.reshape(len(s), 8, 3)
