"""Cars, vans, trucks, buses and trams: bodies of quads, with decoration on their faces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import cos, hypot
from typing import NamedTuple

import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import Array, Color, Fixed, times
from segraft.data.streets.pen import RIM, Pen, Place
from segraft.data.streets.street import Rng, pick, vary

PAINTS: tuple[Color, ...] = (
    *((28, 30, 34), (60, 64, 70), (150, 154, 158), (196, 198, 200), (228, 228, 226), (36, 54, 98), (120, 24, 28)),
    *((168, 32, 30), (88, 96, 88), (52, 88, 120), (176, 150, 110), (214, 168, 40), (44, 84, 62)),
)
GLASS: Color = (44, 54, 62)
BLACK: Color = (26, 26, 28)
RED, WHITE = (190, 24, 22), (238, 236, 224)
TAIL, HEAD = (255, 40, 24), (255, 246, 220)
BOARDS: tuple[Color, ...] = ((250, 190, 60), (240, 240, 220))
AS_IT_IS: Place = (1.0, 1.0, 1.0)
Tint = Color | float
"""A colour, or a share of the vehicle's paint."""


class Deco(NamedTuple):
    """A rectangle on a face: x from the left, y from the top, in shares of the face."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: Tint
    glow: Color | None = None


@dataclass(frozen=True)
class Face:
    """A quad, counter-clockwise as seen from outside, beginning at the top left."""

    corners: tuple[Place, Place, Place, Place]
    color: Tint
    decos: tuple[Deco, ...] = ()

    @property
    def normal(self) -> Place:
        """Unit vector outward."""
        (w0, y0, l0), (w1, y1, l1), _, (w3, y3, l3) = self.corners
        (a, b, c), (d, e, f) = (w3 - w0, y3 - y0, l3 - l0), (w1 - w0, y1 - y0, l1 - l0)
        w, y, ahead = b * f - c * e, c * d - a * f, a * e - b * d  # (w, y, l) is left-handed
        length = hypot(w, y, ahead)
        return w / length, y / length, ahead / length

    def adorned(self, *decos: Deco) -> Face:
        """The face with more decoration."""
        return Face(self.corners, self.color, self.decos + decos)


class Mesh:
    """Faces and what is on them as one array of quads, so that one projection serves them all."""

    def __init__(self, faces: list[Face]) -> None:
        self.faces = [(face.color, face.normal) for face in faces]
        self.decos = [(i, deco) for i, face in enumerate(faces) for deco in face.decos]
        corners = np.array([face.corners for face in faces])
        self.quads: Array = np.concatenate([corners, self._adornment(corners)])
        """(faces + decos, 4, 3) local places"""

    def _adornment(self, corners: Array) -> Array:
        rectangles = np.array([deco[:4] for _, deco in self.decos])
        x, y = rectangles[:, [0, 0, 2, 2], None], rectangles[:, [1, 3, 3, 1], None]
        c0, c1, c2, c3 = corners[[i for i, _ in self.decos]].transpose(1, 0, 2)[:, :, None]
        top, low = c0 + x * (c3 - c0), c1 + x * (c2 - c1)
        quads: Array = top + y * (low - top)
        return quads


def _box(
    width: float, low: float, high: float, rear: float, front: float, color: Tint, taper: float = 1.0
) -> dict[str, Face]:
    """The faces of a box; `taper` narrows its top."""
    a, b = width / 2, width / 2 * taper
    return {
        "rear": Face(((-b, high, rear), (-a, low, rear), (a, low, rear), (b, high, rear)), color),
        "front": Face(((b, high, front), (a, low, front), (-a, low, front), (-b, high, front)), color),
        "left": Face(((-b, high, front), (-a, low, front), (-a, low, rear), (-b, high, rear)), color),
        "right": Face(((b, high, rear), (a, low, rear), (a, low, front), (b, high, front)), color),
        "top": Face(((-b, high, front), (-b, high, rear), (b, high, rear), (b, high, front)), color),
    }


def _cabin(
    width: float, belt: float, top: float, lengths: tuple[float, float, float, float], color: Tint
) -> list[Face]:
    """Rear window, windscreen, side windows and roof; lengths: rear base, rear top, front top, front base."""
    rear, rear_top, front_top, front = lengths
    a, b = width / 2 * 0.96, width / 2 * 0.74
    pane = (Deco(0.06, 0.1, 0.94, 0.94, GLASS),)
    side = (Deco(0.05, 0.12, 0.47, 0.95, GLASS), Deco(0.52, 0.12, 0.95, 0.95, GLASS))
    return [
        Face(((-b, top, rear_top), (-a, belt, rear), (a, belt, rear), (b, top, rear_top)), color, pane),
        Face(((b, top, front_top), (a, belt, front), (-a, belt, front), (-b, top, front_top)), color, pane),
        Face(((-b, top, front_top), (-a, belt, front), (-a, belt, rear), (-b, top, rear_top)), color, side),
        Face(((b, top, rear_top), (a, belt, rear), (a, belt, front), (b, top, front_top)), color, side),
        Face(((-b, top, front_top), (-b, top, rear_top), (b, top, rear_top), (b, top, front_top)), color),
    ]


def _lights(body: dict[str, Face], wide: float, top: float, low: float) -> None:
    """Put tail lights, headlights, number plates and bumpers on the ends of a body."""
    plate = Deco(0.37, 0.55, 0.63, 0.7, (226, 224, 214))
    bumper = Deco(0.0, 0.82, 1.0, 1.0, BLACK)
    tail = [Deco(x, top, x + wide, low, RED, TAIL) for x in (0.02, 0.98 - wide)]
    head = [Deco(x, top, x + wide, low, WHITE, HEAD) for x in (0.02, 0.98 - wide)]
    body["rear"] = body["rear"].adorned(bumper, plate, *tail)
    body["front"] = body["front"].adorned(bumper, Deco(0.28, 0.3, 0.72, 0.62, BLACK), plate, *head)


def _draw(
    pen: Pen, label: int, mesh: Mesh, wheels: tuple[float, float, float], width: float, paint: Color, stretch: Place
) -> None:
    """Paint the underside, the faces that the camera sees from far to near, and the wheels on them.

    Args:
        pen: where to.
        label: the class.
        mesh: the body.
        wheels: where the axles are, from the middle, and the wheels' radius, metres.
        width: of the vehicle, metres.
        paint: the colour of which the mesh takes shares.
        stretch: by what the mesh is scaled across, up and along.
    """
    pen.layer(label)
    *axles, radius = wheels
    fine = width * pen.scale > 15
    if fine:
        for w in (-0.42 * width, 0.42 * width):
            for ahead in axles:
                pen.limb((w, 0.02, ahead), (w, 2 * radius, ahead), 0.2, BLACK)
    back = axles[0] if cos(pen.heading) > 0 else axles[1]
    pen.poly([(0.45 * w, y, back) for w, y in ((-width, 0.1), (width, 0.1), (width, 0.6), (-width, 0.6))], BLACK)
    shown = _faces(pen, mesh, paint, stretch, fine)
    for w, name in ((-0.5 * width, 2), (0.5 * width, 3)):
        if name in shown and radius * pen.scale > 1:
            _wheels(pen, w, (axles[0], axles[1]), radius, fine)


def _faces(pen: Pen, mesh: Mesh, paint: Color, stretch: Place, fine: bool) -> list[int]:
    """Paint the faces that are turned to the camera; far away only glass and lights are painted on them."""
    places = pen.world(mesh.quads * stretch)
    pixels = pen.canvas.camera.fixed(places)
    shown = _seen(pen, places[: len(mesh.faces)], pixels[: len(mesh.faces)])
    adornment: dict[int, list[tuple[int, Deco]]] = {i: [] for i in shown}
    for k, (i, deco) in enumerate(mesh.decos, len(mesh.faces)):
        if i in adornment and (fine or deco.glow or deco.color == GLASS):
            adornment[i].append((k, deco))
    for i, decos in adornment.items():
        color, normal = mesh.faces[i]
        light = pen.face_light(normal)
        pen.canvas.fill(pixels[i], times(_tinted(color, paint), light))
        dim = (0.3 + 0.7 * light[0], 0.3 + 0.7 * light[1], 0.3 + 0.7 * light[2])
        for k, deco in decos:
            glow = deco.glow if pen.awake else None
            pen.canvas.fill(pixels[k], times(_tinted(deco.color, paint), dim), glow, solid=False)
    return shown


def _seen(pen: Pen, places: Array, pixels: Fixed) -> list[int]:
    """The faces that are turned to the camera, from far to near."""
    away = np.hypot(places[..., 0] + pen.canvas.camera.sway(places[..., 2]), places[..., 2]).mean(1)
    one, other = (pixels[:, 2] - pixels[:, 0]).T, (pixels[:, 3] - pixels[:, 1]).T
    turned = one[0].astype(np.int64) * other[1] < other[0].astype(np.int64) * one[1]
    return [i for i in np.argsort(-away, kind="stable").tolist() if turned[i]]


def _tinted(tint: Tint, paint: Color) -> Color:
    return times(paint, tint) if isinstance(tint, float) else tint


def _wheels(pen: Pen, w: float, axles: tuple[float, float], radius: float, fine: bool) -> None:
    rims = np.empty((2, 2, len(RIM), 3))
    rims[..., 0] = w
    for k, size in enumerate((1.0, 0.55)):
        rims[k, ..., 1] = radius * (1 + size * RIM[:, 1])
        rims[k, ..., 2] = np.array(axles)[:, None] + radius * size * RIM[:, 0]
    tyres, hubs = pen.fixed(rims[:, :, :: 1 if radius * pen.scale > 4 else 2])
    for tyre, hub in zip(tyres, hubs, strict=True):
        pen.canvas.fill(tyre, BLACK)
        if fine:
            pen.canvas.fill(hub, pen.lit((120, 122, 126)), solid=False)


HALF, WIDE, FLAT, TALL = 2.175, 1.82, 1.49, 1.78
"""Of the cars that are stretched to all others: half the length, the width, the height of a low and a tall one."""


@cache
def _car(tall: bool, saloon: bool) -> Mesh:
    top = TALL if tall else FLAT
    belt = 0.62 * top
    trunk = (-0.72 * HALF, -0.38 * HALF) if saloon else (-0.97 * HALF, -0.8 * HALF)
    body = _box(WIDE, 0.26, belt, -HALF, HALF, 1.0, 0.97)
    _lights(body, 0.17, 0.16, 0.46)
    sill, line = Deco(0.0, 0.8, 1.0, 1.0, 0.6), Deco(0.0, 0.36, 1.0, 0.41, 0.75)
    for side in ("left", "right"):
        body[side] = body[side].adorned(sill, line)
    cabin = _cabin(WIDE, belt, top, (*trunk, 0.16 * HALF, 0.5 * HALF), 1.0)
    return Mesh([body[name] for name in ("rear", "front", "left", "right", "top")] + cabin)


def car(pen: Pen, rng: Rng) -> None:
    """A hatchback, saloon, estate or small van."""
    paint = vary(rng, pick(rng, PAINTS), 14)
    kind = rng.random()
    half, width = rng.uniform(3.9, 4.8) / 2, rng.uniform(1.72, 1.92)
    tall = kind >= 0.7
    top = rng.uniform(1.62, 1.95) if tall else rng.uniform(1.42, 1.56)
    stretch = (width / WIDE, top / (TALL if tall else FLAT), half / HALF)
    _draw(pen, labels.CAR, _car(tall, kind < 0.35), (-0.6 * half, 0.62 * half, 0.32), width, paint, stretch)


def truck(pen: Pen, rng: Rng) -> None:
    """A cab and a box or a tarpaulin."""
    cab, load = vary(rng, pick(rng, PAINTS), 14), vary(rng, pick(rng, PAINTS), 14)
    load = pick(rng, ((226, 226, 222), load, (196, 200, 204)))
    length, width, high = rng.uniform(6.0, 9.5), rng.uniform(2.2, 2.5), rng.uniform(2.9, 3.7)
    half = length / 2
    head = _box(width * 0.96, 0.5, high * 0.82, half - 1.9, half, cab, 0.95)
    _lights(head, 0.16, 0.72, 0.82)
    head["front"] = head["front"].adorned(Deco(0.07, 0.1, 0.93, 0.48, GLASS))
    head["left"] = head["left"].adorned(Deco(0.1, 0.12, 0.55, 0.45, GLASS))
    head["right"] = head["right"].adorned(Deco(0.45, 0.12, 0.9, 0.45, GLASS))
    box = _box(width, 0.95, high, -half, half - 2.0, load)
    bar = _box(width, 0.5, 0.95, -half, half - 2.0, (52, 52, 56))
    tail = [Deco(x, 0.1, x + 0.14, 0.6, RED, TAIL) for x in (0.03, 0.83)]
    bar["rear"] = bar["rear"].adorned(*tail, Deco(0.4, 0.2, 0.6, 0.7, WHITE))
    box["rear"] = box["rear"].adorned(
        Deco(0.49, 0.02, 0.51, 0.98, times(load, 0.6)), Deco(0.0, 0.93, 1.0, 1.0, (90, 90, 92))
    )
    if rng.random() < 0.5:
        stripe = Deco(0.0, 0.4, 1.0, 0.62, vary(rng, pick(rng, PAINTS)))
        box["left"], box["right"] = box["left"].adorned(stripe), box["right"].adorned(stripe)
    faces = [part[name] for part in (bar, head, box) for name in ("rear", "front", "left", "right", "top")]
    _draw(pen, labels.TRUCK, Mesh(faces), (-half + 1.2, half - 1.0, 0.48), width, cab, AS_IT_IS)


def bus(pen: Pen, rng: Rng) -> None:
    """A town bus."""
    paint = pick(rng, ((226, 196, 40), (190, 36, 36), (232, 232, 228), (40, 92, 150), (60, 120, 70), (214, 110, 36)))
    _coach(pen, rng, labels.BUS, vary(rng, paint), (rng.uniform(9.5, 12.5), 2.5, rng.uniform(2.9, 3.2)), 0.46)


def tram(pen: Pen, rng: Rng) -> None:
    """A tram; Cityscapes calls it a train."""
    paint = pick(rng, ((214, 44, 40), (236, 234, 226), (240, 206, 60), (44, 116, 76)))
    size = (rng.uniform(16, 22), 2.4, 3.5)
    _coach(pen, rng, labels.TRAIN, vary(rng, paint, 10), size, 0.3)
    pen.limb((0, size[2], -1.5), (0, size[2] + 1.1, 0), 0.08, pen.lit((50, 50, 54)))
    pen.limb((0, size[2] + 1.1, 0), (0, size[2] + 1.7, -1.2), 0.08, pen.lit((50, 50, 54)))


def _coach(pen: Pen, rng: Rng, label: int, paint: Color, size: tuple[float, float, float], radius: float) -> None:
    length, width, high = size
    half, glow = length / 2, (120, 116, 96)
    body = _box(width, 0.32, high, -half, half, paint, 0.97)
    _lights(body, 0.12, 0.72 if label == labels.BUS else 0.64, 0.8)
    board = Deco(0.18, 0.03, 0.82, 0.13, (24, 24, 24), pick(rng, BOARDS))
    body["front"] = body["front"].adorned(Deco(0.05, 0.16, 0.95, 0.56, GLASS), board)
    body["rear"] = body["rear"].adorned(Deco(0.1, 0.14, 0.9, 0.48, GLASS, glow), board)
    count = max(4, round(length / 1.5))
    panes = [Deco((i + 0.06) / count, 0.14, (i + 0.94) / count, 0.52, GLASS, glow) for i in range(count)]
    if rng.random() < 0.5:
        panes.append(Deco(0.0, 0.72, 1.0, 0.98, vary(rng, pick(rng, PAINTS))))
    body["left"], body["right"] = body["left"].adorned(*panes), body["right"].adorned(*panes)
    faces = [body[name] for name in ("rear", "front", "left", "right", "top")]
    _draw(pen, label, Mesh(faces), (-half + 2.4, half - 2.6, radius), width, paint, AS_IT_IS)
