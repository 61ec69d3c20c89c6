"""Weather and time of day, for any RGB image: depth, lamps and ground are used where they are known, else guessed.

Fog follows Koschmieder's law, as in Foggy Cityscapes (Sakaridis et al. 2018); night is a relighting by headlights and
lamps; wet ground mirrors what stands on it, column by column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.streets.canvas import SUBPIXEL, Image
from segraft.data.streets.textures import crop, fractal, sensor_noise

if TYPE_CHECKING:
    from segraft.params import Condition

Rng = np.random.Generator
Field = NDArray[np.float32]
"""(H, W) float32"""
Picture = NDArray[np.float32]
"""(3, H, W) float32, 0…255: planes, because a field times a picture is three times as fast so"""

HORIZON = 0.42
"""Share of the height at which the horizon is taken to be when the depth is not known."""
EYE = 1.5
"""Metres above the ground at which the camera is taken to be."""


@dataclass(frozen=True)
class View:
    """An image with what is known or guessed about the scene."""

    image: Picture
    inverse: Field
    """1/m, 0 for the sky"""
    ground: Field
    """0…1: flat ground"""
    lamps: Image
    """(H, W, 3) the light that the scene gives off"""
    known: bool
    """the depth was given, so the sky is known too"""

    @cached_property
    def small_lamps(self) -> NDArray[np.float32]:
        """(H/4, W/4, 3) float32: the lamps, for blurs too wide to need every pixel."""
        height, width = (max(1, side // 4) for side in self.ground.shape)
        small = cv2.resize(self.lamps, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    @cached_property
    def sky(self) -> Field:
        """0…1: guessed from brightness and place when the depth is not known."""
        if self.known:
            return (self.inverse <= 0).astype(np.float32)
        bright = cv2.blur(self.image.min(0), (5, 5))
        height, _ = bright.shape
        above = np.clip((HORIZON + 0.02 - _ramp(height)) * 12, 0, 1)
        return np.asarray(np.clip((bright - 120) / 50, 0, 1) * above, np.float32)


def apply(
    image: Image,
    condition: Condition,
    rng: Rng,
    depth: Field | None = None,
    lamps: Image | None = None,
    ground: NDArray[np.bool_] | None = None,
) -> Image:
    """The image of a clear day under another condition; nothing moves, so masks stay valid.

    Args:
        image: (H, W, 3) uint8 RGB.
        condition: what to simulate; "clear" leaves the image as it is.
        rng: for drops, flakes, invented lamps and strengths.
        depth: (H, W) metres, infinite in the sky; None: guessed from the image row as that of a level road.
        lamps: (H, W, 3) uint8, the light that each pixel gives off; None: street lamps are invented where it is dark.
        ground: (H, W), where flat ground is that can be wet or white; None: guessed from the image row.

    Returns:
        (H, W, 3) uint8 RGB, a new array.
    """
    if condition == "clear":
        return image.copy()
    height, width, _ = image.shape
    level = _level_road(height, width)
    inverse = np.maximum(level, np.float32(1 / 300)) if depth is None else _inverse(depth)
    flat = np.clip(level * 60, 0, np.float32(0.8)) if ground is None else ground.astype(np.float32)
    if lamps is None:
        dark = condition in ("dusk", "night", "night-rain")
        lamps = invent_lamps(rng, height, width) if dark else np.zeros_like(image)
    return EFFECTS[condition](View(_planes(image), inverse, flat, lamps, depth is not None), rng)


def _inverse(depth: Field) -> Field:
    with np.errstate(divide="ignore"):
        return np.asarray(1 / depth, np.float32)


def _level_road(height: int, width: int) -> Field:
    """(H, W) inverse depth of a level road; 0 above the horizon."""
    rows = np.maximum(np.arange(height, dtype=np.float32) - HORIZON * height, 0) / (0.9 * width * EYE)
    return np.repeat(rows[:, None].astype(np.float32), width, 1)


def invent_lamps(rng: Rng, height: int, width: int) -> Image:
    """(H, W, 3) uint8: two rows of street lamps in perspective, and far lights at the horizon."""
    lamps = np.zeros((height, width, 3), np.uint8)
    middle, horizon, warm = width * rng.uniform(0.44, 0.56), HORIZON * height, (255, int(rng.uniform(180, 226)), 130)
    step, first, high = rng.uniform(18, 30), rng.uniform(9, 16), rng.uniform(4.5, 6.5)
    for side in (-1, 1):
        for k in range(6):
            scale = 0.9 * width / (first + k * step + side * 4)
            at = (round(middle + side * 6 * scale), round(horizon - high * scale))
            cv2.ellipse(lamps, at, (max(1, round(0.3 * scale)), max(1, round(0.1 * scale))), 0, 0, 360, warm, -1)
    for _ in range(int(rng.integers(6, 16))):
        at = (round(rng.normal(middle, 0.16 * width)), round(horizon + abs(rng.normal(0, 0.025)) * height))
        color = ((255, 240, 210), (255, 50, 30), (255, 190, 110))[int(rng.random() * 3)]
        cv2.circle(lamps, at, max(1, round(width / 400)), color, -1)
    return lamps


def _fog(view: View, rng: Rng) -> Image:
    reach = float(np.exp(rng.uniform(np.log(28), np.log(90))))
    light = _rgb(206, 209, 212) * np.float32(rng.uniform(0.86, 1.05))
    return _bytes(_veil(_desaturate(view.image, 0.35), view.inverse, reach, light) + _glare(view, 0.5))


def _snow(view: View, rng: Rng) -> Image:
    image = _desaturate(view.image, 0.45) * _rgb(0.94, 0.97, 1.03)
    height, width = view.ground.shape
    patches = _stretched(crop(fractal(), rng, 256, 256), height, width)
    cover = view.ground * np.clip(0.62 + 0.3 * patches + rng.uniform(-0.2, 0.25), 0.08, 0.96)
    if view.known:
        cover = np.maximum(cover, _caps(view))
    white = _rgb(226, 232, 240) * np.clip(0.55 + image.mean(0) / 260, 0.6, 1.06)
    image += cover * (white - image)
    image = _veil(image, view.inverse, rng.uniform(80, 200), _rgb(206, 211, 218)) + _glare(view, 0.35)
    return _bytes(_add(image, _flakes(rng, height, width)))


def _caps(view: View) -> Field:
    """Snow on what ends against something much farther: roofs, walls, cars."""
    edge, step = np.zeros_like(view.ground), max(1, len(view.ground) // 128)
    edge[step:] = (view.inverse[step:] > 1.25 * view.inverse[:-step] + 0.002) & (view.ground[step:] == 0)
    return np.asarray(cv2.blur(edge, (2 * step + 1, step + 1)) * 0.85, np.float32)


def _rain(view: View, rng: Rng) -> Image:
    grey = _desaturate(view.image, 0.45) * _rgb(0.8, 0.84, 0.89)
    image = _veil(grey, view.inverse, rng.uniform(130, 320), _rgb(164, 170, 177))
    image = _wet(image, view, rng, 0.9) + _glare(view, 0.35)
    return _bytes(_add(image, _streaks(rng, view, 0.8)))


def _dusk(view: View, rng: Rng) -> Image:
    rows = np.clip(_ramp(len(view.ground)) / 0.46, 0, 1) ** 1.6
    low = _rgb(250, 158, 88) * np.float32(rng.uniform(0.8, 1.0))
    high = _rgb(92, 98, 150) * np.float32(rng.uniform(0.7, 1.3))
    land = _curve(view.image, 1.25) * _rgb(0.84, 0.68, 0.68)
    land = _veil(land, np.maximum(view.inverse, np.float32(1e-4)), 500, low * np.float32(0.55))
    clouds = (high + (low - high) * rows) * (view.image.mean(0) / np.float32(235))
    image = land + view.sky * (clouds - land)
    image += _planes(view.lamps) * np.float32(0.55) + _glare(view, 0.6)
    return sensor_noise(_bytes(image), rng, 1.5, 2.5)


def _night(view: View, rng: Rng) -> Image:
    return sensor_noise(_bytes(_dark(view, rng, 1.0)), rng, 2.5, 5.0)


def _night_rain(view: View, rng: Rng) -> Image:
    image = _wet(_dark(view, rng, 1.4), view, rng, 1.25)
    image = _add(image, _streaks(rng, view, 0.45))
    return sensor_noise(_bytes(image), rng, 2.5, 5.0)


EFFECTS: dict[Condition, Callable[[View, Rng], Image]] = {
    "dusk": _dusk,
    "night": _night,
    "rain": _rain,
    "fog": _fog,
    "snow": _snow,
    "night-rain": _night_rain,
}


def _dark(view: View, rng: Rng, glare: float) -> Picture:
    """The scene lit by a dark sky, its own lamps and the headlights of the own car."""
    height, width = view.ground.shape
    pools = np.float32(0.62) * (1 - np.exp(_spread(view, width / 9) * np.float32(-0.09)))
    light = _stretched(pools, height, width) + _rgb(0.16, 0.175, 0.23) * np.float32(rng.uniform(0.7, 1.4))
    light += _headlights(view, rng) * _rgb(1.0, 0.97, 0.88)
    town = _rgb(40, 35, 40) * np.float32(rng.uniform(0.5, 1.3))
    sky = town * (np.float32(0.25) + np.clip(_ramp(height) / np.float32(HORIZON), 0, 1) ** 2)
    image = _curve(view.image, 1.3) * light
    image += view.sky * (sky - image)
    image += _planes(view.lamps) * np.float32(0.9)
    return image + _glare(view, glare)


def _headlights(view: View, rng: Rng) -> Field:
    """(H, W): dipped beams, cut off above the horizon, that fade with the depth."""
    height, width = view.ground.shape
    columns = (np.linspace(0, 1, width, dtype=np.float32) - np.float32(rng.uniform(0.47, 0.53))) / np.float32(0.3)
    beam = np.exp(-(columns**2)) * np.clip((_ramp(height) - np.float32(HORIZON - 0.03)) * 14, np.float32(0.1), 1)
    depth = np.float32(0.055) / np.maximum(view.inverse, np.float32(1e-4))
    lit: Field = beam * np.float32(rng.uniform(0.6, 1.1)) / (1 + depth * np.sqrt(depth))
    return lit


def _wet(image: Picture, view: View, rng: Rng, strength: float) -> Picture:
    """Darken the ground and mirror in it, column by column, what stands above it."""
    height, width = view.ground.shape
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    foot = np.maximum.accumulate(np.where(view.ground < 0.05, rows, np.float32(-1)), axis=0)  # where it ends, above
    ripple = crop(fractal(), rng, height, 1) * np.float32(1.2)
    source = np.clip(2 * foot - rows + ripple, 0, np.float32(height - 1))
    where = np.repeat(columns[None], height, 0), source
    mirror = cv2.blur(cv2.remap(_bytes(image), *where, cv2.INTER_NEAREST), (3, max(3, height // 12 | 1)))
    puddles = _stretched(crop(fractal(32), rng, 128, 64), height, width)
    share = view.ground * (foot >= 0) * np.clip(0.42 + 0.2 * puddles, 0.12, 0.8) * np.float32(strength)
    damp = image * (1 - np.float32(0.42) * view.ground)
    wet: Picture = damp + np.minimum(cv2.blur(share, (3, 3)), 1) * (_planes(mirror) - damp * np.float32(0.6))
    return wet


def _veil(image: Picture, inverse: Field, reach: float, light: Picture) -> Picture:
    """Koschmieder: what is seen through air that scatters `light`; at `reach` metres 37 % is left."""
    share = np.exp(np.float32(-1 / reach) / np.maximum(inverse, np.float32(1e-6)))
    veiled: Picture = light + share * (image - light)
    return veiled


def _desaturate(image: Picture, share: float) -> Picture:
    grey = image[0] * np.float32(0.299) + image[1] * np.float32(0.587) + image[2] * np.float32(0.114)
    less: Picture = image + np.float32(share) * (grey - image)
    return less


def _curve(image: Picture, gamma: float) -> Picture:
    """Less contrast in the light and more in the dark: sunlit and shadowed places come closer."""
    table = (255 * (np.arange(256) / 255) ** gamma).astype(np.float32)
    rows = image.astype(np.uint8).reshape(-1, image.shape[-1])
    return np.asarray(cv2.LUT(rows, table)).reshape(image.shape)


def _spread(view: View, sigma: float) -> Picture:
    """Light that reaches far, at a quarter of the resolution."""
    return _planes(cv2.GaussianBlur(view.small_lamps, (0, 0), max(0.5, sigma / 4)))


def _glare(view: View, strength: float) -> Picture:
    """What lens and air spread around each lamp; large bright areas saturate."""
    height, width = view.ground.shape
    halo = _spread(view, width / 28) * np.float32(3) + _spread(view, width / 120) * np.float32(1.6)
    return _stretched(np.float32(80 * strength) * (1 - np.exp(halo * np.float32(-1 / 80))), height, width)


def _streaks(rng: Rng, view: View, strength: float) -> Field:
    """Falling drops, drawn as lines: near ones long and faint, far ones short."""
    height, width = view.ground.shape
    layer = np.zeros((height, width), np.uint8)
    count, slant = int(rng.uniform(220, 520)), rng.normal(0, 0.12)
    starts, sizes = rng.random((count, 2)) * (width, height), rng.random((count, 2))
    lengths = height * (0.02 + 0.09 * sizes[:, 0] ** 2)
    ends = starts + np.stack([lengths * slant, lengths], -1)
    fixed = np.rint(np.stack([starts, ends], 1) * (1 << SUBPIXEL)).astype(int).tolist()
    for (start, end), value in zip(fixed, (50 + 100 * sizes[:, 1]).astype(int).tolist(), strict=True):
        cv2.line(layer, start, end, value, 1, cv2.LINE_AA, SUBPIXEL)
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.6) * np.float32(strength), np.float32)


FLAKES = ((700, 0.0018, 0.6, 200), (60, 0.0045, 1.6, 190), (10, 0.011, 3.5, 160))
"""Number, radius (share of the width), blur (pixels at a width of 512) and brightness: far, nearer, close."""


def _flakes(rng: Rng, height: int, width: int) -> Field:
    """Falling snow: many small flakes, a few large and blurred ones."""
    total = np.zeros((height, width), np.uint8)
    for count, size, blur, value in FLAKES:
        layer = np.zeros_like(total)
        radius, number = max(8, round(16 * size * width)), round(count * rng.uniform(0.6, 1.4))
        for at in (rng.random((number, 2)) * (16 * width, 16 * height)).astype(int).tolist():
            cv2.circle(layer, at, radius, value, -1, cv2.LINE_AA, SUBPIXEL)
        total = cv2.max(total, cv2.GaussianBlur(layer, (0, 0), blur * width / 512))
    return total.astype(np.float32)


def _add(image: Picture, light: Field) -> Picture:
    """Bright specks in front of the scene."""
    added: Picture = image + light * np.float32(0.8 / 255) * (np.float32(235) - image)
    return added


def _ramp(height: int) -> Field:
    """(H, 1): 0 at the top, 1 at the bottom."""
    return np.linspace(0, 1, height, dtype=np.float32)[:, None]


def _rgb(red: float, green: float, blue: float) -> Picture:
    return np.array((red, green, blue), np.float32)[:, None, None]


def _planes(image: NDArray[Any]) -> Picture:
    """(H, W, 3) → (3, H, W) float32."""
    return np.array(cv2.split(image), np.float32)


def _stretched(field: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A field, or each plane of a picture, at another size."""
    if field.ndim == 2:
        return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.stack([_stretched(plane, height, width) for plane in field])


def _bytes(image: Picture) -> Image:
    """(3, H, W) float32 → (H, W, 3) uint8."""
    planes = np.clip(image, 0, 255).astype(np.uint8)
    return np.asarray(cv2.merge([planes[0], planes[1], planes[2]]))
