"""Cars, vans, trucks, buses and trams: bodies of quads, with decoration on their faces."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot
from typing import NamedTuple

import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import Array, Color, Fixed, times
from segraft.data.streets.pen import Pen, Place
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


class Deco(NamedTuple):
    """A rectangle on a face: x from the left, y from the top, in shares of the face."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: Color
    glow: Color | None = None


@dataclass(frozen=True)
class Face:
    """A quad, counter-clockwise as seen from outside, beginning at the top left."""

    corners: tuple[Place, Place, Place, Place]
    color: Color
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


def _box(
    width: float, low: float, high: float, rear: float, front: float, color: Color, taper: float = 1.0
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
    width: float, belt: float, top: float, lengths: tuple[float, float, float, float], color: Color
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


def _draw(pen: Pen, label: int, faces: list[Face], axles: tuple[float, float], width: float, radius: float) -> None:
    """Paint the underside, the faces that the camera sees from far to near, and the wheels on them."""
    pen.layer(label)
    fine = width * pen.scale > 15
    if fine:
        for w in (-0.42 * width, 0.42 * width):
            for ahead in axles:
                pen.limb((w, 0.02, ahead), (w, 2 * radius, ahead), 0.2, BLACK)
    back = axles[0] if cos(pen.heading) > 0 else axles[1]
    pen.poly([(0.45 * w, y, back) for w, y in ((-width, 0.1), (width, 0.1), (width, 0.6), (-width, 0.6))], BLACK)
    corners = np.array([face.corners for face in faces])
    places = pen.world(corners)
    pixels = pen.canvas.camera.fixed(places)
    away = np.hypot(places[..., 0] + pen.canvas.camera.sway(places[..., 2]), places[..., 2]).mean(1)
    shown = [i for i in np.argsort(-away, kind="stable").tolist() if _turned_here(pixels[i])]
    decos = _decorations(pen, [faces[i] for i in shown], corners[shown], fine)
    for i, adornment in zip(shown, decos, strict=True):
        light = pen.face_light(faces[i].normal)
        pen.canvas.fill(pixels[i], times(faces[i].color, light))
        dim = (0.3 + 0.7 * light[0], 0.3 + 0.7 * light[1], 0.3 + 0.7 * light[2])
        for deco, quad in adornment:
            pen.canvas.fill(quad, times(deco.color, dim), deco.glow if pen.awake else None, solid=False)
    for w, name in ((-0.5 * width, 2), (0.5 * width, 3)):
        if name in shown and radius * pen.scale > 1:
            for ahead in axles:
                pen.wheel(w, ahead, radius, BLACK)
                if fine:
                    pen.wheel(w, ahead, radius, pen.lit((120, 122, 126)), solid=False, inner=0.55)


def _turned_here(corners: Fixed) -> bool:
    """Whether a face is turned to the camera."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners.tolist()
    return bool((x2 - x0) * (y3 - y1) - (x3 - x1) * (y2 - y0) < 0)


def _decorations(pen: Pen, faces: list[Face], corners: Array, fine: bool) -> list[list[tuple[Deco, Fixed]]]:
    """What is painted on each face, projected in one go; far away only glass and lights are."""
    kept = [[d for d in face.decos if fine or d.glow or d.color == GLASS] for face in faces]
    flat = [(i, deco) for i, decos in enumerate(kept) for deco in decos]
    if not flat:
        return [[] for _ in faces]
    rectangles = np.array([deco[:4] for _, deco in flat])
    x, y = rectangles[:, [0, 0, 2, 2], None], rectangles[:, [1, 3, 3, 1], None]
    c0, c1, c2, c3 = corners[[i for i, _ in flat]].transpose(1, 0, 2)[:, :, None]
    top, low = c0 + x * (c3 - c0), c1 + x * (c2 - c1)
    quads = iter(pen.fixed(top + y * (low - top)))
    return [[(deco, next(quads)) for deco in decos] for decos in kept]


def car(pen: Pen, rng: Rng) -> None:
    """A hatchback, saloon, estate or small van."""
    paint = vary(rng, pick(rng, PAINTS), 14)
    kind = rng.random()
    length, width = rng.uniform(3.9, 4.8), rng.uniform(1.72, 1.92)
    top = rng.uniform(1.42, 1.56) if kind < 0.7 else rng.uniform(1.62, 1.95)
    belt, half = 0.62 * top, length / 2
    trunk = (-0.72 * half, -0.38 * half) if kind < 0.35 else (-0.97 * half, -0.8 * half)
    body = _box(width, 0.26, belt, -half, half, paint, 0.97)
    _lights(body, 0.17, 0.16, 0.46)
    sill, line = Deco(0.0, 0.8, 1.0, 1.0, times(paint, 0.6)), Deco(0.0, 0.36, 1.0, 0.41, times(paint, 0.75))
    for side in ("left", "right"):
        body[side] = body[side].adorned(sill, line)
    cabin = _cabin(width, belt, top, (*trunk, 0.16 * half, 0.5 * half), paint)
    faces = [body[name] for name in ("rear", "front", "left", "right", "top")] + cabin
    _draw(pen, labels.CAR, faces, (-0.6 * half, 0.62 * half), width, 0.32)


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
    _draw(pen, labels.TRUCK, faces, (-half + 1.2, half - 1.0), width, 0.48)


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
    _draw(pen, label, faces, (-half + 2.4, half - 2.6), width, radius)
