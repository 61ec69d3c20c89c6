"""Images and masks of every kind, written by Pillow or OpenCV, come back as they are meant, or are refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from segraft.data import reading
from segraft.data.reading import open_image, raw_mask, read_image, read_mask, resize_pair
from segraft.data.taxonomy import UNKNOWN, load_taxonomy
from segraft.errors import UserError

TAXONOMIES = Path(__file__).parents[2] / "data/taxonomies"
RGB = np.random.default_rng(7).integers(0, 256, (24, 37, 3), np.uint8)
IDS = np.random.default_rng(8).integers(0, 12, (24, 37), np.uint8)


@pytest.fixture
def camvid11():
    return load_taxonomy(TAXONOMIES, "camvid")


def save(path: Path, pixels, mode: str | None = None, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read_image(save(tmp_path / f"x.{suffix}", RGB, **options)), RGB)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_and_palette_become_rgb(tmp_path, mode, suffix):
    path = save(tmp_path / f"x.{suffix}", RGB, mode)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"quality": 50}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_pillows_to_the_bit(tmp_path, mode, options):
    path = save(tmp_path / "x.jpg", cv2.resize(RGB, (160, 120)), mode, **options)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[reading.ORIENTATION] = orientation
    path = save(tmp_path / f"x.{suffix}", RGB, exif=exif)
    assert np.array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))
    assert read_image(path).flags.c_contiguous


def test_broken_exif_is_no_rotation(tmp_path):
    path = save(tmp_path / "x.jpg", RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    assert read_image(path).shape == RGB.shape


def test_opaque_alpha_is_dropped(tmp_path):
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "x.png", opaque)), RGB)
    opaque[3, 5, 3] = 254
    with pytest.raises(UserError, match=r"y.png: transparent pixels \(mode RGBA\); flatten"):
        read_image(save(tmp_path / "y.png", opaque))


def test_transparent_colour_key(tmp_path):
    r, g, b = (int(v) for v in RGB[0, 0])
    with pytest.raises(UserError, match="transparent pixels"):
        read_image(save(tmp_path / "x.png", RGB, transparency=(r, g, b)))


def test_a_phones_mpo_is_a_jpeg(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    assert open_image(tmp_path / "x.jpg").format == "MPO"
    assert np.array_equal(read_image(tmp_path / "x.jpg"), np.asarray(Image.open(tmp_path / "x.jpg")))


def deep_rgb(path: Path) -> None:
    cv2.imwrite(str(path), RGB.astype(np.uint16) * 257)


def animated(path: Path) -> None:
    Image.fromarray(RGB).save(path, save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())])


REFUSED = {
    "deep.png": (deep_rgb, "16 or more bits"),
    "deepgrey.png": (lambda p: save(p, IDS.astype(np.uint16)), "16 or more bits"),
    "deep.tif": (deep_rgb, "16|damaged|not an image"),
    "float.tif": (lambda p: save(p, IDS.astype(np.float32)), "16 or more bits"),
    "cmyk.jpg": (lambda p: save(p, RGB, "CMYK"), "colour mode CMYK"),
    "lab.tif": (lambda p: save(p, RGB, "LAB"), "colour mode LAB"),
    "apng.png": (animated, "several frames"),
    "frames.tif": (animated, "several frames"),
    "frames.gif": (animated, "several frames"),
    "empty.png": (lambda p: p.touch(), "an empty file"),
    "page.png": (lambda p: p.write_text("<html></html>"), r"not an image, .* \(begins with b'<html></'\)"),
    "eps.png": (lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"),
    "pipe.png": (os.mkfifo, "not a plain file"),
    "folder.png": (lambda p: p.mkdir(), "not a plain file"),
    "link.png": (lambda p: p.symlink_to("nowhere"), "broken link"),
    "nothing.png": (lambda p: None, "no such file"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_images(tmp_path, name):
    write, complaint = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: .*({complaint})"):
        read_image(tmp_path / name)


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(RGB, (160, 120))).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "bmp", "webp"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_truncated(tmp_path, suffix, keep):
    data = encoded(suffix)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=rf"x.{suffix}: .*; .*replace"):
        read_image(path)


@pytest.mark.parametrize("place", [0.5, -18])
def test_png_with_a_flipped_byte(tmp_path, place):
    data = bytearray(encoded("png"))
    data[int(len(data) * place) if place > 0 else place] ^= 0xFF
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UserError, match=r"x.png: (cannot be decoded|a wrong checksum)"):
        read_image(tmp_path / "x.png")


def grey_png(path: Path, width: int, height: int, rows: bytes, bits: int = 8) -> Path:
    """A grey PNG put together by hand; `rows` are filter bytes and pixels, too few of them perhaps."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, kind, body)
    return path


def test_too_many_pixels_are_seen_in_the_header(tmp_path, monkeypatch):
    path = grey_png(tmp_path / "x.png", 3000, 3000, bytes(3001 * 3000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for read in (read_image, raw_mask, open_image):
        with pytest.raises(UserError, match=r"x.png: 3000×3000 pixels; no image may have more than 8,999,999"):
            read(path, 8_999_999)
    monkeypatch.undo()
    assert raw_mask(path, 9_000_000).shape == (3000, 3000)


def test_pillows_own_bomb_limit_is_an_answer_too(tmp_path):
    path = grey_png(tmp_path / "x.png", 65536, 65536, bytes(9))
    with pytest.raises(UserError, match=r"x.png: a decompression bomb; no image may have more than 89,478,485"):
        read_image(path)


class TestMasks:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
    def test_ids(self, tmp_path, camvid11, suffix):
        path = save(tmp_path / f"m.{suffix}", IDS)
        assert np.array_equal(raw_mask(path), IDS)
        assert np.array_equal(read_mask(path, "ids", camvid11), np.where(IDS == 11, 255, IDS))

    def test_train_ids(self, tmp_path, camvid11):
        path = save(tmp_path / "m.png", np.array([[0, 10, 255], [11, 254, 77]], np.uint8))
        assert read_mask(path, "trainIds", camvid11).tolist() == [[0, 10, 255], [UNKNOWN] * 3]

    def test_unknown_ids_are_marked(self, tmp_path):
        path = save(tmp_path / "m.png", np.array([[7, 0, 34, 255]], np.uint8))
        assert read_mask(path, "ids", load_taxonomy(TAXONOMIES, "cityscapes")).tolist() == [[0, 255, UNKNOWN, UNKNOWN]]

    def test_palette_indices_are_ids(self, tmp_path):
        voc = load_taxonomy(TAXONOMIES, "voc")
        values = np.array([[0, 1, 15, 255]], np.uint8)
        image = Image.fromarray(values)
        palette = voc.palette.copy()
        palette[255] = (224, 224, 192)
        image.putpalette(palette.tobytes())
        assert image.mode == "P"
        path = save(tmp_path / "m.png", image)
        assert raw_mask(path).tolist() == values.tolist()
        assert read_mask(path, "ids", voc).tolist() == [[0, 1, 15, 255]]
        assert read_mask(path, "colors", voc).tolist() == [[0, 1, 15, 255]]

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bit_ids(self, tmp_path, camvid11, suffix):
        wide = IDS.astype(np.uint16)
        wide[0, :2] = 300, 65535
        path = save(tmp_path / f"m.{suffix}", wide)
        assert raw_mask(path).dtype == np.uint16
        assert np.array_equal(raw_mask(path), wide)
        assert np.array_equal(read_mask(path, "ids", camvid11)[1:], np.where(IDS == 11, 255, IDS)[1:])
        assert read_mask(path, "ids", camvid11)[0, :2].tolist() == [UNKNOWN] * 2

    def test_one_bit_is_zero_and_one(self, tmp_path):
        assert set(np.unique(raw_mask(save(tmp_path / "m.png", IDS > 5)))) == {0, 1}

    def test_colours_match_exactly(self, tmp_path):
        camvid32 = load_taxonomy(TAXONOMIES, "camvid32")
        colors = np.array([[c.color for c in camvid32.classes] + [(0, 0, 0), (64, 128, 65)]], np.uint8)
        path = save(tmp_path / "m.png", colors)
        assert read_mask(path, "colors", camvid32).tolist() == [[*range(31), 255, UNKNOWN]]

    def test_many_colours_of_one_class(self, tmp_path, camvid11):
        path = save(tmp_path / "m.png", np.array([[(128, 0, 0), (64, 192, 0), (192, 0, 128)]], np.uint8))
        assert read_mask(path, "colors", camvid11).tolist() == [[1, 1, 1]]

    @pytest.mark.parametrize(
        ("encoding", "pixels", "found"), [("ids", RGB, "colours where ids"), ("colors", IDS, "ids where colors")]
    )
    def test_the_other_encoding_is_refused(self, tmp_path, camvid11, encoding, pixels, found):
        with pytest.raises(UserError, match=rf"m.png: {found} are expected"):
            read_mask(save(tmp_path / "m.png", pixels), encoding, camvid11)

    @pytest.mark.parametrize(
        ("name", "write", "found"),
        [
            ("m.jpg", lambda p: save(p, IDS), "JPEG, which changes values"),
            ("m.webp", lambda p: save(p, RGB), "WEBP, which changes values"),
            ("jpeg.tif", lambda p: save(p, IDS, compression="jpeg"), "changes values"),
            ("la.png", lambda p: save(p, IDS, "LA"), r"alpha \(mode LA\)"),
            ("rgba.png", lambda p: save(p, RGB, "RGBA"), r"alpha \(mode RGBA\)"),
            ("float.tif", lambda p: save(p, IDS.astype(np.float32)), "mode F"),
            ("deep.png", deep_rgb, "mode RGB, deep"),
            ("negative.tif", lambda p: save(p, IDS.astype(np.int32) - 1), "ids from -1 to"),
            ("apng.png", animated, "several frames"),
        ],
    )
    def test_refused_masks(self, tmp_path, name, write, found):
        write(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}: .*{found}"):
            raw_mask(tmp_path / name)

    def test_four_bit_grey_is_refused(self, tmp_path):
        path = grey_png(tmp_path / "m.png", 2, 1, bytes([0, 0x12]), bits=4)
        with pytest.raises(UserError, match=r"m.png: 4-bit grey"):
            raw_mask(path)

    def test_rotated_mask_is_refused(self, tmp_path):
        exif = Image.Exif()
        exif[reading.ORIENTATION] = 6
        with pytest.raises(UserError, match=r"m.png: a mask with an EXIF rotation"):
            raw_mask(save(tmp_path / "m.png", IDS, exif=exif))


def test_bytes_at_hand_are_not_read_again(tmp_path, camvid11):
    image, mask = save(tmp_path / "x.png", RGB), save(tmp_path / "m.png", IDS)
    data = image.read_bytes(), mask.read_bytes()
    image.unlink(), mask.unlink()
    assert np.array_equal(read_image(image, data=data[0]), RGB)
    assert np.array_equal(raw_mask(mask, data=data[1]), IDS)


class TestResize:
    def test_mask_keeps_its_values_and_its_place(self):
        mask = np.repeat(np.repeat(np.array([[1, 7], [255, 3]], np.uint8), 32, 0), 48, 1)
        image = np.repeat(mask[..., None], 3, 2)
        for size in ((32, 48), (17, 31), (128, 192)):
            small, small_mask = resize_pair(image, mask, size)
            assert small.shape == (*size, 3) and small_mask.shape == size
            assert set(np.unique(small_mask)) == {1, 3, 7, 255}
            centre = (small_mask.argmax(0).max(), (small_mask[0] == 7).argmax())
            assert centre == pytest.approx((size[0] / 2, size[1] / 2), abs=1)

    def test_nearest_takes_the_middle_of_a_pixel(self):
        mask = np.arange(9, dtype=np.uint8).reshape(3, 3)
        assert resize_pair(np.zeros((3, 3, 3), np.uint8), mask, (1, 1))[1].tolist() == [[4]]

    def test_shrinking_averages(self):
        checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 254
        small, _ = resize_pair(np.repeat(checks[..., None], 3, 2), checks, (16, 16))
        assert np.all(small == 127)


def test_real_camvid(camvid, camvid11):
    names = sorted((camvid / "train").iterdir())[::60]
    for path in names:
        image = read_image(path)
        mask = read_mask(camvid / "trainannot" / f"{path.stem}.png", "ids", camvid11)
        assert image.shape == (360, 480, 3) and mask.shape == (360, 480)
        assert UNKNOWN not in mask


@pytest.mark.parametrize("late", [False, True])
def test_the_exif_of_a_png_is_read_without_decoding_it(tmp_path, monkeypatch, late):
    exif = Image.Exif()
    exif[reading.ORIENTATION] = 6
    data = save(tmp_path / "x.png", RGB, exif=exif).read_bytes()
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    end = data.index(b"IEND") - 4
    if late:
        data = data[:at] + data[at + len(chunk) : end] + chunk + data[end:]
    header = reading.open_image(tmp_path / "x.png", data=data)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert reading.exif_orientation(header, data) == 6
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "eXIf")  # the word alone is no chunk
    data = save(tmp_path / "y.png", RGB, pnginfo=text).read_bytes()
    assert reading.exif_orientation(reading.open_image(tmp_path / "y.png", data=data), data) == 1


def test_an_orientation_that_is_no_number_is_none(tmp_path):
    tag = struct.pack("<HHIf", reading.ORIENTATION, 11, 1, float("inf"))  # type 11: float
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + tag + b"\0\0\0\0"
    path = save(tmp_path / "x.jpg", RGB, exif=b"Exif\0\0" + tiff)
    assert read_image(path).shape == RGB.shape


def test_a_png_of_many_chunks_is_searched_for_exif_once(tmp_path):
    class Counted(bytes):
        searches = 0

        def __contains__(self, word):
            Counted.searches += 1
            return super().__contains__(word)

    data = save(tmp_path / "x.png", RGB).read_bytes()
    chunk = b"\0\0\0\4abCdeXIf" + zlib.crc32(b"abCdeXIf").to_bytes(4, "big")
    data = Counted(data[:33] + chunk * 100 + data[33:])
    header = reading.open_image(tmp_path / "x.png", data=data)
    assert reading.exif_orientation(header, data) == 1 and Counted.searches == 1
