"""Small solid things: a pen that draws in the coordinates of a thing that stands on the street and faces some way."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, sin

import numpy as np

from segraft.data.streets.canvas import CIRCLE, Array, Canvas, Color, Fixed, Point, times

Place = tuple[float, float, float]
"""(w, y, l): metres to the thing's right, up, and ahead of it"""
RIM: Array = np.array(CIRCLE)
"""(14, 2)"""


class Pen:
    """Draws a thing that stands at (s, z)."""

    def __init__(
        self, canvas: Canvas, s: float, z: float, heading: float = 0.0, shadow: float = 0.0, awake: bool = True
    ) -> None:
        """Take a pen.

        Args:
            canvas: where to draw.
            s: where the thing stands.
            z: where the thing stands.
            heading: radians clockwise from "away from the camera along the road".
            shadow: the share of the sun that is hidden from here.
            awake: the thing's own lamps are on when lamps are.
        """
        self.canvas, self.s, self.z, self.heading, self.shadow, self.awake = canvas, s, z, heading, shadow, awake
        self.scale = canvas.camera.focal / z
        """pixels a metre"""
        self._sine, self._cosine, self._project = sin(heading), cos(heading), canvas.camera.point
        self._light = canvas.light.on((0.0, 0.45, -0.8), shadow)

    def layer(self, label: int) -> None:
        """What is drawn next is of this class; its depth is that of the thing's middle."""
        self.canvas.layer(label, self.z)

    def point(self, place: Place) -> Point:
        """The pixel of a local place."""
        w, y, ahead = place
        sine, cosine = self._sine, self._cosine
        return self._project(self.s + w * cosine + ahead * sine, y, self.z - w * sine + ahead * cosine)

    def world(self, places: Array) -> Array:
        """(…, 3) local → (…, 3) places (s, y, z)."""
        sine, cosine = self._sine, self._cosine
        world: Array = places @ np.array(((cosine, 0.0, -sine), (0.0, 1.0, 0.0), (sine, 0.0, cosine)))
        world += (self.s, 0.0, self.z)
        return world

    def fixed(self, places: Array) -> Fixed:
        """(…, 3) local places → (…, 2) fixed-point pixels."""
        return self.canvas.camera.fixed(self.world(places))

    def face_light(self, normal: Place) -> Color:
        """The light on a face with this local normal."""
        sine, cosine = self._sine, self._cosine
        w, y, ahead = normal
        return self.canvas.light.on((w * cosine + ahead * sine, y, -w * sine + ahead * cosine), self.shadow)

    def lit(self, color: Color, factor: float = 1.0) -> Color:
        """A colour on a round thing that is seen from the camera's side."""
        return times(times(color, self._light), factor)

    def poly(self, places: Iterable[Place], color: Color, glow: Color | None = None, solid: bool = True) -> None:
        """A polygon of local places."""
        self.canvas.poly([self.point(p) for p in places], color, glow, solid)

    def limb(
        self, start: Place, end: Place, width: float, color: Color, glow: Color | None = None, solid: bool = True
    ) -> None:
        """A bar between two local places, `width` metres thick."""
        self.canvas.limb(self.point(start), self.point(end), width * self.scale, color, glow, solid)

    def disc(
        self,
        center: Place,
        radius: float,
        color: Color,
        glow: Color | None = None,
        solid: bool = True,
        tall: float = 1.0,
    ) -> None:
        """A disc that faces the camera, or an ellipse `tall` times as high as wide."""
        r = max(radius * self.scale, 0.5)
        rim = CIRCLE if r > 4 else CIRCLE[::2]
        self.canvas.shape(self.point(center), (r, r * tall), rim, color, glow, solid)

    def wheel(
        self, w: float, ahead: float, radius: float, color: Color, solid: bool = True, inner: float = 1.0
    ) -> None:
        """A disc in the plane of the thing's length and height that touches the ground; `inner` shrinks it."""
        r = radius * inner
        rim = RIM if r * self.scale > 4 else RIM[::2]
        places = np.empty((len(rim), 3))
        places[:, 0], places[:, 1], places[:, 2] = w, radius + r * rim[:, 1], ahead + r * rim[:, 0]
        self.canvas.fill(self.fixed(places), color, solid=solid)
