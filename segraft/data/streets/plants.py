"""Trees and shrubs: a few dozen clumps of leaves, made once a process, then scaled, flipped and lit."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.streets import labels
from segraft.data.streets.canvas import Color, Point, times
from segraft.data.streets.pen import Pen
from segraft.data.streets.street import Rng, vary
from segraft.data.streets.textures import crop, fractal, grain

LEAVES: tuple[Color, ...] = ((72, 104, 44), (88, 116, 52), (62, 92, 50), (104, 122, 58), (80, 100, 60), (132, 118, 52))
SIDE, LEVELS = 112, 5
Clump = NDArray[np.float32]
"""(side, side, 2): alpha, 0…1, and brightness of leaves"""
BROAD, CONIFERS = 24, 8


@cache
def _clumps() -> list[list[Clump]]:
    """Each clump and its mirror image, at all their sizes, the largest first; the conifers come last."""
    rng = np.random.Generator(np.random.Philox(5))
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    alphas, shades = [], []
    for k in range(BROAD + CONIFERS):
        clump, leaf = 0.5 * crop(fractal(32), rng, 4 * SIDE, 4 * SIDE)[::4, ::4], crop(grain(), rng, SIDE, SIDE)
        if k < BROAD:
            field, shade = _lobes(rng, y, x)
        else:
            branches = 0.08 * np.abs((y * 5 + 0.6 * np.abs(x)) % 1 - 0.5)
            field, shade = 0.5 * (y + 1) * 0.85 - np.abs(x) + branches, 0.75 - 0.5 * np.abs(x) + 2 * branches
        alphas.append(np.clip((field + 0.1 * clump + 0.03 * leaf) * 14 + 0.5, 0, 1))
        shades.append(np.clip(shade + 0.14 * clump + 0.13 * leaf, 0.25, 1.6))
    clumps = [np.dstack(pair).astype(np.float32) for pair in zip(alphas, shades, strict=True)]
    return [_halved(clump[:, ::turn]) for clump in clumps for turn in (1, -1)]


def _halved(clump: Clump) -> list[Clump]:
    """A clump at SIDE, SIDE / 2, …: enlarging a small one is a fifth of the work of shrinking the large one."""
    sides = [SIDE >> k for k in range(LEVELS)]
    return [cv2.resize(clump, (side, side), interpolation=cv2.INTER_AREA) for side in sides]


@cache
def _across(width: int) -> NDArray[np.float32]:
    """(width,): from -1 to 1."""
    return np.linspace(-1, 1, width, dtype=np.float32)


def _lobes(
    rng: np.random.Generator, y: NDArray[np.float32], x: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance to the border of a heap of balls, and each ball lit from above."""
    field, shade = np.full_like(x, -1), np.zeros_like(x)
    for _ in range(9):
        a, b, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.48)
        ball = r - np.hypot(y - a, x - b)
        lit = 0.82 - 0.42 * (y - a) / r - 0.2 * a
        shade = np.where(ball > field, lit, shade)
        field = np.maximum(field, ball)
    return field, cv2.GaussianBlur(shade, (0, 0), 2.0)


def tree(pen: Pen, rng: Rng, height: float, leaves: Color) -> None:
    """A broad-leaved tree or, one time in six, a conifer."""
    conifer = rng.random() < 0.17
    trunk = height * (0.14 if conifer else rng.uniform(0.24, 0.4))
    width = height * (rng.uniform(0.4, 0.55) if conifer else rng.uniform(0.6, 0.92))
    bark, thick = vary(rng, (92, 76, 62)), 0.035 * height * pen.scale
    pen.layer(labels.VEGETATION)
    foot, fork = pen.point((0, 0, 0)), pen.point((rng.uniform(-0.15, 0.15), trunk * 1.4, 0))
    pen.canvas.limb(foot, fork, thick, pen.lit(bark))
    if thick > 3:
        aside = 0.3 * thick
        pen.canvas.limb((foot[0] + aside, foot[1]), (fork[0] + aside, fork[1]), aside, pen.lit(bark, 0.7), solid=False)
    middle = pen.point((0, (trunk * 0.8 + height) / 2, 0))
    _crown(pen, rng, middle, (width, height - trunk * 0.8), leaves, conifer)


def bush(pen: Pen, rng: Rng, size: float, leaves: Color) -> None:
    """A shrub."""
    pen.layer(labels.VEGETATION)
    _crown(pen, rng, pen.point((0, size * 0.45, 0)), (size * 1.5, size), leaves, False)


def _crown(pen: Pen, rng: Rng, middle: Point, size: tuple[float, float], leaves: Color, conifer: bool) -> None:
    width, height = (max(3, round(side * pen.scale)) for side in size)
    first, count = (2 * BROAD, 2 * CONIFERS) if conifer else (0, 2 * BROAD)
    sizes = _clumps()[first + int(rng.random() * count)]
    clump = sizes[min(LEVELS - 1, max(0, (SIDE // width).bit_length() - 1))]
    alpha, shade = cv2.split(cv2.resize(clump, (width, height), interpolation=cv2.INTER_LINEAR))
    if width > 48:
        shade += np.float32(0.09) * crop(grain(), rng, height, width)
    sun = pen.canvas.light.sun[0] * (1 - pen.shadow) * 0.28
    shade += np.float32(sun) * _across(width)
    light = pen.canvas.light.on((0.0, 0.8, -0.2), pen.shadow)
    patch = cv2.merge([cv2.convertScaleAbs(shade, None, c) for c in times(times(leaves, light), 1.15)])
    pen.canvas.stamp(patch, alpha, middle[0] - width / 2, middle[1] - height / 2)
