"""Images are judged by their headers."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segraft.params import load_params
from segraft.serving.errors import Refused
from segraft.serving.images import PARTS, decode, inspect, unturn
from tests.serving.bodies import encoded
from tests.serving.launch import sample
from tests.serving.running import ROOT

LIMITS = load_params(ROOT / "params.yaml").serve.limits
FORMS = [
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 80}),
    ("WEBP", {"lossless": True, "exif": b"Exif\0\0"}),
    ("PNG", {}),
    ("JPEG", {}),
]


@pytest.mark.parametrize(("kind", "how"), FORMS)
@pytest.mark.parametrize("side", [95, 96])
def test_too_many_pixels_are_seen_in_the_header(kind, how, side):
    data = encoded("small", kind, **how)
    limits = LIMITS.model_copy(update={"sides": (16, side)})
    if side == 96:
        assert inspect(data, limits).size == (64, 96)
    else:
        with pytest.raises(Refused, match="64×96 pixels") as caught:
            inspect(data, limits)
        assert caught.value.status == 413


def test_a_webp_is_refused_before_pillow_makes_room_for_it(monkeypatch):
    data = encoded("small", "WEBP", lossless=True)
    monkeypatch.setattr(Image, "open", lambda *args, **how: pytest.fail("opened"))
    with pytest.raises(Refused):
        inspect(data, LIMITS.model_copy(update={"sides": (16, 95)}))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_unturn_is_the_inverse_of_the_turn_that_reading_makes(orientation):
    stored, exif, file = sample("small"), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    seen = inspect(file.getvalue(), LIMITS)
    upright = decode(seen)
    assert seen.orientation == orientation and (upright.shape[0] == 96) == (orientation > 4)
    np.testing.assert_array_equal(unturn(upright.transpose(2, 0, 1), orientation).transpose(1, 2, 0), stored)


def test_a_format_can_be_left_out():
    with pytest.raises(Refused, match="JPEG is not accepted; send PNG") as caught:
        inspect(encoded("small", "JPEG"), LIMITS.model_copy(update={"formats": ("PNG",)}))
    assert caught.value.status == 415


JPEG, PNG = encoded("small", "JPEG"), encoded("small", "PNG")


@pytest.mark.parametrize(
    ("file", "at", "part"),
    [
        (JPEG, 2, b"\xff\xfe\x00\x02"),
        (JPEG, 2, b"\xff\xe1\x00\x04ab"),
        (JPEG, 2, b"\xff\xd0"),
        (JPEG, 2, b"\xff"),
        (JPEG, 20, b"\0"),
        (JPEG, 20, b"\xff\0"),
        (PNG, 33, b"\0\0\0\0prVt\xa6\x87\x8c\x49"),
    ],
)
def test_what_stands_before_the_pixels_is_counted_as_pillow_reads_it(file, at, part):
    few, many = (file[:at] + part * count + file[at:] for count in (PARTS - 100, PARTS))
    assert inspect(few, LIMITS).size == (64, 96)
    with pytest.raises(Refused, match="4,096 parts before its pixels") as caught:
        inspect(many, LIMITS)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_in_many_parts_are_read(kind):
    noise = np.random.default_rng(0).integers(0, 256, (800, 900, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind, icc_profile=bytes(1 << 20))
    data = file.getvalue()
    if kind == "PNG":
        start = data.index(b"IDAT") - 4
        length = int.from_bytes(data[start : start + 4], "big")
        packed = data[start + 8 : start + 8 + length]
        pieces = [packed[i : i + 10] for i in range(0, length, 10)]
        data = data[:start] + b"".join(map(chunk, pieces)) + data[start + 12 + length :]
        assert len(pieces) > PARTS
    assert decode(inspect(data, LIMITS)).shape == noise.shape


def chunk(data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), b"IDAT") + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
