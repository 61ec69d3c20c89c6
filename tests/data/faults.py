"""Each fault that validate must catch, as a function that puts it into a sample of a generated dataset."""

import io
import os
import socket
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.data.blobs import COLORS, Blobs

Inject = Callable[[Blobs, str], None]


def change_mask(work: Callable[[np.ndarray], np.ndarray | Image.Image], **options: object) -> Inject:
    """The mask becomes `work(mask)`."""

    def inject(blobs: Blobs, sample: str) -> None:
        made = work(np.asarray(Image.open(blobs.mask(sample))))
        made = made if isinstance(made, Image.Image) else Image.fromarray(made)
        made.save(blobs.mask(sample), **options)

    return inject


def change_image(work: Callable[[Image.Image], Image.Image], **options: object) -> Inject:
    """The image becomes `work(image)`, whatever its name says."""

    def inject(blobs: Blobs, sample: str) -> None:
        path = blobs.image(sample)
        buffer = io.BytesIO()
        work(Image.open(path).convert("RGB")).save(buffer, **{"format": "PNG", **options})
        path.write_bytes(buffer.getvalue())

    return inject


def rewrite(work: Callable[[bytes], bytes], mask: bool = False) -> Inject:
    """The bytes of the image (or mask) become `work(bytes)`."""

    def inject(blobs: Blobs, sample: str) -> None:
        path = blobs.mask(sample) if mask else blobs.image(sample)
        path.write_bytes(work(path.read_bytes()))

    return inject


def replace_file(work: Callable[[Path], None], mask: bool = False) -> Inject:
    """The image (or mask) is deleted; `work` may put something in its place."""

    def inject(blobs: Blobs, sample: str) -> None:
        path = blobs.mask(sample) if mask else blobs.image(sample)
        path.unlink()
        work(path)

    return inject


def both(*injects: Inject) -> Inject:
    def inject(blobs: Blobs, sample: str) -> None:
        for one in injects:
            one(blobs, sample)

    return inject


def colored(mask: np.ndarray) -> np.ndarray:
    return np.array(COLORS, np.uint8)[mask]


def bilinear(mask: np.ndarray) -> Image.Image:
    height, width = mask.shape
    half = Image.fromarray(mask).resize((width // 2, height // 2), Image.Resampling.NEAREST)
    return half.resize((width, height), Image.Resampling.BILINEAR)


def through_jpeg(mask: np.ndarray) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=90)
    return Image.open(buffer).convert("L")


def with_value(value: int, share: float = 0.1) -> Callable[[np.ndarray], np.ndarray]:
    """A band of `share` of the rows gets `value`."""

    def work(mask: np.ndarray) -> np.ndarray:
        changed = mask.copy()
        changed[: int(share * len(mask))] = value
        return changed

    return work


def with_alpha(low: int) -> Callable[[Image.Image], Image.Image]:
    def work(image: Image.Image) -> Image.Image:
        alpha = Image.new("L", image.size, 255)
        alpha.putpixel((0, 0), low)
        image.putalpha(alpha)
        return image

    return work


def deep_rgb(blobs: Blobs, sample: str) -> None:
    pixels = cv2.imread(str(blobs.image(sample)))
    cv2.imwrite(str(blobs.image(sample)), pixels.astype(np.uint16) * 257)


def not_a_number(image: Image.Image) -> Image.Image:
    values = np.asarray(image.convert("F")).copy()
    values[0, :3] = np.nan
    return Image.fromarray(values)


def rotated_by_exif(blobs: Blobs, sample: str) -> None:
    """The camera stored the picture on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(blobs.image(sample)).convert("RGB").transpose(Image.Transpose.ROTATE_90)
    image.save(blobs.image(sample), "PNG", exif=exif)


def exif_in_mask(blobs: Blobs, sample: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(blobs.mask(sample)).save(blobs.mask(sample), exif=exif)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than anyone should decode."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 3 * width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def palette_mask(mask: np.ndarray) -> Image.Image:
    indexed = Image.new("P", mask.shape[::-1])
    indexed.putdata(mask.ravel().tolist())
    indexed.putpalette([value for color in COLORS for value in color])
    return indexed


def several_frames(blobs: Blobs, sample: str) -> None:
    image = Image.open(blobs.image(sample)).convert("RGB")
    os.unlink(blobs.image(sample))
    image.save(blobs.image(sample).with_suffix(".tif"), save_all=True, append_images=[image])


def animated_gif(blobs: Blobs, sample: str) -> None:
    image = Image.open(blobs.image(sample)).convert("P")
    other = Image.eval(image, lambda value: 255 - value)
    image.save(blobs.image(sample), "GIF", save_all=True, append_images=[other])


def bind_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**31)


def link_outside(path: Path) -> None:
    outside = path.parents[3] / "elsewhere.png"
    Image.new("RGB", (128, 96)).save(outside)
    path.symlink_to(outside)


def renamed(change: Callable[[Path], Path], copy_mask: bool = True) -> Inject:
    """A second sample with other pixels, whose name is that of the first after `change`."""

    def inject(blobs: Blobs, sample: str) -> None:
        image, mask = blobs.image(sample), blobs.mask(sample)
        flipped = Image.open(image).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        flipped.save(change(image))
        if change(mask).with_suffix(".png") != mask:
            Image.open(mask).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(change(mask).with_suffix(".png"))

    return inject


def moved(blobs: Blobs, sample: str, name: str) -> None:
    """The sample gets another name."""
    for path in (blobs.image(sample), blobs.mask(sample)):
        path.rename(path.with_name(f"{name}.png"))


def unicode_pair(blobs: Blobs, sample: str) -> None:
    for form in ("NFC", "NFD"):
        renamed(lambda path, form=form: path.with_name(unicodedata.normalize(form, f"é{path.name}")))(blobs, sample)
    blobs.image(sample).unlink()
    blobs.mask(sample).unlink()


def square(blobs: Blobs, sample: str, transposed: bool) -> None:
    for path in (blobs.image(sample), blobs.mask(sample)):
        Image.open(path).crop((0, 0, 96, 96)).save(path)
    if transposed:
        Image.open(blobs.mask(sample)).transpose(Image.Transpose.TRANSPOSE).save(blobs.mask(sample))
