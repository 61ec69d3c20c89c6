"""Something to try for who has no image at hand: street scenes of the embedded data's generator."""

from __future__ import annotations

import functools

import cv2

from segraft.data.streets.render import render
from segraft.params import Condition

SCENES: tuple[tuple[Condition, int], ...] = (("clear", 5), ("rain", 2), ("night", 11), ("fog", 3))
"""Condition and number of each scene."""
SIZE = (384, 768)


@functools.cache
def scene(number: int) -> bytes:
    """A JPEG of `SIZE`; numbers go round."""
    condition, key = SCENES[number % len(SCENES)]
    image = render(1, (key,), SIZE, condition).image
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return jpeg.tobytes()
