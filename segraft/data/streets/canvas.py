"""The camera, the sun, and a canvas on which things are painted from far to near.

World coordinates are metres along the road: s to the right of its middle line, y up from the ground, z ahead of the
camera. The camera bends them (`Camera.sway`), so that a straight street in (s, z) becomes a curved one.

A scene is a thousand small polygons. Their few points go through plain Python floats: a numpy call costs more than
all the arithmetic on four points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, cos, hypot, pi, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
Point = tuple[float, float]
"""pixels (u, v)"""
Array = NDArray[np.float64]
Fixed = NDArray[np.int32]
Image = NDArray[np.uint8]
Plane = tuple[float, float, float]
"""inverse depth = a·u + b·v + c"""

NEAR = 0.6
SUBPIXEL = 4  # fractional bits of the coordinates given to OpenCV
CIRCLE: tuple[Point, ...] = tuple((cos(i * pi / 7), sin(i * pi / 7)) for i in range(14))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a level optical axis; the horizon is moved by a lens shift, so that walls stay upright."""

    height: int
    width: int
    focal: float
    """pixels"""
    u0: float
    v0: float
    """row of the horizon at column u0"""
    eye: float
    """metres above the ground"""
    roll: float
    """slope of the horizon"""
    lateral: float
    """where on the road the camera is, s in metres"""
    yaw: float
    """tangent of the angle between camera and road"""
    bend: float
    """curvature of the road, 1/m"""

    def point(self, s: float, y: float, z: float) -> Point:
        """The pixel of one place."""
        z = z if z > NEAR else NEAR
        u = self.focal * (s + z * (self.yaw + 0.5 * self.bend * z) - self.lateral) / z
        return self.u0 + u, self.v0 + self.focal * (self.eye - y) / z + self.roll * u

    def fixed(self, points: Array) -> Fixed:
        """(…, 3) places (s, y, z) → (…, 2) int32 pixels in OpenCV's fixed-point form."""
        z = np.maximum(points[..., 2], NEAR)
        scale = self.focal / z
        u = scale * (points[..., 0] + self.sway(z))
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.u0 + u
        pixels[..., 1] = self.v0 + scale * (self.eye - points[..., 1]) + self.roll * u
        fixed: Fixed = np.rint(pixels * (1 << SUBPIXEL)).astype(np.int32)
        return fixed

    def sway(self, z: NDArray[Any]) -> NDArray[Any]:
        """What is to be added to s to get the distance from the optical axis at depth z."""
        return z * (self.yaw + 0.5 * self.bend * z) - self.lateral


@dataclass(frozen=True)
class Light:
    """Sun and sky."""

    sun: Color
    """unit vector (s, y, z) towards the sun"""
    direct: Color
    """RGB strength of the sun, 0 when it is overcast"""
    ambient: Color
    """RGB strength of the sky"""

    def on(self, normal: Color, shadow: float = 0.0) -> Color:
        """RGB factor of the light that falls on a face; `shadow` is the share of the sun that is hidden."""
        (s, y, z), (sun_s, sun_y, sun_z) = normal, self.sun
        facing = max(0.0, s * sun_s + y * sun_y + z * sun_z) * (1 - shadow)
        (r, g, b), (red, green, blue) = self.ambient, self.direct
        return r + red * facing, g + green * facing, b + blue * facing


def times(color: Color, factor: Color | float) -> Color:
    """A colour under a light, or brighter or darker."""
    if isinstance(factor, float):
        return color[0] * factor, color[1] * factor, color[2] * factor
    return color[0] * factor[0], color[1] * factor[1], color[2] * factor[2]


class Canvas:
    """An image, the layer that each pixel shows, and the light that the scene gives off.

    A layer is a label and a plane; on a plane the inverse depth is linear in the pixel's coordinates, so that labels
    and exact depth both follow from the layer map.
    """

    def __init__(self, camera: Camera, light: Light, lit: bool) -> None:
        shape = (camera.height, camera.width)
        self.camera, self.light = camera, light
        self.image: Image = np.zeros((*shape, 3), np.uint8)
        self.layers: NDArray[np.uint16] = np.zeros(shape, np.uint16)
        self.glow: Image | None = np.zeros((*shape, 3), np.uint8) if lit else None
        self._labels = [0]
        self._planes: list[Plane] = [(0.0, 0.0, 0.0)]

    def layer(self, label: int, depth: float = 0.0, plane: Plane | None = None) -> int:
        """Begin a layer: what is painted next has this label and lies at `depth` metres (0: infinity) or on `plane`."""
        self._labels.append(label)
        self._planes.append(plane or (0.0, 0.0, 1 / depth if depth else 0.0))
        return len(self._labels) - 1

    def poly(self, points: Iterable[Point], color: Color, glow: Color | None = None, solid: bool = True) -> None:
        """Fill a polygon; one that is not `solid` is decoration inside another."""
        self.fill(_corners([int(16 * x) for point in points for x in point]), color, glow, solid)

    def fill(self, corners: Fixed, color: Color, glow: Color | None = None, solid: bool = True) -> None:
        """Fill a polygon of (n, 2) fixed-point corners."""
        cv2.fillPoly(self.image, [corners], color, cv2.LINE_AA, SUBPIXEL)
        if solid:
            cv2.fillPoly(self.layers, [corners], len(self._labels) - 1, cv2.LINE_8, SUBPIXEL)
        if self.glow is not None and (solid or glow):
            cv2.fillPoly(self.glow, [corners], glow or (0, 0, 0), cv2.LINE_8, SUBPIXEL)

    def limb(
        self, start: Point, end: Point, width: float, color: Color, glow: Color | None = None, solid: bool = True
    ) -> None:
        """A bar between two pixels, `width` pixels thick, at least a thin line."""
        (u0, v0), (u1, v1) = start, end
        scale = (width if width > 0.9 else 0.9) / 2 / (hypot(u1 - u0, v1 - v0) or 1e-6)
        du, dv = (v0 - v1) * scale, (u1 - u0) * scale
        bar = (
            *(int(16 * (u0 - du)), int(16 * (v0 - dv)), int(16 * (u0 + du)), int(16 * (v0 + dv))),
            *(int(16 * (u1 + du)), int(16 * (v1 + dv)), int(16 * (u1 - du)), int(16 * (v1 - dv))),
        )
        self.fill(_corners(bar), color, glow, solid)

    def shape(
        self,
        center: Point,
        scale: tuple[float, float],
        outline: Sequence[Point],
        color: Color,
        glow: Color | None = None,
        solid: bool = True,
    ) -> None:
        """An outline around a pixel, scaled by so many pixels."""
        (u, v), (width, height) = center, scale
        self.poly([(u + x * width, v + y * height) for x, y in outline], color, glow, solid)

    def stamp(self, patch: Image, alpha: NDArray[np.float32], u: float, v: float) -> None:
        """Blend an (h, w, 3) patch by its (h, w) alpha, 0…1, at the pixel (u, v) of its top left corner."""
        left, top = round(u), round(v)
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.camera.width, left + alpha.shape[1]), min(self.camera.height, top + alpha.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        cut, here = np.s_[y0 - top : y1 - top, x0 - left : x1 - left], np.s_[y0:y1, x0:x1]
        self._blend(here, patch[cut], alpha[cut])
        mask, layers = cv2.compare(alpha[cut], 0.5, cv2.CMP_GT), self.layers[here]
        cv2.copyTo(np.full_like(layers, len(self._labels) - 1), mask, layers)
        if self.glow is not None:
            self.glow[here] = cv2.copyTo(self.glow[here], ~mask)

    def panel(
        self,
        texture: Image,
        ends: tuple[Color, Color],
        label: int,
        mask: Image | None = None,
        glow: Image | None = None,
    ) -> None:
        """Map a texture on an upright rectangle.

        Args:
            texture: (h, w, 3) uint8, its first column at the first end, its last row at the bottom.
            ends: places (s, y, z): the bottom of the one side and the top of the other.
            label: the label of the whole rectangle.
            mask: (h, w) uint8 alpha of the texture; the label covers the holes too, as Cityscapes has it.
            glow: (h, w, 3) uint8, the light that it gives off.
        """
        (s0, y0, z0), (s1, y1, z1) = ends
        place = self.camera.point
        corners = place(s0, y1, z0), place(s1, y1, z1), place(s1, y0, z1), place(s0, y0, z0)
        columns, rows = [u for u, _ in corners], [v for _, v in corners]
        left, top = max(0, int(min(columns))), max(0, int(min(rows)))
        right, bottom = min(self.camera.width, ceil(max(columns)) + 1), min(self.camera.height, ceil(max(rows)) + 1)
        if right <= left or bottom <= top or abs(columns[0] - columns[1]) < 0.5:
            return
        self.layer(label, plane=_plane(columns[0], z0, columns[1], z1))
        here, size = np.s_[top:bottom, left:right], (right - left, bottom - top)
        quad = np.array([(u - left, v - top) for u, v in corners], np.float32)
        outline = np.array([(round(16 * u), round(16 * v)) for u, v in corners], np.int32)
        inside = np.zeros(size[::-1], np.uint8)
        cv2.fillConvexPoly(inside, outline - (left << SUBPIXEL, top << SUBPIXEL), 255, cv2.LINE_8, SUBPIXEL)
        h, w = texture.shape[:2]
        matrix = cv2.getPerspectiveTransform(np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32), quad)
        if mask is None:
            cv2.copyTo(_warp(texture, matrix, size), inside, self.image[here])
        else:
            alpha = cv2.min(inside, _warp(mask, matrix, size)) * np.float32(1 / 255)
            self._blend(here, _warp(texture, matrix, size), alpha)
        cv2.fillConvexPoly(self.layers, outline, len(self._labels) - 1, cv2.LINE_8, SUBPIXEL)
        if self.glow is not None and glow is not None:
            cv2.copyTo(_warp(glow, matrix, size), inside, self.glow[here])
        elif self.glow is not None:
            cv2.fillConvexPoly(self.glow, outline, (0, 0, 0), cv2.LINE_8, SUBPIXEL)

    def _blend(self, here: tuple[slice, slice], patch: Image, alpha: NDArray[np.float32]) -> None:
        cv2.blendLinear(patch, self.image[here], alpha, 1 - alpha, self.image[here])

    def labels(self) -> Image:
        """(H, W) uint8 label of each pixel."""
        return np.asarray(look_up(np.array(self._labels, np.uint8), self.layers))

    def inverse_depth(self) -> NDArray[np.float32]:
        """(H, W) float32 1/m; 0 is infinitely far."""
        inverse, tilt, offset = (look_up(column, self.layers) for column in np.array(self._planes, np.float32).T)
        rows, columns = (np.arange(n, dtype=np.float32) for n in self.layers.shape)
        inverse *= columns
        tilt *= rows[:, None]
        inverse += tilt
        inverse += offset
        return np.asarray(np.maximum(inverse, 0, out=inverse))


def _corners(flat: Sequence[int]) -> Fixed:
    """(n, 2) from u, v, u, v, …: from nested pairs NumPy takes half as long again."""
    return np.array(flat, np.int32).reshape(-1, 2)


def look_up(table: NDArray[Any], index: NDArray[np.uint16]) -> NDArray[Any]:
    """The value at each place of an (H, W) index, which must be in the table; half the time of np.take."""
    whole = np.zeros((1, 1 << 16), table.dtype)  # OpenCV insists on an entry for every index
    whole[0, : len(table)] = table
    return np.asarray(cv2.LUT(index, whole))


def _plane(u0: float, z0: float, u1: float, z1: float) -> Plane:
    """The upright plane through depth z0 at column u0 and z1 at u1."""
    slope = (1 / max(z1, NEAR) - 1 / max(z0, NEAR)) / (u1 - u0)
    return (slope, 0.0, 1 / max(z0, NEAR) - slope * u0)


def _warp(texture: Image, matrix: Array, size: tuple[int, int]) -> Image:
    warped: Image = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped
