"""Open one file of a dataset without trusting its name, its kind, its size or its content."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segraft.data.reading import FORMATS
from segraft.errors import UserError

T = TypeVar("T")

USUAL_FORMAT = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
"""Suffix → what the file should be, in Pillow's words."""


class Fault(Exception):
    """Why a file cannot be used: a rule's name and what was found."""

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(rule, found)
        self.rule, self.found = rule, found


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before a pixel is decoded."""

    image: Image.Image
    """opened, not loaded"""
    format: str
    bits: int
    """of one channel, or of one palette index"""


@dataclass(frozen=True)
class File:
    """A file of a dataset that may be decoded."""

    name: str
    """relative to the dataset"""
    data: bytes
    header: Header
    max_pixels: int

    def decode(self, read: Callable[..., NDArray[Any]], **options: Any) -> NDArray[Any]:
        """What a function of segraft.data.reading makes of it, so that what passes here can be read by every step.

        Raises:
            Fault: undecodable_file, with the function's own words.
        """
        try:
            return read(Path(self.name), self.max_pixels, self.data, **options)
        except UserError as error:
            found = str(error).removeprefix(f"{self.name}: ").partition("; ")[0]
            raise Fault("undecodable_file", found) from None


def open_file(root: Path, relative: str, max_pixels: int) -> File:
    """Read a file below `root` (already resolved) and its header.

    Raises:
        Fault: as `read_bytes` and `read_header`.
    """
    most = 8 * max_pixels + (1 << 20)  # 16-bit RGBA without compression
    data = read_bytes(root, relative, most)
    return File(relative, data, read_header(data, max_pixels), max_pixels)


def decoded(work: Callable[..., T], *args: Any) -> T:
    """What Pillow makes of pixels that reading would refuse; a Fault if they are damaged too."""
    try:
        return work(*args)
    except Exception as error:  # a hostile file can raise anything
        raise Fault("undecodable_file", f"{type(error).__name__}: {error}") from None


def read_bytes(root: Path, relative: str, limit: int) -> bytes:
    """The bytes of a regular file under `root` (already resolved) of at most `limit` bytes.

    Never blocks on a pipe and never opens a device.

    Raises:
        Fault: bad_name, missing_file, outside_root, special_file, empty_file, oversized_file or unreadable_file.
    """
    path = root / relative
    if relative != printable(relative):
        raise Fault("bad_name", "control characters, or bytes that are not valid UTF-8, in its name")
    try:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root) or ".." in PurePosixPath(relative).parts:
            raise Fault("outside_root", f"leads out of the dataset, to {real}")
        _regular(real.stat())
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _regular(status)
            if status.st_size == 0:
                raise Fault("empty_file", "0 bytes")
            if status.st_size > limit:
                raise Fault("oversized_file", f"{status.st_size} bytes, more than any image of max_pixels has")
            return file.read(status.st_size)  # not `limit`: so much memory would be taken, and given back
    except FileNotFoundError:
        dangling = path.is_symlink()
        raise Fault("missing_file", "a link to nothing" if dangling else "no such file") from None
    except OSError as error:
        raise Fault("unreadable_file", error.strerror or str(error)) from None


def printable(name: str) -> str:
    """The name with control characters and undecodable bytes escaped, so that every file and terminal can hold it."""
    if name.isprintable():
        return name
    odd = {"Cc", "Cs"}
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in name)


def _regular(status: os.stat_result) -> None:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    if not stat.S_ISREG(status.st_mode):
        raise Fault("special_file", f"a {kinds.get(stat.S_IFMT(status.st_mode), 'device')}, not a file")


def read_header(data: bytes, max_pixels: int) -> Header:
    """The header of an image file; no pixel is decoded.

    Raises:
        Fault: undecodable_file, too_many_pixels or several_frames.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is judged here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise Fault("too_many_pixels", f"{width}×{height} pixels in a file of {len(data)} bytes")
            if _several_frames(image):
                raise Fault("several_frames", f"a {image.format} of several frames")
            return Header(image, str(image.format), _bits(image, data))
    except Fault:
        raise
    except Image.DecompressionBombError as error:
        raise Fault("too_many_pixels", str(error).partition(",")[0]) from None
    except UnidentifiedImageError:
        raise Fault("undecodable_file", f"no {', '.join(FORMATS)}; it begins with {data[:24]!r}") from None
    except Exception as error:  # a hostile file can raise anything
        raise Fault("undecodable_file", f"{type(error).__name__}: {error}") from None


def _several_frames(image: Image.Image) -> bool:
    if image.format != "TIFF":
        # an MPO is a JPEG with a preview behind it, as phones write it
        return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    try:
        image.seek(1)  # n_frames would walk every directory of the file
    except EOFError:
        return False
    return True


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR: Pillow opens a 16-bit RGB file as 8-bit RGB
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (1,))))  # type: ignore[attr-defined]  # BitsPerSample
    return {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}.get(image.mode, 8)
