"""Images of any size in bounded memory: overlapping tiles whose logits are blended where they meet.

A tile knows less of the picture near its own edge, so the outer quarter of an overlap counts for nothing and in its
middle half the weight moves from one tile to the next. (Huang et al., Tiling and Stitching Segmentation Output for
Remote Sensing, 2018.) Where a network sees no farther than that quarter, the result is that of the whole image.
Tiles begin at multiples of the network's stride, so that it samples them as it would sample the whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segraft.params import ServeTile
from segraft.serving.batching import pad
from segraft.serving.fields import Map, argmax, fill
from segraft.serving.images import Pixels
from segraft.serving.runtime import Prediction

Logits = NDArray[np.float32]
Predict = Callable[[Pixels], Awaitable[Prediction]]
AHEAD = 2
"""Tiles on their way at once: one in the network while the last one is blended."""


@dataclass(frozen=True)
class Axis:
    """How one side is cut.

    Attributes:
        starts: where tiles begin, evenly spread, at multiples of the stride.
        length: of every tile.
        weights: (length,) float32 of each tile; at any place the weights of all tiles sum to 1.
    """

    starts: tuple[int, ...]
    length: int
    weights: tuple[NDArray[np.float32], ...]

    def ends(self, index: int) -> int:
        """Where the part ends that no later tile touches."""
        return self.starts[index + 1] if index + 1 < len(self.starts) else self.starts[index] + self.length


def axis(side: int, tile: ServeTile, stride: int) -> Axis:
    """Cut a side, given in pixels and rounded up to the stride."""
    side = -(-side // stride) * stride
    if side <= tile.size:
        return Axis((0,), side, (np.ones(side, np.float32),))
    count = -(-(side - tile.overlap) // (tile.size - tile.overlap))
    starts = tuple((side - tile.size) * i // (count - 1) // stride * stride for i in range(count))
    raw = [_ramps(starts, i, tile.size) for i in range(count)]
    total = np.zeros(side, np.float32)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + tile.size] += weight
    return Axis(starts, tile.size, tuple(w / total[s : s + tile.size] for s, w in zip(starts, raw, strict=True)))


def _ramps(starts: tuple[int, ...], index: int, length: int) -> NDArray[np.float32]:
    place, weight = np.arange(length) + 0.5, np.ones(length)
    if index > 0:
        weight *= _ramp(place, starts[index - 1] + length - starts[index])
    if index + 1 < len(starts):
        weight *= _ramp(length - place, starts[index] + length - starts[index + 1])
    return weight.astype(np.float32)


def _ramp(place: NDArray[np.floating[Any]], overlap: int) -> NDArray[np.floating[Any]]:
    """0 in the first quarter of an overlap, 1 after its third."""
    return np.asarray(np.clip((place - overlap / 4) / (overlap / 2), 0, 1))


class Blender:
    """Sums weighted tiles, given row by row from the top left, and hands out each part as soon as it is final.

    It holds the overlap with the row above, over the whole width, and one row's overlap with the tile to the left.

    Args:
        rows: how the height is cut.
        columns: how the width is cut.
        final: takes (top, left) and a block of (C, h, w) logits that no further tile will change.
    """

    def __init__(self, rows: Axis, columns: Axis, final: Callable[[tuple[int, int], Logits], None]) -> None:
        self._rows, self._columns, self._final = rows, columns, final
        self._left: Logits | None = None
        self._above: Logits | None = None
        self._below: Logits | None = None

    def add(self, row: int, column: int, logits: Logits) -> None:
        """Take the (C, length, length) logits of the next tile."""
        left, right = self._columns.starts[column], self._columns.ends(column)
        weighted = logits * self._rows.weights[row][:, None] * self._columns.weights[column]
        if self._left is not None:
            weighted[..., : self._left.shape[-1]] += self._left
        done, self._left = weighted[..., : right - left], weighted[..., right - left :].copy()
        if column + 1 == len(self._columns.starts):
            self._left = None
        self._down(row, column, left, done)

    def _down(self, row: int, column: int, left: int, block: Logits) -> None:
        """Add what the row above left behind; keep what the row below will change."""
        top, bottom = self._rows.starts[row], self._rows.ends(row)
        if self._above is not None:
            block[:, : self._above.shape[1]] += self._above[..., left : left + block.shape[-1]]
        if bottom - top < block.shape[1]:
            rest = block[:, bottom - top :]
            if self._below is None:
                width = self._columns.starts[-1] + self._columns.length
                self._below = np.empty((*rest.shape[:2], width), np.float32)
            self._below[..., left : left + block.shape[-1]] = rest
        self._final((top, left), block[:, : bottom - top])
        if column + 1 == len(self._columns.starts):
            self._above, self._below = self._below, None


async def segment(image: Pixels, predict: Predict, tile: ServeTile, stride: int, maps: dict[str, Map]) -> None:
    """Fill "ids" and whatever else `maps` holds (see `segraft.serving.fields`) for an image of any size.

    Args:
        image: (H, W, 3) uint8 RGB.
        predict: gives ids and logits of a tile.
        tile: how to cut.
        stride: of the network.
        maps: arrays of the image's size.
    """
    rows, columns = axis(image.shape[0], tile, stride), axis(image.shape[1], tile, stride)
    blender = Blender(rows, columns, lambda place, logits: _write(maps, image.shape[:2], place, logits))
    pending: deque[tuple[int, int, asyncio.Task[Prediction]]] = deque()
    try:
        for row, column in _cells(rows, columns):
            cut = _cut(image, rows.starts[row], columns.starts[column], rows.length, columns.length)
            pending.append((row, column, asyncio.ensure_future(predict(cut))))
            if len(pending) == AHEAD:
                await _blend(blender, *pending.popleft())
        while pending:
            await _blend(blender, *pending.popleft())
    finally:
        for _, _, task in pending:
            task.cancel()


async def _blend(blender: Blender, row: int, column: int, task: asyncio.Task[Prediction]) -> None:
    try:
        logits = (await task).logits
    finally:
        task.cancel()
    assert logits is not None
    await asyncio.get_running_loop().run_in_executor(None, blender.add, row, column, logits)


def _cells(rows: Axis, columns: Axis) -> Iterator[tuple[int, int]]:
    return ((row, column) for row in range(len(rows.starts)) for column in range(len(columns.starts)))


def _cut(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A tile; what reaches over the image's edge is mirrored, as it is for a whole image."""
    return pad(image[top : top + height, left : left + width], height, width)


def _write(maps: dict[str, Map], size: tuple[int, ...], place: tuple[int, int], logits: Logits) -> None:
    (top, left), (height, width) = place, size
    logits = logits[:, : height - top, : width - left]
    maps["ids"][top : top + logits.shape[1], left : left + logits.shape[2]] = argmax(logits)
    fill({name: values for name, values in maps.items() if name != "ids"}, place, logits)
