"""What is far: the sky and what stands at the horizon."""

from __future__ import annotations

import cv2
import numpy as np

from segraft.data.streets import labels
from segraft.data.streets.canvas import Canvas, Color
from segraft.data.streets.street import Rng, Street, pick, vary
from segraft.data.streets.textures import crop, fractal

FAR_THINGS = ((320.0, 0.55, labels.VEGETATION), (240.0, 0.5, labels.BUILDING), (190.0, 0.6, labels.VEGETATION))
"""Depth, chance and label, from far to near."""


def paint_sky(canvas: Canvas, street: Street, rng: Rng) -> Color:
    """Fill the image with sky: a gradient, clouds, the sun's glow.

    Returns:
        The colour at the horizon, which is also that of haze.
    """
    height, width = canvas.image.shape[:2]
    grey = np.float32(street.overcast)
    zenith = np.array(vary(rng, pick(rng, ((72, 122, 196), (92, 146, 210), (60, 104, 178))), 10), np.float32)
    zenith += (np.array((176, 182, 190), np.float32) - zenith) * grey
    horizon = np.array(vary(rng, (204, 218, 230), 8), np.float32)
    horizon += (np.array((214, 216, 218), np.float32) - horizon) * grey
    rows = int(min(height, canvas.camera.v0 + 0.04 * width))
    half = max(1, rows // 2)  # clouds are soft
    up = np.linspace(1, 0, half, dtype=np.float32)[:, None] ** np.float32(0.7)
    clouds = cv2.resize(crop(fractal(), rng, 200, 300), (width // 2, half), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(clouds * rng.uniform(0.4, 0.9) + (rng.uniform(-0.9, 0.5) + grey), 0, 1)
    lump = np.clip(263 - 30 * grey - 26 * clouds, 180, 255 - 30 * grey)
    planes = [sky + (lump - sky) * cover for sky in (h + (z - h) * up for h, z in zip(horizon, zenith, strict=True))]
    small = cv2.merge([cv2.convertScaleAbs(plane) for plane in planes])
    cv2.resize(small, (width, rows), canvas.image[:rows], interpolation=cv2.INTER_LINEAR)
    ground = horizon.astype(np.uint8).tolist()
    cv2.rectangle(canvas.image, (0, rows), (width, height), ground, cv2.FILLED)  # NumPy takes fifty times as long
    if canvas.light.sun[2] > 0.3 and grey < 0.4:
        _sun_glow(canvas, rows)
    canvas.layers[:] = canvas.layer(labels.SKY)
    return (float(horizon[0]), float(horizon[1]), float(horizon[2]))


def _sun_glow(canvas: Canvas, rows: int) -> None:
    s, y, z = canvas.light.sun
    camera = canvas.camera
    u, v = np.float32(camera.u0 + camera.focal * s / z), np.float32(camera.v0 - camera.focal * y / z)
    vs, us = np.arange(rows, dtype=np.float32)[:, None], np.arange(camera.width, dtype=np.float32)
    near = np.exp(-np.sqrt((us - u) ** 2 + (vs - v) ** 2) * np.float32(9 / camera.width))
    sky = canvas.image[:rows]
    lighter = [np.minimum(plane + near * c, 255) for plane, c in zip(cv2.split(sky), (150, 140, 110), strict=True)]
    cv2.merge([plane.astype(np.uint8) for plane in lighter], sky)


def paint_horizon(canvas: Canvas, rng: Rng, haze: Color) -> None:
    """Far hills, trees and roofs in the haze."""
    camera = canvas.camera
    columns = np.linspace(-4, camera.width + 4, 90)
    for depth, chance, label in FAR_THINGS:
        profile = crop(fractal(32), rng, 1, 90)[0]
        if rng.random() > chance:
            continue
        if label == labels.BUILDING:
            profile = np.repeat(np.round(profile[::4] * 2) / 2, 4)[:90]
        tops = camera.v0 + camera.roll * (columns - camera.u0) - np.maximum(camera.focal / depth * (9 + 5 * profile), 1)
        color = vary(rng, (86, 104, 72) if label == labels.VEGETATION else (138, 132, 130), 10)
        near = float(np.exp(-depth / 420))
        red, green, blue = (c * near + h * (1 - near) for c, h in zip(color, haze, strict=True))
        canvas.layer(label, depth)
        outline = [
            *zip(columns.tolist(), tops.tolist(), strict=True),
            (camera.width + 4.0, camera.v0 + 9),
            (-4.0, camera.v0 + 9),
        ]
        canvas.poly(outline, (red, green, blue))
