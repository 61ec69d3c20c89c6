"""From a seed to a picture: the same seed, key and size give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.streets import conditions, labels
from segraft.data.streets.canvas import Canvas, Color, Image, times
from segraft.data.streets.ground import paint_ground
from segraft.data.streets.populate import populate
from segraft.data.streets.scene import in_view
from segraft.data.streets.size import check_size
from segraft.data.streets.sky import paint_horizon, paint_sky
from segraft.data.streets.street import Rng, pick, sample_street, vary
from segraft.data.streets.textures import sensor_noise

if TYPE_CHECKING:
    from segraft.params import Condition

SUNNY: tuple[Condition, ...] = ("clear", "dusk")
"""Conditions under which things cast shadows."""


@dataclass(frozen=True)
class Frame:
    """One rendered scene."""

    image: Image
    """(H, W, 3) uint8 RGB"""
    labels: Image
    """(H, W) uint8, Cityscapes' label ids"""
    depth: NDArray[np.float32]
    """(H, W) metres along the optical axis; infinite in the sky"""


def render(seed: int, key: tuple[int, ...], size: tuple[int, int], condition: Condition = "clear") -> Frame:
    """Render one scene; the condition changes the image alone.

    Args:
        seed: of the whole dataset.
        key: which scene; scenes with different keys are independent of each other.
        size: height, width in pixels.
        condition: the weather and the time of day.

    Raises:
        UserError: the size is out of range.
    """
    check_size(size)
    what, weather = (np.random.SeedSequence(seed, spawn_key=(*key, i)) for i in (0, 1))
    canvas, inverse = _paint(Rng(int(what.generate_state(1, np.uint64)[0])), size, condition)
    dice = np.random.Generator(np.random.Philox(weather))
    mask = canvas.labels()
    with np.errstate(divide="ignore"):
        depth: NDArray[np.float32] = np.float32(1) / inverse
    image = cv2.GaussianBlur(canvas.image, (3, 3), 0.55)  # the lens
    ground = (mask == labels.ROAD) | (mask == labels.SIDEWALK) | (mask == labels.TERRAIN)
    image = conditions.apply(image, condition, dice, depth, canvas.glow, ground)
    image = sensor_noise(image, dice, read=1.0, shot=float(dice.uniform(0.8, 2.2)))
    return Frame(image, mask, depth)


def _paint(rng: Rng, size: tuple[int, int], condition: Condition) -> tuple[Canvas, NDArray[np.float32]]:
    street = sample_street(rng, *size, sunny=condition in SUNNY)
    scene = populate(street, rng)
    canvas = Canvas(street.camera, street.light, lit=condition != "clear")
    haze = paint_sky(canvas, street, rng)
    paint_horizon(canvas, rng, haze)
    paint_ground(canvas, street, rng, [t.foot for t in scene.things if t.casts], scene.skyline)
    for thing in in_view(scene):
        shadow = scene.shadow(thing.foot.s, thing.foot.z) if thing.casts else 0.0
        thing.draw(canvas, rng, shadow)
    if rng.random() < 0.5:
        _hood(canvas, rng)
    inverse = canvas.inverse_depth()
    _through_air_and_lens(canvas, inverse, haze, rng.uniform(350, 1400))
    canvas.image = cv2.LUT(canvas.image, _response(rng))
    return canvas, inverse


def _through_air_and_lens(canvas: Canvas, inverse: NDArray[np.float32], haze: Color, reach: float) -> None:
    """Blend what is far into the colour of the horizon, and darken the corners.

    Args:
        canvas: whose image is changed.
        inverse: (H, W) inverse depth, 1/m.
        haze: RGB.
        reach: the depth at which 63 % is haze, metres.
    """
    bright = _falloff(*inverse.shape)
    near = np.maximum(inverse, np.float32(1e-6))
    np.exp(np.divide(np.float32(-1 / reach), near, out=near), out=near)
    near[inverse == 0] = 1  # the sky has its own
    near *= bright
    share = cv2.convertScaleAbs(near, None, 255)
    veil = cv2.merge([cv2.convertScaleAbs(bright - near, None, c) for c in haze])
    canvas.image = cv2.add(cv2.multiply(canvas.image, cv2.merge([share] * 3), scale=1 / 255), veil)


@cache
def _falloff(height: int, width: int) -> NDArray[np.float32]:
    """(H, W): the lens' brightness, 1 in the middle."""
    rows, columns = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-1, 1, width)
    return np.asarray(1 - 0.16 * (rows**2 + columns**2), np.float32)


def _response(rng: Rng) -> Image:
    """(1, 256, 3) look-up table: exposure, white balance and contrast of the camera."""
    gain = np.exp(rng.gauss(0, 0.1)) * np.exp([rng.gauss(0, 0.03) for _ in range(3)])
    gamma = np.exp(rng.gauss(0, 0.1))
    levels = np.linspace(0, 1, 256)[None, :, None] ** gamma
    curve: Image = np.minimum(255 * gain * levels, 255).astype(np.uint8)
    return curve


def _hood(canvas: Canvas, rng: Rng) -> None:
    """The own car's bonnet at the lower border: void."""
    height, width = canvas.image.shape[:2]
    paint = vary(rng, pick(rng, ((34, 36, 40), (60, 62, 66), (140, 142, 146), (26, 30, 44))))
    rise, middle = height * rng.uniform(0.03, 0.09), width * rng.uniform(0.47, 0.53)
    columns = np.linspace(-0.02 * width, 1.02 * width, 40)
    edge = height - rise * np.sqrt(np.clip(1 - ((columns - middle) / (0.62 * width)) ** 2, 0, 1))
    canvas.layer(labels.EGO, depth=1.2)
    for drop, shade in ((0.0, 1.5), (0.1, 1.0), (0.45, 0.8)):
        outline = [
            *zip(columns.tolist(), (edge + drop * rise).tolist(), strict=True),
            (width, height + 2),
            (0, height + 2),
        ]
        canvas.poly(outline, times(paint, shade), solid=drop == 0)
