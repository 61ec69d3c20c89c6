"""What stands along a street: poles, lamps, signs, traffic lights, bins."""

from __future__ import annotations

from math import copysign, cos, pi, sin

from segraft.data.streets import labels
from segraft.data.streets.canvas import CIRCLE, Color, Point, times
from segraft.data.streets.pen import Pen, Place
from segraft.data.streets.street import Rng, pick, vary

STEEL: Color = (108, 112, 116)
LAMP_COLORS: tuple[Color, ...] = ((255, 190, 110), (255, 224, 180), (240, 240, 255))
RED, WHITE, BLUE, DARK = (196, 30, 34), (232, 230, 224), (30, 78, 164), (40, 40, 44)
BULBS: tuple[tuple[Color, Color], ...] = (
    ((74, 24, 22), (255, 48, 36)),
    ((76, 60, 22), (255, 180, 30)),
    ((20, 62, 38), (60, 255, 150)),
)
"""Off and on, from top to bottom."""


def lamp_post(pen: Pen, rng: Rng, side: int, height: float) -> None:
    """A street lamp with an arm over the road."""
    steel = pen.lit(vary(rng, pick(rng, (STEEL, (70, 78, 74), (148, 150, 150)))))
    glow = pick(rng, LAMP_COLORS)
    reach = -side * rng.uniform(0.8, 2.2)
    tip = reach + copysign(0.6, reach)
    pen.layer(labels.POLE)
    pen.limb((0, 0, 0), (0, height, 0), 0.15, steel)
    pen.limb((0, 0, 0), (0, 0.9, 0), 0.22, times(steel, 0.9))
    pen.limb((0, height, 0), (reach, height + 0.25, 0), 0.09, steel)
    pen.limb((reach, height + 0.25, 0), (tip, height + 0.2, 0), 0.2, times(steel, 1.1))
    pen.limb((reach, height + 0.17, 0), (tip, height + 0.12, 0), 0.12, (226, 222, 206), glow)


def pole(pen: Pen, rng: Rng, height: float) -> None:
    """A plain mast or a bollard."""
    steel = pen.lit(vary(rng, pick(rng, (STEEL, (126, 116, 100), (72, 72, 76)))))
    pen.layer(labels.POLE)
    pen.limb((0, 0, 0), (0, height, 0), 0.13 if height < 2 else 0.2, steel)
    pen.limb((0.03, 0, 0), (0.03, height, 0), 0.05, times(steel, 0.7), solid=False)


def sign(pen: Pen, rng: Rng) -> None:
    """A traffic sign on a pole, sometimes two, sometimes with a board above."""
    top = rng.uniform(2.2, 3.0)
    pen.layer(labels.POLE)
    pen.limb((0, 0, 0), (0, top + 0.4, 0), 0.08, pen.lit(STEEL))
    pen.layer(labels.TRAFFIC_SIGN)
    for step in range(1 + (rng.random() < 0.3)):
        _plate(pen, rng, (0.0, top - 0.78 * step, 0.0), rng.uniform(0.34, 0.44))
    if rng.random() < 0.15:
        _board(pen, (0.0, top + 0.9, 0.0), (1.1, 0.45), pick(rng, ((28, 74, 150), (230, 190, 40), (24, 110, 70))))


OCTAGON: tuple[Point, ...] = tuple((cos(i * pi / 4 + pi / 8), sin(i * pi / 4 + pi / 8)) for i in range(8))
TRIANGLE: tuple[Point, ...] = ((0.0, -1.05), (1.0, 0.75), (-1.0, 0.75))
SQUARE: tuple[Point, ...] = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
ARROW: tuple[Point, ...] = (
    (-0.14, 0.6),
    (-0.14, -0.1),
    (-0.45, -0.1),
    (0, -0.65),
    (0.45, -0.1),
    (0.14, -0.1),
    (0.14, 0.6),
)


def _plate(pen: Pen, rng: Rng, at: Place, radius: float) -> None:
    center, r = pen.point(at), max(1.0, radius * pen.scale)
    shape, kind = pen.canvas.shape, rng.random()
    red, white, blue, dark = (pen.lit(c, 1.1) for c in (RED, WHITE, BLUE, DARK))
    if kind < 0.3:  # speed limit
        shape(center, (r, r), CIRCLE, red)
        shape(center, (0.72 * r, 0.72 * r), CIRCLE, white, solid=False)
        shape(center, (0.4 * r, 0.3 * r), SQUARE, dark, solid=False)
    elif kind < 0.55:  # warning, or give way
        turn = r if rng.random() < 0.6 else -r
        shape(center, (r, turn), TRIANGLE, red)
        shape((center[0], center[1] + 0.06 * turn), (0.62 * r, 0.62 * turn), TRIANGLE, white, solid=False)
    elif kind < 0.72:  # no entry
        shape(center, (r, r), OCTAGON, red)
        shape(center, (0.7 * r, 0.16 * r), SQUARE, white, solid=False)
    elif kind < 0.9:  # mandatory direction
        shape(center, (r, r), CIRCLE, blue)
        shape(center, (r, r), ARROW, white, solid=False)
    else:
        _board(pen, at, (1.7 * radius, 1.7 * radius), BLUE)


def _board(pen: Pen, at: Place, size: tuple[float, float], color: Color) -> None:
    center, width, height = pen.point(at), size[0] / 2 * pen.scale, size[1] / 2 * pen.scale
    pen.canvas.shape(center, (width, height), SQUARE, pen.lit(WHITE, 1.05))
    pen.canvas.shape(center, (0.86 * width, 0.86 * height), SQUARE, pen.lit(color, 1.05), solid=False)


def traffic_light(pen: Pen, rng: Rng, side: int, arm: float, state: int) -> None:
    """A traffic light on a pole; with an `arm` (metres) one more hangs over the road."""
    steel = pen.lit(vary(rng, pick(rng, (STEEL, (66, 70, 68)))))
    high = 5.6 if arm else 3.4
    heads = [(0.0, 2.7)]
    pen.layer(labels.POLE)
    pen.limb((0, 0, 0), (0, high, 0), 0.14, steel)
    if arm:
        pen.limb((0, high, 0), (-side * arm, high + 0.1, 0), 0.11, steel)
        heads.append((-side * arm, high - 0.2))
    pen.layer(labels.TRAFFIC_LIGHT)
    for w, y in heads:
        pen.canvas.shape(pen.point((w, y, 0)), (0.21 * pen.scale, 0.52 * pen.scale), SQUARE, (34, 36, 34))
        for i, (off, on) in enumerate(BULBS):
            lit = state == i
            pen.disc((w, y + 0.31 - 0.31 * i, 0), 0.125, on if lit else off, on if lit else None, solid=False)


def bin_(pen: Pen, rng: Rng) -> None:
    """A waste bin or a box: void, as Cityscapes' `static`."""
    color = pen.lit(vary(rng, pick(rng, ((60, 78, 60), (70, 70, 74), (40, 60, 104), (150, 60, 40)))))
    width, height = rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.2)
    pen.layer(labels.STATIC)
    pen.limb((0, 0, 0), (0, height, 0), width, color)
    pen.limb((0, height, 0), (0, height + 0.1, 0), width * 1.15, times(color, 0.7))
    pen.limb((width * 0.3, 0, 0), (width * 0.3, height, 0), width * 0.35, times(color, 0.8), solid=False)
