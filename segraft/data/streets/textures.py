"""Tables of noise, made once a process: sampling a table costs a tenth of drawing random numbers for each image."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 512
"""Side of a square noise table; tables tile, so an index modulo SIZE is always right."""


@cache
def fractal(finest: int = 128) -> NDArray[np.float32]:
    """(SIZE, SIZE) float32 tileable fractal noise, mean 0, deviation 1; `finest` is the grid of its last octave."""
    rng = np.random.Generator(np.random.Philox(finest))
    total = np.zeros((SIZE, SIZE), np.float32)
    cells = 4
    while cells <= finest:
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
        step = SIZE // cells
        smooth = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += smooth[2 * step : 2 * step + SIZE, 2 * step : 2 * step + SIZE] / cells**0.8
        cells *= 2
    noise: NDArray[np.float32] = (total - total.mean()) / total.std()
    return noise


@cache
def grain() -> NDArray[np.float32]:
    """(SIZE, SIZE) float32 normal noise, slightly smoothed: grit of asphalt, leaves, plaster."""
    noise = np.random.Generator(np.random.Philox(99)).standard_normal((SIZE, SIZE)).astype(np.float32)
    smooth: NDArray[np.float32] = cv2.GaussianBlur(noise, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    smooth /= smooth.std()
    return smooth


class Random(Protocol):
    """What both Python's and NumPy's generators have."""

    def random(self) -> float:
        """A number in [0, 1)."""


def crop(table: NDArray[np.float32], rng: Random, height: int, width: int) -> NDArray[np.float32]:
    """(height, width) float32: a random cut of a table, a view where it fits; a larger one repeats the table."""
    row, column = (int(rng.random() * max(1, SIZE + 1 - side)) for side in (height, width))
    if height <= SIZE and width <= SIZE:
        return table[row : row + height, column : column + width]
    return np.pad(table, ((0, max(0, height - SIZE)), (0, max(0, width - SIZE))), mode="wrap")[:height, :width]


@cache
def _normal() -> NDArray[np.int8]:
    rng, table = np.random.Generator(np.random.Philox(7)), np.empty((64, 1 << 15), np.int8)
    for part in table:  # a part stays in the cache
        np.clip(np.rint(rng.standard_normal(part.size) * 32), -127, 127, out=part, casting="unsafe")
    return table.reshape(-1)


def sensor_noise(image: NDArray[np.uint8], rng: np.random.Generator, read: float, shot: float) -> NDArray[np.uint8]:
    """Add camera noise: variance read² + shot²·signal (Foi et al. 2008), in 8-bit counts at mid-grey.

    Args:
        image: (H, W, 3) uint8.
        rng: where in the noise table to start.
        read: deviation of the part that does not depend on the signal.
        shot: deviation of the photon noise at a signal of 128.
    """
    table, size = _normal(), image.size
    start = int(rng.random() * max(1, table.size - size))
    noise = np.resize(table[start : start + size], image.shape).view(np.uint8)  # repeats where the table ends
    signal, draw = np.indices((256, 256), np.uint8)  # what they make together is the same wherever they meet
    levels = np.arange(256, dtype=np.float32)
    deviation = cv2.LUT(signal, np.sqrt(read**2 + shot**2 * levels / 128).astype(np.float32) / 32)
    noisy = cv2.add(signal, cv2.multiply(deviation, draw.view(np.int8), dtype=cv2.CV_32F), dtype=cv2.CV_8U)
    pairs = cv2.merge([noise.reshape(-1), image.reshape(-1)]).view(np.uint16)
    return np.asarray(cv2.LUT(pairs, noisy.reshape(1, -1))).reshape(image.shape)
