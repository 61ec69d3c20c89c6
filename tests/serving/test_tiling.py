"""Tiles against the whole image."""

import asyncio
import subprocess
import sys

import cv2
import numpy as np
import pytest

from segraft.params import ServeTile
from segraft.serving.fields import allocate
from segraft.serving.runtime import Prediction
from segraft.serving.tiling import axis, segment
from tests.serving.running import ROOT

TILE = ServeTile(whole=1, size=128, overlap=64)
REACH = 12


class Blur:
    """A network of three classes that sees `REACH` pixels far and pads with zeros, as convolutions do."""

    stride = 32

    async def predict(self, image):
        floats = image.astype(np.float32)
        size = (2 * REACH + 1, 2 * REACH + 1)
        logits = cv2.blur(floats, size, borderType=cv2.BORDER_CONSTANT).transpose(2, 0, 1)
        return Prediction(logits.argmax(0).astype(np.uint8), logits)


def picture(height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("side", [1, 32, 100, 128, 129, 160, 200, 255, 1000, 4096, 10_000])
@pytest.mark.parametrize(
    "tile", [TILE, ServeTile(whole=1, size=1024, overlap=256), ServeTile(whole=1, size=96, overlap=32)]
)
def test_an_axis_is_covered_with_weights_that_sum_to_one(side, tile):
    cut = axis(side, tile, 32)
    padded = -(-side // 32) * 32
    total, count = np.zeros(padded), np.zeros(padded, int)
    for start, weight in zip(cut.starts, cut.weights, strict=True):
        assert start % 32 == 0 and len(weight) == cut.length
        total[start : start + cut.length] += weight
        count[start : start + cut.length] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert count.min() >= 1 and cut.starts[-1] + cut.length == padded
    overlaps = [a + cut.length - b for a, b in zip(cut.starts, cut.starts[1:], strict=False)]
    assert all(overlap >= tile.overlap for overlap in overlaps)
    for index, overlap in enumerate(overlaps):
        assert (cut.weights[index][-overlap // 4 + 1 :] == 0).all(), "a tile's own edge counts for nothing"


@pytest.mark.parametrize("size", [(300, 500), (128, 500), (333, 97), (129, 129), (640, 128)])
def test_where_the_network_sees_no_farther_than_the_margin_tiles_equal_the_whole(size):
    image, network = picture(*size), Blur()
    padded = cv2.copyMakeBorder(image, 0, -size[0] % 32, 0, -size[1] % 32, cv2.BORDER_REFLECT)
    whole = asyncio.run(network.predict(padded))
    maps = allocate(["logits", "confidence", "sample"], 3, 1, size) | {"ids": np.empty(size, np.uint8)}
    asyncio.run(segment(image, network.predict, TILE, 32, maps))
    np.testing.assert_allclose(maps["logits"], whole.logits[:, : size[0], : size[1]], atol=1e-3)
    assert (maps["ids"] == whole.ids[: size[0], : size[1]]).mean() > 0.9999
    np.testing.assert_array_equal(maps["sample"], maps["confidence"][::4, ::4])


def test_seams_are_blended_where_tiles_disagree():
    class Moody:
        """Says something else of each tile."""

        calls = 0

        async def predict(self, image):
            self.calls += 1
            logits = np.zeros((2, *image.shape[:2]), np.float32)
            logits[0] = self.calls
            return Prediction(np.zeros(image.shape[:2], np.uint8), logits)

    maps = allocate(["logits"], 2, 1, (128, 192)) | {"ids": np.empty((128, 192), np.uint8)}
    asyncio.run(segment(picture(128, 192), Moody().predict, TILE, 32, maps))
    row = maps["logits"][0, 64]
    assert (row[:80] == 1).all() and (row[112:] == 2).all(), "a quarter of the overlap on either side is one tile's"
    np.testing.assert_allclose(np.diff(row[80:112]), 1 / 32, atol=1e-6)


@pytest.mark.slow
def test_100_million_pixels_fit_into_bounded_memory():
    code = """
import asyncio, resource, numpy as np
from segraft.params import ServeTile
from segraft.serving.runtime import Prediction
from segraft.serving.tiling import segment
image = np.zeros((10_000, 10_000, 3), np.uint8)
image[::2] = 255
async def predict(tile):
    logits = np.zeros((19, *tile.shape[:2]), np.float32)
    logits[3] = tile[..., 0]
    return Prediction(None, logits)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
maps = {"ids": np.empty((10_000, 10_000), np.uint8)}
asyncio.run(segment(image, predict, ServeTile(whole=1, size=1024, overlap=256), 32, maps))
assert (maps["ids"][::2] == 3).all() and (maps["ids"][1::2] == 0).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 1200, "MiB beside the image: the ids, the row's overlap, and a few tiles of 19 classes"
