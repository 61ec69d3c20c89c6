"""Images from strangers: judged by their headers, then decoded to the very pixels that training would see."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from segraft.data.reading import DAMAGED, PNG_SIGNATURE, exif_orientation, read_image
from segraft.errors import UserError
from segraft.params import ServeLimits
from segraft.serving.errors import Refused

Pixels = NDArray[np.uint8]
SCANS = 100
"""A progressive JPEG may hold thousands of scans, each of which costs as much as a whole image; encoders write ten."""
PARTS = 1 << 12
"""Segments of a JPEG, or chunks of a PNG, before its pixels; cameras write dozens. Pillow takes each in Python, and
keeps it: a body full of empty ones would take it half a minute."""
REFUSED = {
    "GIF": (b"GIF8",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "PSD": (b"8BPS",),
    "ICO": (b"\0\0\1\0",),
    "PDF": (b"%PDF",),
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "SVG": (b"<svg", b"<?xml"),
    "JPEG2000": (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"),
    "JPEGXL": (b"\xff\x0a", b"\0\0\0\x0cJXL"),
}
"""Known formats that are never opened, so that the client reads why."""


@dataclass(frozen=True)
class Encoded:
    """An image file that passed its header's inspection.

    Attributes:
        data: the file.
        size: height and width of its stored pixels.
        orientation: EXIF orientation, 1 to 8.
    """

    data: bytes
    size: tuple[int, int]
    orientation: int


def inspect(data: bytes, limits: ServeLimits) -> Encoded:
    """Read an image's header; no pixel is decoded.

    Raises:
        Refused: not an image, a format that is not allowed, damaged, or too large.
    """
    if not data:
        raise Refused(400, "image: empty")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        check_size(*_webp_size(data), limits)  # Pillow makes room for all of it when it opens one
    _check_parts(data)
    try:
        header = Image.open(io.BytesIO(data), formats=limits.formats)
    except Image.DecompressionBombError:
        raise Refused(413, f"image: more than {limits.pixels:,} pixels are not accepted") from None
    except UnidentifiedImageError:
        raise _unknown(data, limits) from None
    except DAMAGED:
        raise Refused(400, "image: damaged header") from None
    check_size(header.height, header.width, limits)
    if getattr(header, "is_animated", False) and header.format != "MPO":
        raise Refused(400, f"image: a {header.format} of several frames; send one")
    if header.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > SCANS:
        raise Refused(400, f"image: a JPEG of more than {SCANS} scans; save it as a baseline JPEG")
    orientation = exif_orientation(header, data)
    return Encoded(data, (header.height, header.width), orientation if 1 <= orientation <= 8 else 1)


def check_size(height: int, width: int, limits: ServeLimits) -> None:
    """Refuse what is too small for the network, or too large for the server."""
    low, high = limits.sides
    if min(height, width) < low:
        raise Refused(400, f"image: {height}×{width} pixels; each side must have at least {low}")
    if max(height, width) > high or height * width > limits.pixels:
        raise Refused(413, f"image: {height}×{width} pixels; at most {limits.pixels:,}, and {high:,} a side")


def decode(image: Encoded) -> Pixels:
    """(H, W, 3) uint8 RGB as the picture is meant to be seen, EXIF rotation applied.

    Raises:
        Refused: damaged, transparent, CMYK or 16-bit.
    """
    try:
        return read_image(Path("image"), image.size[0] * image.size[1], image.data)
    except UserError as error:
        raise Refused(400, str(error)) from None
    except DAMAGED:
        raise Refused(400, "image: cannot be decoded; the file is damaged") from None


def unturn(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """(…, H, W) of the upright picture → (…, H', W') in the orientation in which its file stores it."""
    if orientation in (2, 3, 6, 7):
        pixels = pixels[..., ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[..., ::-1, :]
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(-1, -2)
    return np.ascontiguousarray(pixels)


def _check_parts(data: bytes) -> None:
    """Refuse a file that has more than `PARTS` before its pixels; Pillow has not seen it yet."""
    if data.startswith(PNG_SIGNATURE):
        at, after = len(PNG_SIGNATURE), _after_chunk
    elif data.startswith(b"\xff\xd8\xff"):
        at, after = 2, _after_marker
    else:
        return
    for _ in range(PARTS):
        try:
            at = after(data, at)
        except (IndexError, struct.error):  # cut short: Pillow says so
            return
        if not at:
            return
    raise Refused(400, f"image: more than {PARTS:,} parts before its pixels; save it without metadata")


def _after_chunk(data: bytes, at: int) -> int:
    """Where the chunk after this one begins; 0: this one holds pixels."""
    length, kind = struct.unpack_from(">I4s", data, at)
    return 0 if kind == b"IDAT" else at + 12 + int(length)


def _after_marker(data: bytes, at: int) -> int:
    """Where Pillow looks for a marker next, which may be the very next byte; 0: it stops here."""
    if data[at] != 0xFF:
        return at + 1
    code = data[at + 1]
    if code in (0x00, 0xFF):
        return at + 2 - code % 2
    known = JpegImagePlugin.MARKER.get(0xFF00 | code)
    if known is None or code == 0xDA:
        return 0
    return at + 2 + (max(2, int.from_bytes(data[at + 2 : at + 4])) if known[2] else 0)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Height and width as RFC 9649 stores them, in one of three forms."""
    kind, word = data[12:16], int.from_bytes(data[21:25], "little")
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        return 1 + (word >> 14 & 0x3FFF), 1 + (word & 0x3FFF)
    return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF


def _unknown(data: bytes, limits: ServeLimits) -> Refused:
    wanted = ", ".join(limits.formats)
    known = {"JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG",), **REFUSED}
    name = next((name for name, starts in known.items() if data.startswith(starts)), "")
    if data[4:8] == b"ftyp":
        name = "AVIF or HEIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        name = "WEBP"
    if name and name not in limits.formats:
        return Refused(415, f"image: {name} is not accepted; send {wanted}")
    return Refused(400, f"image: not an image, or a damaged one; send {wanted}")
