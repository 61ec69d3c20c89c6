"""Reading images and masks: the one place that decodes dataset files, so that every step sees the same pixels.

Headers are read by Pillow; 8-bit PNG and JPEG are then decoded by OpenCV, which gives the same values in less time and,
unlike Pillow, refuses a PNG whose last checksum is wrong. Each function takes the file's bytes as `data` where the
caller has them already (for a hash), so that no file is read twice.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, Literal, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from segraft.data.taxonomy import Encoding, Taxonomy
from segraft.errors import UserError
from segraft.params import MAX_PIXELS

FORMATS = ("PNG", "JPEG", "BMP", "GIF", TiffImagePlugin.TiffImageFile.format, WebPImagePlugin.WebPImageFile.format)
"""Formats that are tried: no format that is a program (EPS), none that is rare enough to hide a bug."""
LOSSY = ("JPEG", "MPO", "WEBP")
ORIENTATION, IHDR_DEPTH = 0x0112, 24
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNKS = 1 << 16
"""Of a PNG that are gone through for its EXIF; libpng writes one for each 8 KiB."""

DAMAGED = (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, OverflowError, struct.error)
"""What Pillow raises on a broken file."""

Array = NDArray[np.uint8]
Ids = NDArray[np.uint8 | np.uint16]


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        UserError: it is missing, or no plain file (reading a pipe would block).
    """
    if not path.is_file():
        found = "not a plain file" if path.exists() else "broken link" if path.is_symlink() else "no such file"
        _refuse(path, found, "put an image file there")
    return path.read_bytes()


def open_image(path: Path, max_pixels: int = MAX_PIXELS, data: bytes | None = None) -> Image.Image:
    """The header (format, mode, size, info), read without decoding a pixel.

    Raises:
        UserError: no image that we read, or more than `max_pixels`.
    """
    data = read_bytes(path) if data is None else data
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        _refuse(path, "a decompression bomb", f"no image may have more than {max_pixels:,} pixels")
    except UnidentifiedImageError:
        found = f"not an image, or a broken one (begins with {data[:8]!r})" if data else "an empty file"
        _refuse(path, found, "replace it with a PNG, JPEG or TIFF file")
    except DAMAGED as error:
        _refuse(path, f"a damaged header ({error})", "replace the file")
    width, height = header.size
    if width * height > max_pixels:
        _refuse(path, f"{width}×{height} pixels", f"no image may have more than {max_pixels:,} (validate.max_pixels)")
    return header


def read_image(path: Path, max_pixels: int = MAX_PIXELS, data: bytes | None = None) -> Array:
    """An image as it is meant to be seen: EXIF rotation applied, grey and palette turned into RGB.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UserError: damaged, too large, 16-bit, CMYK or another rare mode, transparent in places, or animated.
    """
    data = read_bytes(path) if data is None else data
    header = open_image(path, max_pixels, data)
    _refuse_frames(path, header)
    if _is_deep(header):
        _refuse(path, f"16 or more bits a channel (mode {header.mode})", "save it with 8 bits")
    if header.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        _refuse(path, f"colour mode {header.mode}", "save it as RGB")
    if header.mode in ("L", "RGB") and _cv2_reads(header):
        pixels = _decode_cv2(path, data, cv2.IMREAD_COLOR_RGB)
    else:
        pixels = _decode_opaque(path, header)
    return _turn(pixels, exif_orientation(header, data))


def raw_mask(
    path: Path, max_pixels: int = MAX_PIXELS, data: bytes | None = None, palette: Literal["ids", "colors"] = "ids"
) -> Ids:
    """A mask's values as stored; of a palette image its indices, or with palette="colors" its colours.

    Never by way of a grey conversion, which would turn the indices of Pascal VOC into luminance.

    Returns:
        (H, W) uint8 or uint16 ids (a 1-bit mask: 0 and 1), or (H, W, 3) uint8 RGB.

    Raises:
        UserError: damaged, too large, in a lossy format, with alpha, animated, or of a depth that holds no ids.
    """
    data = read_bytes(path) if data is None else data
    header = open_image(path, max_pixels, data)
    _refuse_frames(path, header)
    _refuse_mask(path, header, data)
    if header.mode in ("L", "I;16", "RGB") and _cv2_reads(header):
        flag = cv2.IMREAD_COLOR_RGB if header.mode == "RGB" else cv2.IMREAD_UNCHANGED
        return _decode_cv2(path, data, flag)
    values = _decode(path, header, "RGB" if header.mode == "P" and palette == "colors" else header.mode)
    return _narrow(path, values)


def read_mask(
    path: Path, encoding: Encoding, taxonomy: Taxonomy, max_pixels: int = MAX_PIXELS, data: bytes | None = None
) -> Array:
    """A mask as trainIds of its own taxonomy.

    Returns:
        (H, W) uint8: trainIds, `ignore_index` where void, `UNKNOWN` where the taxonomy does not know the value.

    Raises:
        UserError: as `raw_mask`; or colours where ids are expected, or the reverse.
    """
    raw = raw_mask(path, max_pixels, data, "colors" if encoding == "colors" else "ids")
    if (raw.ndim == 3) != (encoding == "colors"):
        found, wanted = ("colours", encoding) if raw.ndim == 3 else ("ids", "colors")
        _refuse(path, f"{found} where {wanted} are expected", "give the masks' encoding, or convert them")
    return to_train_ids(raw, encoding, taxonomy)


def to_train_ids(raw: Ids, encoding: Encoding, taxonomy: Taxonomy) -> Array:
    """What `raw_mask` read → (H, W) uint8 trainIds, `ignore_index` and `UNKNOWN`."""
    assert (raw.ndim == 3) == (encoding == "colors")
    if encoding == "colors":
        packed: NDArray[np.uint32] = cv2.cvtColor(raw, cv2.COLOR_RGB2BGRA).view("<u4")[..., 0] & 0xFFFFFF
        return np.take(taxonomy.color_table, packed)
    table = taxonomy.lookup(encoding)
    return np.asarray(cv2.LUT(raw, table[:256]), np.uint8) if raw.dtype == np.uint8 else np.take(table, raw)


def resize_pair(image: Array, mask: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Image and mask at `size` (height, width), pixel centres aligned; the mask keeps its values.

    The image is averaged over areas when it shrinks and interpolated linearly when it grows.
    """
    height, width = size
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _refuse(path: Path, found: str, remedy: str) -> NoReturn:
    raise UserError(f"{path}: {found}; {remedy}")


def _refuse_frames(path: Path, header: Image.Image) -> None:
    several = header.format != "MPO" and getattr(header, "is_animated", False)  # MPO: a phone's JPEG and its preview
    if several:
        _refuse(path, f"a {header.format} of several frames", "keep one")


def _refuse_mask(path: Path, header: Image.Image, data: bytes) -> None:
    """Refuse what cannot hold ids or colours, or would be read differently by different tools."""
    deep_color = header.mode == "RGB" and _is_deep(header)
    if header.format in LOSSY or header.info.get("compression") == "jpeg":
        _refuse(path, f"a mask as {header.format}, which changes values", "export it again as PNG")
    if header.mode in ("LA", "PA", "RGBA"):
        _refuse(path, f"a mask with alpha (mode {header.mode})", "export it without transparency")
    if header.mode not in ("1", "L", "P", "RGB", "I", "I;16", "I;16B") or deep_color:
        _refuse(path, f"a mask of mode {header.mode}, deep or rare", "export it as 8- or 16-bit grey, or 8-bit RGB")
    if header.format == "PNG" and header.mode == "L" and data[IHDR_DEPTH] < 8:
        _refuse(path, f"{data[IHDR_DEPTH]}-bit grey, which readers stretch to 0 … 255", "export it with 8 bits")
    if exif_orientation(header, data) != 1:
        _refuse(path, "a mask with an EXIF rotation, which not all tools follow", "turn its pixels and drop the tag")


def _is_deep(header: Image.Image) -> bool:
    """More than 8 bits a channel; Pillow opens 16-bit RGB as RGB, and only the tile's raw mode tells."""
    tiles = getattr(header, "tile", [])
    return header.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in tiles)


def _cv2_reads(header: Image.Image) -> bool:
    return header.format in ("PNG", "JPEG", "MPO") and "transparency" not in header.info


def _decode_cv2(path: Path, data: bytes, flag: int) -> Array:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        _decode(path, Image.open(io.BytesIO(data), formats=FORMATS), "RGB")  # for its reason
        _refuse(path, "a wrong checksum", "the file is damaged: replace it")
    return np.asarray(pixels)


def _decode(path: Path, header: Image.Image, mode: str) -> Array:
    try:
        return np.asarray(header.convert(mode))
    except DAMAGED as error:
        _refuse(path, f"cannot be decoded ({error})", "the file is damaged or cut short: replace it")


def _decode_opaque(path: Path, header: Image.Image) -> Array:
    if header.mode not in ("LA", "PA", "RGBA") and "transparency" not in header.info:
        return _decode(path, header, "RGB")
    pixels = _decode(path, header, "RGBA")
    if pixels[..., 3].min() < 255:
        _refuse(path, f"transparent pixels (mode {header.mode})", "flatten it onto a background")
    return pixels[..., :3]


def _narrow(path: Path, values: NDArray[Any]) -> Ids:
    if values.dtype in (np.uint8, np.bool_):
        return values.astype(np.uint8)
    if values.min() < 0 or values.max() > 65535:
        _refuse(path, f"ids from {values.min()} to {values.max()}", "ids are 0 to 65535")
    return values.astype(np.uint16)


def exif_orientation(header: Image.Image, data: bytes) -> int:
    """The EXIF orientation, 1 to 8; without decoding, as Pillow would to find what comes after a PNG's pixels."""
    try:
        if header.format != "PNG":
            return int(header.getexif().get(ORIENTATION, 1))
        if "exif" not in header.info and (late := _png_exif(data)):
            header.info["exif"] = late
        if not {"exif", "Raw profile type exif"} & set(header.info):
            return 1
        return int(Image.Image.getexif(header).get(ORIENTATION, 1))
    except DAMAGED:
        return 1  # viewers show a picture with broken EXIF as it is stored


def _png_exif(data: bytes) -> bytes:
    """The content of a PNG's eXIf chunk; b"" if there is none."""
    if b"eXIf" not in data:
        return b""
    at = len(PNG_SIGNATURE)
    for _ in range(CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _turn(pixels: Array, orientation: int) -> Array:
    """Contiguous pixels in the orientation of Exif 2.32, section 4.6.5."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
