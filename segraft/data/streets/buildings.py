"""Facades, houses with roofs, walls, fences and hedges: upright rectangles with textures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import copysign, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.streets import labels
from segraft.data.streets.canvas import Canvas, Color, Image, times
from segraft.data.streets.street import Rng, Side, pick, vary
from segraft.data.streets.textures import crop, fractal, grain

PLASTER: tuple[Color, ...] = (
    *((206, 196, 178), (188, 176, 158), (214, 206, 196), (196, 162, 128), (172, 112, 88), (150, 88, 70)),
    *((168, 166, 164), (128, 126, 126), (212, 190, 140), (182, 196, 200), (120, 96, 84), (222, 218, 210)),
)
TILES: tuple[Color, ...] = ((142, 72, 54), (112, 66, 58), (84, 82, 86), (128, 92, 70))
SHOPS: tuple[Color, ...] = ((168, 40, 36), (32, 84, 140), (36, 110, 72), (206, 158, 40), (58, 52, 60), (230, 226, 220))
WARM = np.array(((255, 208, 132), (255, 226, 170), (236, 236, 220), (255, 186, 104)), np.float32)
Texture = NDArray[np.float32]
DEPTH = 11.0
"""Metres from the facade to the back."""

UNIT = 128
"""What stands for 1 in a shade kept as bytes."""
CELL, BAYS, FLOORS = 32, 17, 9
"""Texels a bay and a floor, and how many of both the largest facade has."""
KINDS, GLAZED = 24, 4
"""Kinds of facades; the first ones are glass and steel."""


@dataclass(frozen=True)
class Windows:
    """How a facade is divided, and its texture: made once a process, then cut, lit and tinted."""

    bay: float
    """metres"""
    floor: float
    """metres"""
    shade: Image
    """(FLOORS · CELL, BAYS · CELL) brightness of the wall, UNIT is 1, and 0 where glass is"""
    glass: tuple[Image, ...]
    """three planes like `shade`: colour of the panes in full light by day, 0 elsewhere"""
    lamps: Image
    """(FLOORS · CELL, BAYS · CELL, 3) what the panes give off at night"""


@dataclass(frozen=True)
class Building:
    """A house along the street."""

    side: Side
    setback: float
    start: float
    end: float
    height: float
    roof: float
    """height of a pitched roof (0: flat)"""
    shop: bool
    bare: bool
    """the end wall that faces the camera is in full view"""

    def paint(self, canvas: Canvas, rng: Rng, shadow: float) -> None:
        """Paint the end wall that faces the camera, the facade, the roof."""
        color, kind, light = vary(rng, pick(rng, PLASTER)), int(rng.random() * KINDS), canvas.light
        camera, sign = canvas.camera, self.side.sign
        front, lit = sign * (self.side.wall + self.setback), canvas.glow is not None
        back = front + sign * DEPTH
        start = max(self.start, 2.0, min(self.end - 1, 1.7 * camera.focal / camera.width * abs(front - camera.lateral)))
        height = min(self.height, camera.eye + 4 + self.end * camera.v0 / camera.focal)  # what is higher is not in view
        scale = min(16.0, 0.5 * camera.focal / max(start, 8.0), 150 / sqrt((self.end - start) * height))
        end_wall = times(color, light.on((0.0, 0.0, -1.0)))
        if self.start > 3 and self.bare:
            flank, glow = facade(rng, (DEPTH, height), (scale, scale), end_wall, kind, False, lit)
            canvas.panel(flank, ((front, 0.0, self.start), (back, height, self.start)), labels.BUILDING, glow=glow)
        elif self.start > 3:  # only what rises above the nearer house can be seen
            canvas.layer(labels.BUILDING, depth=self.start)
            corners = ((front, 0.0), (back, 0.0), (back, height), (front, height))
            canvas.poly([camera.point(s, y, self.start) for s, y in corners], end_wall)
        wall = times(color, light.on((-sign, 0.0, 0.0), shadow))
        across = 1.5 * camera.focal * (abs(front - camera.lateral) / start**2 + abs(camera.bend))  # seen from the side
        scales = min(scale, across), scale
        texture, glow = facade(rng, (self.end - start, height), scales, wall, kind, self.shop, lit)
        canvas.panel(texture, ((front, 0.0, start), (front, height, self.end)), labels.BUILDING, glow=glow)
        if self.roof:
            self._roof(canvas, rng, max(self.start, 2.0), (front, back), end_wall)

    def _roof(self, canvas: Canvas, rng: Rng, start: float, walls: tuple[float, float], color: Color) -> None:
        point, top, ridge = canvas.camera.point, self.height + self.roof, sum(walls) / 2
        eaves, edge = walls[0] - self.side.sign * 0.4, self.height - 0.2
        canvas.layer(labels.BUILDING, depth=start)
        canvas.poly(
            [point(s, y, start) for s, y in zip((*walls, ridge), (self.height, self.height, top), strict=True)], color
        )
        slope = ((eaves, edge, start), (ridge, top, start), (ridge, top, self.end), (eaves, edge, self.end))
        canvas.layer(labels.BUILDING, depth=(start + self.end) / 2)
        light = canvas.light.on((-0.6 * self.side.sign, 0.8, 0.0))
        canvas.poly([point(*corner) for corner in slope], times(vary(rng, pick(rng, TILES)), light))


@cache
def _windows(kind: int) -> Windows:
    rng = Rng(kind)
    glazed = kind < GLAZED
    width, height = (0.9, 0.82) if glazed else (rng.uniform(0.36, 0.62), rng.uniform(0.46, 0.66))
    frame, bands = (0.6, True) if glazed else (pick(rng, (1.25, 0.8, 1.1, 0.65)), rng.random() < 0.35)
    h, w = FLOORS * CELL, BAYS * CELL
    y, across = np.arange(h) / CELL % 1, np.abs(np.arange(w) / CELL % 1 - 0.5)
    top = (1 - height) * 0.45
    panes = np.outer((y > top) & (y < top + height), (across < width / 2) & (across > 0.012)).view(np.uint8)
    framed = np.outer((y > top - 0.03) & (y < top + height + 0.05), across < width / 2 + 0.04)
    shade = 1 + np.float32(0.035) * crop(grain(), rng, h, w) + np.float32(0.05) * crop(fractal(), rng, h, w)
    down = np.linspace(1.04, 0.92, h, dtype=np.float32)
    down[: CELL // 9] *= 0.78  # a cornice
    if bands:
        down[(y < 0.06) | (y > 0.95)] *= 0.8
    shade *= down[:, None] * np.where(framed, np.float32(frame), 1)
    glass, lamps = _glass(kind, 0.0 if glazed else rng.uniform(0.1, 0.4))
    return Windows(
        bay=rng.uniform(1.4, 2.2) if glazed else rng.uniform(2.0, 3.6),
        floor=3.4 if glazed else rng.uniform(2.8, 3.5),
        shade=cv2.convertScaleAbs(cv2.copyTo(shade, 1 - panes), None, UNIT),
        glass=tuple(cv2.split(cv2.copyTo(cv2.resize(glass, (w, h), interpolation=cv2.INTER_NEAREST), panes))),
        lamps=np.asarray(cv2.copyTo(cv2.resize(lamps, (w, h), interpolation=cv2.INTER_NEAREST), panes)),
    )


@cache
def _thinned(kind: int, along: int, up: int) -> Windows:
    """The same with every so many-th column and row."""
    full, here = _windows(kind), np.s_[up // 2 :: up, along // 2 :: along]
    shade, *glass, lamps = (np.ascontiguousarray(part[here]) for part in (full.shade, *full.glass, full.lamps))
    return Windows(full.bay, full.floor, shade, tuple(glass), lamps)


def facade(
    rng: Rng,
    size: tuple[float, float],
    scales: tuple[float, float],
    color: Color,
    kind: int,
    shop: bool,
    lit: bool,
) -> tuple[Image, Image | None]:
    """A facade and what its windows give off at night.

    Args:
        rng: for everything random.
        size: length and height, metres.
        scales: pixels a metre along and up that are enough.
        color: the wall under its light.
        kind: which of the `KINDS` of facades.
        shop: whether the ground floor has shop windows.
        lit: whether to make the second image.

    Returns:
        Two (h, w, 3) uint8 images.
    """
    whole = _windows(kind)
    bays, floors = min(BAYS, max(1, round(size[0] / whole.bay))), min(FLOORS, max(1, round(size[1] / whole.floor)))
    along, up = _step(scales[0] * size[0] / bays), _step(scales[1] * size[1] / floors)
    windows, width, height = _thinned(kind, along, up), CELL // along, CELL // up
    first = width * int(rng.random() * (BAYS + 1 - bays))
    cut = np.s_[: floors * height, first : first + bays * width]
    light = sum(color) / 450
    planes = [
        cv2.addWeighted(windows.shade[cut], tint / UNIT, glass[cut], light, 0)
        for tint, glass in zip(color, windows.glass, strict=True)
    ]
    image: Image = np.asarray(cv2.merge(planes))
    glow = windows.lamps[cut] if lit else None
    if shop:
        glow = None if glow is None else glow.copy()
        _shop(image, glow, rng, (bays, floors))
    return image, glow


def _step(texels: float) -> int:
    """The power of 2 by which a texture is thinned so that about so many texels a cell are left."""
    return 1 << min(4, max(0, int(CELL / texels).bit_length() - 1))


def _tinted(shade: Texture | Image, color: Color) -> Image:
    """(h, w, 3) uint8: a colour times a field >= 0; by planes, which is much faster than broadcasting over pixels."""
    return np.asarray(cv2.merge([cv2.convertScaleAbs(shade, None, c) for c in color]))


SHEEN = np.array((1.3, 1.1, 0.9, 0.7), np.float32)[:, None, None]
"""Brightness of the quarters of a window from top to bottom: the upper part mirrors the sky."""


def _glass(kind: int, curtain: float) -> tuple[Image, Image]:
    """Colour by day, in four rows a floor, and light by night, in one, of each window; curtain: share of drawn ones."""
    shape = (FLOORS, BAYS)
    draw = np.random.Generator(np.random.Philox(kind)).random((4, *shape), dtype=np.float32)
    glass = (0.5 + 0.8 * draw[0, ..., None]) * np.array((58, 70, 84), np.float32)
    glass[draw[1] < curtain] = (186, 178, 164)
    lamps = WARM[(draw[2] * len(WARM)).astype(np.intp)] * (0.35 + 0.55 * draw[0, ..., None])
    lamps[draw[3] > 0.3] = 0
    quarters = (glass[:, None] * SHEEN).reshape(4 * shape[0], shape[1], 3)
    return np.minimum(quarters, 255).astype(np.uint8), lamps.astype(np.uint8)


def _shop(image: Image, glow: Image | None, rng: Rng, cells: tuple[int, int]) -> None:
    """Shop windows with a board above, on the lowest floor; cells: bays and floors."""
    height, width, _ = image.shape
    storey = height / cells[1]
    rows = [round(height - storey * (1 - share)) for share in (0.03, 0.2, 0.24, 0.9)]
    board, inside = np.s_[rows[0] : rows[1]], np.s_[rows[2] : rows[3]]
    glass = (np.abs(np.arange(width) * np.float32(cells[0] / width) % 1 - np.float32(0.5)) < 0.44)[:, None]
    dim, red, green, blue, board_lit, inside_lit, tint, strength = (rng.random() for _ in range(8))
    paint = vary(rng, pick(rng, SHOPS))
    image[board] = times(paint, 0.7 + 0.3 * dim)
    down = (36 * (1 - _share(rows[3] - rows[2])))[:, None, None]
    np.copyto(
        image[inside], np.add(down, (30 + 60 * red, 30 + 60 * green, 30 + 60 * blue)).astype(np.uint8), where=glass
    )
    if glow is not None and board_lit < 0.6:
        glow[board] = times(paint, 0.7)
    if glow is not None and inside_lit < 0.7:
        light = WARM[int(tint * len(WARM))] * (0.3 + 0.45 * strength)
        np.copyto(glow[inside], light.astype(np.uint8), where=glass)


@cache
def _share(count: int) -> Texture:
    """(count,): from 0 to 1."""
    return np.linspace(0, 1, count, dtype=np.float32)


Span = tuple[float, float]
"""from z to z, metres"""


def paint_wall(canvas: Canvas, rng: Rng, s: float, span: Span, height: float, look: int) -> None:
    """A free-standing wall: plaster, brick or concrete blocks."""
    h, w, scale = _pixels(canvas, span, height)
    color = ((176, 172, 164), (150, 92, 72), (142, 138, 130))[look]
    shade = 1 + np.float32(0.05) * crop(grain(), rng, h, w) + np.float32(0.09) * crop(fractal(), rng, h, w)
    course = (0.0, 0.28, 0.6)[look]
    if course:
        y, x = np.arange(h)[:, None] / scale / course, np.arange(w) / scale / (2 * course)
        shade[(y % 1 < 0.12) | ((x + 0.5 * (y.astype(int) % 2)) % 1 < 0.05)] *= 0.8
    shade[: max(1, round(0.12 * scale))] *= 1.15
    _upright(canvas, shade, times(color, canvas.light.on((-copysign(1.0, s), 0.0, 0.0))), s, span, height, labels.WALL)


def paint_hedge(canvas: Canvas, rng: Rng, s: float, span: Span, height: float, color: Color) -> None:
    """A clipped hedge."""
    h, w, _ = _pixels(canvas, span, height)
    shade = 1 + np.float32(0.22) * crop(grain(), rng, h, w) + np.float32(0.12) * crop(fractal(), rng, h, w)
    shade *= np.linspace(1.2, 0.7, h, dtype=np.float32)[:, None]
    light = canvas.light.on((-copysign(0.8, s), 0.5, 0.0))
    _upright(canvas, shade, times(color, light), s, span, height, labels.VEGETATION)


def paint_fence(canvas: Canvas, rng: Rng, s: float, span: Span, height: float, look: int) -> None:
    """A see-through fence: wooden pickets, iron bars, or wire between posts."""
    h, w, scale = _pixels(canvas, span, height)
    step, bar, rails = ((0.17, 0.62, (0.2, 0.8)), (0.16, 0.24, (0.08, 0.92)), (0.09, 0.3, (0.03, 0.97)))[look]
    y, x = 1 - np.arange(h)[:, None] / h, np.arange(w) / scale
    bars = np.clip((bar * step / 2 - np.abs(x % step - step / 2)) * scale + 0.5, 0, 1) if step * scale > 2 else bar
    solid = np.maximum(bars * np.ones((h, w)), sum(np.abs(y - rail) < 0.05 for rail in rails) + (x % 2.4 < 0.11))
    woods, irons = ((128, 92, 62), (206, 202, 194), (92, 70, 52)), ((44, 50, 48), (60, 62, 66), (96, 112, 98))
    color = times(vary(rng, pick(rng, woods if look == 0 else irons)), canvas.light.on((-copysign(0.8, s), 0.2, 0.0)))
    mask = (np.minimum(solid, 1) * 255).astype(np.uint8)
    _upright(canvas, np.ones((h, w), np.float32), color, s, span, height, labels.FENCE, mask)


def _pixels(canvas: Canvas, span: Span, height: float) -> tuple[int, int, float]:
    """Height, width and pixels a metre of the texture for an upright rectangle."""
    scale = min(32.0, max(4.0, 0.6 * canvas.camera.focal / max(span[0], 5.0)))
    return max(4, round(height * scale)), max(4, round((span[1] - span[0]) * scale)), scale


def _upright(
    canvas: Canvas,
    shade: Texture,
    color: Color,
    s: float,
    span: Span,
    height: float,
    label: int,
    mask: Image | None = None,
) -> None:
    canvas.panel(_tinted(shade, color), ((s, 0.0, max(span[0], 1.5)), (s, height, span[1])), label, mask)
