"""What a street is like across and along, before anything stands on it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import Camera, Color, Light

Rng = random.Random  # a NumPy generator takes fifteen times as long to draw one number
T = TypeVar("T")
Style = Literal["town", "suburb", "park"]
FAR = 120.0
"""Nothing stands beyond this depth, metres."""


def pick(rng: Rng, items: tuple[T, ...]) -> T:
    """One of the items; half the cost of Random.choice."""
    return items[int(rng.random() * len(items))]


def vary(rng: Rng, color: Color, amount: float = 12) -> Color:
    """A colour near this one: lighter or darker, and a little off in hue."""
    spread = amount / 1.5
    shift = amount * (2 * rng.random() - 1) - spread / 2
    red, green, blue = [min(255.0, max(0.0, c + shift + spread * rng.random())) for c in color]
    return red, green, blue


@dataclass(frozen=True)
class Material:
    """A strip of ground."""

    label: int
    color: Color
    grit: float
    """strength of the fine texture"""
    stain: float
    """strength of the coarse one"""
    slab: float = 0.0
    """side of a paving slab, metres (0: none)"""


@dataclass(frozen=True)
class Side:
    """One side of the street, from the road outward."""

    sign: int
    """-1 left, 1 right"""
    edge: float
    """half the road: where the kerb is, metres from the middle line"""
    parking: bool
    """the road's outer 2.2 m are for parked cars"""
    strips: tuple[tuple[float, Material], ...]
    """outer border (metres from the middle line) and material of each strip behind the road"""
    wall: float
    """where gardens and facades begin"""
    style: Style

    @property
    def walk(self) -> float:
        """Middle of the pavement, metres from the middle line."""
        inner = self.edge
        for outer, material in self.strips:
            if material.label == labels.SIDEWALK and outer - inner > 1:
                return (inner + outer) / 2
            inner = outer
        return self.edge + 1.0


@dataclass(frozen=True)
class Street:
    """A stretch of street and the light on it."""

    camera: Camera
    light: Light
    overcast: float
    asphalt: Material
    left: Side
    right: Side
    lanes: tuple[float, ...]
    """middle of each lane; negative: oncoming"""
    lane_width: float
    crossing: tuple[float, float] | None
    """the z range of a side street"""
    zebra: float | None
    rails: float | None
    """s of the middle of a tram track"""
    yellow: bool
    """the middle line is yellow"""

    @property
    def sides(self) -> tuple[Side, Side]:
        """Left, right."""
        return self.left, self.right

    def free(self, z: float, length: float = 0.0, margin: float = 2.0) -> bool:
        """Whether [z, z + length] is clear of the side street."""
        if self.crossing is None:
            return True
        return z + length < self.crossing[0] - margin or z > self.crossing[1] + margin


def sample_street(rng: Rng, height: int, width: int, sunny: bool) -> Street:
    """Draw a camera, a light and a street; what is drawn is the same, `sunny` or under clouds."""
    lane_width = rng.uniform(2.9, 3.6)
    ahead, oncoming = pick(rng, ((1, 1), (1, 1), (2, 1), (2, 2), (2, 2), (3, 2)))
    parking = (rng.random() < 0.45, rng.random() < 0.5)
    edges = [count * lane_width + 2.2 * park for count, park in zip((oncoming, ahead), parking, strict=True)]
    lanes = [(i + 0.5) * lane_width for i in range(ahead)] + [-(i + 0.5) * lane_width for i in range(oncoming)]
    left, right = (_side(rng, sign, edge, park) for sign, edge, park in zip((-1, 1), edges, parking, strict=True))
    camera = _camera(rng, height, width, lanes[int(rng.random() * ahead)])
    clouds = rng.random() ** 2 if rng.random() < 0.5 else 0.0
    overcast = clouds if sunny else 0.9
    start = rng.uniform(14, 60)
    crossing = (start, start + rng.uniform(7, 14)) if rng.random() < 0.5 else None
    zebra = (crossing[0] - 5.5 if crossing else rng.uniform(9, 45)) if rng.random() < 0.45 else None
    tram = rng.random() < 0.22 and max(oncoming, ahead) > 1
    grey = rng.uniform(84, 132)
    return Street(
        camera=camera,
        light=_light(rng, overcast),
        overcast=overcast,
        asphalt=Material(
            labels.ROAD, vary(rng, (grey, grey, grey + 3), 4), rng.uniform(0.03, 0.08), rng.uniform(0.03, 0.09)
        ),
        left=left,
        right=right,
        lanes=tuple(lanes),
        lane_width=lane_width,
        crossing=crossing,
        zebra=zebra,
        rails=(-0.5 if oncoming >= ahead else 0.5) * lane_width if tram else None,
        yellow=rng.random() < 0.25,
    )


def _camera(rng: Rng, height: int, width: int, lane: float) -> Camera:
    focal = width * rng.uniform(0.72, 1.05)
    return Camera(
        height=height,
        width=width,
        focal=focal,
        u0=width * rng.uniform(0.46, 0.54),
        v0=height * rng.uniform(0.36, 0.5),
        eye=rng.uniform(1.2, 1.9),
        roll=rng.gauss(0, 0.012),
        lateral=lane + rng.gauss(0, 0.3),
        yaw=rng.gauss(0, 0.045),
        bend=rng.gauss(0, 0.0022),
    )


def _light(rng: Rng, overcast: float) -> Light:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(24, 58))
    sun = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    warmth = rng.uniform(0, 0.12)
    direct = np.array([1 + warmth, 1.0, 1 - 1.4 * warmth]) * rng.uniform(0.5, 0.68) * (1 - overcast)
    ambient = np.array([0.93, 1.0, 1.1]) * (rng.uniform(0.5, 0.6) + 0.32 * overcast)
    return Light(*((float(x), float(y), float(z)) for x, y, z in (sun, direct, ambient)))


def _side(rng: Rng, sign: int, edge: float, parking: bool) -> Side:
    paving = vary(rng, pick(rng, ((158, 152, 146), (140, 138, 136), (172, 158, 148), (150, 128, 118))), 10)
    walk = Material(labels.SIDEWALK, paving, 0.05, 0.06, pick(rng, (0.4, 0.6, 1.2)))
    kerb = Material(labels.SIDEWALK, vary(rng, (182, 180, 176), 8), 0.03, 0.03)
    grass = Material(
        labels.TERRAIN, vary(rng, pick(rng, ((96, 124, 58), (112, 128, 66), (128, 122, 74))), 10), 0.14, 0.16
    )
    soil = Material(labels.TERRAIN, vary(rng, (146, 126, 96), 10), 0.1, 0.14)
    styles: tuple[Style, ...] = ("town", "town", "town", "suburb", "suburb", "park")
    style = pick(rng, styles)
    yard = pick(rng, (grass, soil, grass)) if style != "town" or rng.random() < 0.35 else walk
    widths = [(0.16, kerb)]
    if rng.random() < (0.12 if style == "town" else 0.4):
        widths.append((rng.uniform(1.0, 2.5), pick(rng, (grass, grass, soil))))
    if rng.random() < (1.0 if style == "town" else 0.85):
        widths.append((rng.uniform(1.8, 4.8), walk))
    if rng.random() < (0.2 if style == "town" else 0.5):
        widths.append((rng.uniform(1.0, 3.5), pick(rng, (grass, grass, soil))))
    borders = edge + np.cumsum([w for w, _ in widths])
    strips = [(float(border), material) for border, (_, material) in zip(borders, widths, strict=True)]
    return Side(sign, edge, parking, (*strips, (1e9, yard)), float(borders[-1]), style)
