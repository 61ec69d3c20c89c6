"""A street with things on it, and what is known about each before it is painted: its depth and its shadow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from segraft.data.streets.canvas import Canvas
from segraft.data.streets.grid import Field
from segraft.data.streets.ground import Footprint
from segraft.data.streets.pen import Pen
from segraft.data.streets.street import Rng, Street

Drawing = Callable[[Canvas, Rng, float], None]
"""Paints one thing; the last argument is the share of the sun that is hidden from it."""


PANEL = 0.05
"""Half the width of walls and fences, metres; all else is wider."""


@dataclass(frozen=True)
class Thing:
    """Something to be painted."""

    far: float
    """z of its far end: things are painted from far to near"""
    draw: Drawing
    foot: Footprint | None = None


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
    ) -> None:
        """Add a thing with a pen of its own; size: half its width, half its length, its height."""

        def paint(canvas: Canvas, rng: Rng, shadow: float) -> None:
            draw(Pen(canvas, s, z, heading, shadow, awake))

        turned = abs(np.sin(heading)) > 0.7
        half_width, half_length = (size[1], size[0]) if turned else size[:2]
        far = z + half_length if half_length > 1 else z
        self.things.append(Thing(far, paint, Footprint(s, z, half_width, half_length, size[2], lift)))


def in_view(thing: Thing, street: Street) -> bool:
    """Whether a thing may be in the picture; buildings always may."""
    foot, camera = thing.foot, street.camera
    if foot is None:
        return True
    if foot.half_width <= PANEL:
        ends = [camera.point(foot.s, 0.0, max(1.5, foot.z + way))[0] for way in (-foot.half_length, foot.half_length)]
        return max(ends) > 0 and min(ends) < camera.width
    if foot.z - foot.half_length < 3.2:
        return False
    reach = max(foot.half_width + foot.half_length, 0.5 * foot.height) + 0.3
    middle, _ = camera.point(foot.s, 0.0, foot.z)
    margin = camera.focal * reach / (foot.z - foot.half_length)
    return -margin < middle < camera.width + margin
