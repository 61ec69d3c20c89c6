"""People on foot, bicycles, motorcycles and who rides them."""

from __future__ import annotations

from math import cos, sin

import cv2
import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import CIRCLE, SUBPIXEL, Color, times
from segraft.data.streets.pen import Pen, Place
from segraft.data.streets.street import Rng, pick, vary

SKIN: tuple[Color, ...] = ((226, 184, 154), (202, 152, 118), (150, 104, 78), (96, 66, 52), (236, 200, 176))
BLACK: Color = (30, 30, 32)
FINE = 14
"""Pixels a metre below which hands, feet and knees cannot be made out."""
RED_LAMP: Color = (170, 20, 20)
HAIR: tuple[Color, ...] = ((34, 28, 26), (74, 52, 36), (126, 92, 56), (190, 160, 104), (140, 138, 136))
CLOTHES: tuple[Color, ...] = (
    *((32, 34, 42), (54, 62, 88), (92, 34, 36), (180, 46, 44), (64, 88, 66), (196, 190, 178), (224, 222, 216)),
    *((70, 66, 62), (40, 76, 122), (210, 164, 60), (130, 120, 148), (228, 120, 60)),
)
TROUSERS: tuple[Color, ...] = ((34, 38, 54), (28, 28, 30), (62, 74, 104), (92, 84, 72), (120, 118, 116))


def pedestrian(pen: Pen, rng: Rng) -> None:
    """A person who walks or stands."""
    size = rng.uniform(0.6, 0.75) if rng.random() < 0.12 else rng.uniform(0.9, 1.08)
    coat, legs, skin, hair = (vary(rng, pick(rng, c)) for c in (CLOTHES, TROUSERS, SKIN, HAIR))
    stride, swing = rng.uniform(-0.32, 0.32), rng.uniform(-0.25, 0.25)
    skirt, bag, long, hat = (rng.random() < chance for chance in (0.18, 0.3, 0.35, 0.2))
    pen.layer(labels.PERSON)
    fine = pen.scale > FINE
    for side, step in ((-1, stride), (1, -stride)):
        cloth = pen.lit(legs, 1.0 if side < 0 else 0.86)
        knee, foot = (side * 0.09 * size, 0.47 * size, 0.4 * step), (side * 0.1 * size, 0.05, step)
        hip = (side * 0.09 * size, 0.9 * size, 0)
        if not fine:
            pen.limb(hip, foot, 0.15 * size, cloth)
            continue
        pen.limb(hip, knee, 0.17 * size, cloth)
        pen.limb(knee, foot, 0.12 * size, cloth)
        pen.limb(foot, (foot[0], 0.04, step + 0.16), 0.09 * size, pen.lit((40, 36, 34)))
    for side, reach in ((-1, swing), (1, -swing)):
        shoulder, hand = (side * 0.21 * size, 1.4 * size, 0), (side * 0.27 * size, 0.84 * size, reach)
        pen.limb(shoulder, hand, 0.11 * size, pen.lit(coat, 0.82))
        if fine:
            pen.disc(hand, 0.055 * size, pen.lit(skin))
    _torso(pen, size, 0.5 if skirt else 0.72 if long else 0.86, pen.lit(coat))
    if bag:
        pen.limb((0.12, 1.36 * size, -0.14), (0.12, 0.98 * size, -0.16), 0.26 * size, pen.lit(pick(rng, CLOTHES)))
    _head(pen, (0, 1.6 * size, 0), size, skin, hair, hat)


BODY = ((-0.5, 0.0), (0.5, 0.0), (1.0, 0.12), (0.86, 0.55), (0.95, 1.0), (-0.95, 1.0), (-0.86, 0.55), (-1.0, 0.12))
SHADED = ((0.25, 0.0), (1.0, 0.12), (0.86, 0.55), (0.95, 1.0), (0.2, 1.0))


def _torso(pen: Pen, size: float, bottom: float, color: Color) -> None:
    top, low = pen.point((0, 1.46 * size, 0)), pen.point((0, bottom * size, 0))
    half = 0.22 * size * pen.scale * (0.75 + 0.25 * abs(cos(pen.heading)))
    pen.canvas.shape(top, (half, low[1] - top[1]), BODY, color)
    if half > 2:  # the side away from the sun
        away = -half if pen.canvas.light.sun[0] > 0 else half
        pen.canvas.shape(top, (away, low[1] - top[1]), SHADED, times(color, 0.78), solid=False)


def _head(pen: Pen, at: Place, size: float, skin: Color, hair: Color, hat: bool) -> None:
    w, y, ahead = at
    pen.limb((w, y - 0.2 * size, ahead), (w, y, ahead), 0.1 * size, pen.lit(skin, 0.85))
    pen.disc(at, 0.1 * size, pen.lit(skin), tall=1.25)
    back = cos(pen.heading) > 0.2
    center = (w, y + (0.02 if back else 0.06) * size, ahead)
    pen.disc(center, 0.105 * size, pen.lit(hair), solid=hat, tall=1.15 if back else 0.7)


def bicycle(pen: Pen, rng: Rng, rider: bool) -> None:
    """A bicycle, parked or ridden."""
    frame, black = pen.lit(vary(rng, pick(rng, CLOTHES))), BLACK
    pen.layer(labels.BICYCLE)
    wide = abs(sin(pen.heading)) > 0.35
    for ahead in (-0.52, 0.52):
        if wide:
            _spoked(pen, ahead, 0.34)
        else:
            pen.limb((0, 0, ahead), (0, 0.68, ahead), 0.07, black)
    crank, seat, head = (0, 0.3, -0.08), (0, 0.86, -0.2), (0, 0.86, 0.36)
    for p, q in (
        (crank, seat),
        (crank, head),
        (seat, head),
        (crank, (0, 0.34, -0.52)),
        (seat, (0, 0.34, -0.52)),
        (head, (0, 0.34, 0.52)),
    ):
        pen.limb(p, q, 0.045, frame)
    pen.limb(head, (0, 1.02, 0.34), 0.04, black)
    pen.limb((-0.26, 1.03, 0.3), (0.26, 1.03, 0.3), 0.045, black)
    pen.limb((0, 0.92, -0.33), (0, 0.92, -0.1), 0.09, black)
    if rider:
        pen.disc((0, 0.75, -0.45), 0.04, RED_LAMP, (255, 40, 20), solid=False)
        _rider(pen, rng, hip=(0.0, 0.95, -0.2), hands=(0.0, 1.05, 0.3), foot=0.18, helmet=0.5)


def _spoked(pen: Pen, ahead: float, radius: float) -> None:
    """A wheel seen from the side; what is behind shows through, but the label covers it, as in Cityscapes."""
    canvas = pen.canvas
    rim = [pen.point((0, radius * (1 + y), ahead + radius * x)) for x, y in CIRCLE]
    columns, rows = [u for u, _ in rim], [v for _, v in rim]
    area = np.s_[
        max(0, int(min(rows)) - 1) : max(0, int(max(rows)) + 2),
        max(0, int(min(columns)) - 1) : max(0, int(max(columns)) + 2),
    ]
    behind = canvas.image[area].copy()
    canvas.poly(rim, (0, 0, 0))
    canvas.image[area] = behind
    if radius * pen.scale > 8:
        hub = pen.point((0, radius, ahead))
        for end in rim[::2]:
            canvas.limb(hub, end, 0.4, (128, 128, 128), solid=False)
    tyre = np.array([(int(16 * u), int(16 * v)) for u, v in rim], np.int32)
    cv2.polylines(canvas.image, [tyre], True, BLACK, max(1, round(0.06 * pen.scale)), cv2.LINE_AA, SUBPIXEL)


def motorcycle(pen: Pen, rng: Rng, rider: bool) -> None:
    """A motorcycle or a scooter, parked or ridden."""
    paint, black = pen.lit(vary(rng, pick(rng, CLOTHES))), BLACK
    pen.layer(labels.MOTORCYCLE)
    for ahead in (-0.65, 0.68):
        pen.limb((0, 0, ahead), (0, 0.62, ahead), 0.16, black)
        pen.wheel(0, ahead, 0.31, black)
        pen.wheel(0, ahead, 0.15, (122, 122, 126), solid=False)
    pen.limb((0, 0.42, -0.45), (0, 0.5, 0.4), 0.42, (54, 54, 58))
    pen.limb((0, 0.74, -0.75), (0, 0.72, 0.0), 0.2, black)
    pen.limb((0, 0.76, 0.0), (0, 0.86, 0.42), 0.3, paint)
    pen.limb((0, 0.35, 0.68), (0, 1.0, 0.42), 0.1, (90, 90, 94))
    pen.limb((-0.36, 1.03, 0.4), (0.36, 1.03, 0.4), 0.06, black)
    front = cos(pen.heading) < 0
    lamp: Place = (0, 0.88, 0.62) if front else (0, 0.72, -0.85)
    color, glow = ((238, 236, 220), (255, 246, 220)) if front else (RED_LAMP, (255, 40, 20))
    pen.disc(lamp, 0.07, color, glow if rider else None, solid=False)
    if rider:
        _rider(pen, rng, hip=(0.0, 0.82, -0.3), hands=(0.0, 1.06, 0.4), foot=0.34, helmet=1.0)


def _rider(pen: Pen, rng: Rng, hip: Place, hands: Place, foot: float, helmet: float) -> None:
    """Who sits on it, painted as a layer of its own."""
    coat, legs, skin = (vary(rng, pick(rng, c)) for c in (CLOTHES, TROUSERS, SKIN))
    lid = rng.random() < helmet
    top = vary(rng, pick(rng, CLOTHES if lid else HAIR))
    pen.layer(labels.RIDER)
    _, y, ahead = hip
    shoulder = (0.0, y + 0.52, ahead + 0.22)
    for side in (-1, 1):
        lift = rng.uniform(-0.08, 0.1)
        knee = (side * 0.14, y - 0.34 + lift, ahead + 0.3)
        pen.limb((side * 0.1, y, ahead), knee, 0.17, pen.lit(legs))
        pen.limb(knee, (side * 0.13, foot + lift, ahead + 0.14), 0.13, pen.lit(legs, 0.9))
        if pen.scale < FINE:
            pen.limb((side * 0.2, shoulder[1], shoulder[2]), (side * 0.27, *hands[1:]), 0.11, pen.lit(coat, 0.9))
            continue
        elbow = (side * 0.3, (y + 0.5 + hands[1]) / 2 - 0.06, (shoulder[2] + hands[2]) / 2)
        pen.limb((side * 0.2, shoulder[1] - 0.04, shoulder[2]), elbow, 0.11, pen.lit(coat, 0.9))
        pen.limb(elbow, (side * 0.27, hands[1], hands[2]), 0.09, pen.lit(coat, 0.86))
    pen.limb((0, y - 0.04, ahead), (0, shoulder[1] - 0.02, shoulder[2]), 0.4, pen.lit(coat))
    pen.limb((0, shoulder[1] - 0.05, shoulder[2]), (0, shoulder[1] + 0.03, shoulder[2]), 0.3, pen.lit(coat))
    at = (0.0, shoulder[1] + 0.2, shoulder[2] + 0.06)
    _head(pen, at, 1.0, skin, top, False)
    if lid:
        pen.disc((0, at[1] + 0.04, at[2]), 0.13, pen.lit(top))
