"""Answers: what a client reads of one image, made from its maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from segraft.checkpoint import ModelCard
from segraft.params import ServeLimits
from segraft.serving.asks import Ask, Options, OutputName
from segraft.serving.errors import Refused
from segraft.serving.fields import Map, bytes_a_pixel
from segraft.serving.images import Pixels
from segraft.serving.polygons import geojson

PNG_LEVEL = 2
"""zlib-ng's: on masks as fast as its first level, at half the size."""
RUNS = 2_000_000
"""Of one answer in run lengths; each takes about fifty bytes while they are made."""
COLUMNS = 256
"""Columns in which runs are looked for at once."""
EXACT = 1 << 24
"""Pixels that OpenCV counts exactly, in float32."""


@dataclass(frozen=True)
class Answer:
    """One output of one image: a tensor, or a file.

    Attributes:
        name: of the output.
        media: content type of the file; empty for a tensor.
        value: a tensor, or the file.
    """

    name: str
    media: str
    value: Map | bytes


@dataclass(frozen=True)
class Segmented:
    """One image and what the model says of it, in the orientation in which the client's file stores it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        maps: "ids" (H, W) uint8 trainIds, and what else was wanted: see `segraft.serving.fields`.
    """

    image: Pixels
    maps: Mapping[str, Map]

    @property
    def ids(self) -> NDArray[np.uint8]:
        """(H, W) uint8 trainIds."""
        return np.asarray(self.maps["ids"], np.uint8)


def answer(name: OutputName, of: Segmented, card: ModelCard, options: Options) -> tuple[Answer, ...]:
    """The answers that an output's name stands for: one; of "topk" two.

    Raises:
        Refused: it would be too large.
    """
    if name == "topk":
        return Answer("topk", "", of.maps["topk"]), Answer("topk_probability", "", of.maps["topk_probability"])
    if name in ("ids", "logits"):
        return (Answer(name, "", of.maps[name]),)
    media, make = FILES[name]
    return (Answer(name, media, make(of, card, options)),)


def check_answer_size(ask: Ask, pixels: int, classes: int, limits: ServeLimits) -> None:
    """Refuse a request whose answers, of so many pixels, would hold more bytes than a server is to keep in memory.

    Raises:
        Refused: they would.
    """
    options = ask.options
    k = min(options.k, classes)
    each = sum(bytes_a_pixel(name, classes, k, ask.as_text) for name in options.outputs)
    if each * pixels > limits.answer_mb << 20:
        wanted = ", ".join(options.outputs)
        raise Refused(413, f"parameters.outputs: {wanted} of {pixels:,} pixels are more than {limits.answer_mb} MiB")


def palette_png(ids: NDArray[np.uint8], card: ModelCard) -> bytes:
    """(H, W) trainIds as an 8-bit palette PNG: its values are the ids, its colours are the classes'."""
    image = Image.fromarray(ids)
    image.putpalette(_palette(card).ravel().tolist())
    return _save(image, compress_level=PNG_LEVEL)


def overlay(of: Segmented, card: ModelCard, options: Options) -> bytes:
    """The image with the classes' colours over it, as a PNG."""
    colors = _palette(card)[of.ids]
    blended = cv2.addWeighted(colors, options.alpha, of.image, 1 - options.alpha, 0)
    done, png = cv2.imencode(".png", blended[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return png.tobytes()


def run_lengths(ids: NDArray[np.uint8], card: ModelCard) -> dict[str, Any]:
    """COCO's uncompressed RLE of each class that is there: column by column, runs of 0 and of 1 in turn, 0 first.

    `pycocotools.mask.frPyObjects(segmentation, *size)` reads a segmentation. (Lin et al., Microsoft COCO, 2014)
    Counts are arrays, for `_json`.

    Raises:
        Refused: more than `RUNS`.
    """
    ends = _run_ends(ids)
    values, starts = ids.T[np.divmod(ends - 1, len(ids))], np.concatenate(([0], ends[:-1]))
    shapes = []
    for index in np.unique(values).tolist():
        own = values == index
        edges = np.stack([starts[own], ends[own]], 1).ravel()
        counts = np.diff(edges, prepend=0, append=ids.size)
        size = list(ids.shape)
        counts = counts[:-1] if counts[-1] == 0 else counts
        shapes.append({"id": index, "class": card.classes[index].name, "size": size, "counts": counts})
    return {"size": list(ids.shape), "segmentations": shapes}


def _run_ends(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where runs of one class end, column by column; found in some columns at once, so that memory goes with the runs.

    Raises:
        Refused: more than `RUNS`.
    """
    height, found, count = len(ids), [], 0
    for left in range(0, ids.shape[1], COLUMNS):
        flat = ids[:, left : left + COLUMNS + 1].ravel(order="F")[: COLUMNS * height + 1]  # and the next column's first
        found.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1 + left * height)
        count += len(found[-1])
        if count > RUNS:
            raise Refused(413, f"outputs: rle: more than {RUNS:,} runs; ask for mask")
    return np.append(np.concatenate(found), ids.size)


def areas(ids: NDArray[np.uint8], card: ModelCard) -> dict[str, Any]:
    """Pixels and share of each class."""
    pixels = count_pixels(ids, len(card.classes)).tolist()
    classes = [
        {"id": index, "class": c.name, "pixels": n, "share": n / ids.size}
        for index, (c, n) in enumerate(zip(card.classes, pixels, strict=True))
    ]
    return {"pixels": ids.size, "classes": classes}


def count_pixels(ids: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(classes,) pixels of each class."""
    flat, counts = ids.reshape(-1), np.zeros(256, np.int64)
    for start in range(0, flat.size, EXACT):
        counts += cv2.calcHist([flat[start : start + EXACT]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts[:classes]


def grey_png(values: Map) -> bytes:
    """(H, W) float32 from 0 to 1 as an 8-bit grey PNG, 255 for 1."""
    return _save(Image.fromarray(np.rint(np.asarray(values, np.float32) * 255).astype(np.uint8)), compress_level=1)


def _palette(card: ModelCard) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(card.classes)] = [c.color for c in card.classes]
    return palette


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _save(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **how)
    return file.getvalue()


Make = Callable[[Segmented, ModelCard, Options], bytes]
FILES: dict[str, tuple[str, Make]] = {
    "mask": ("image/png", lambda of, card, _: palette_png(of.ids, card)),
    "overlay": ("image/png", overlay),
    "confidence": ("image/png", lambda of, _card, _options: grey_png(of.maps["confidence"])),
    "entropy": ("image/png", lambda of, _card, _options: grey_png(of.maps["entropy"])),
    "rle": ("application/json", lambda of, card, _: _json(run_lengths(of.ids, card))),
    "area": ("application/json", lambda of, card, _: _json(areas(of.ids, card))),
    "polygons": (
        "application/geo+json",
        lambda of, card, options: _json(geojson(of.ids, card.classes, options.simplify, options.min_area)),
    ),
}
