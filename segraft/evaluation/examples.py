"""The images that a reader should see: where the model does best, where it does worst, and what is wrong there."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.packed import Packed, PackedDataset
from segraft.evaluation.predict import Predictor
from segraft.evaluation.run import Scores

Pixels = NDArray[np.uint8]
WIDTH = 512
"""Widest picture, pixels."""
WRONG = (255, 45, 60)


@dataclass(frozen=True)
class Example:
    """One image of the split with what each model made of it."""

    kind: Literal["best", "worst"]
    sample: Packed
    miou: Mapping[str, float]
    """model → mean IoU of this image alone"""
    predictions: Mapping[str, Pixels]
    """model → (H, W) uint8 trainIds"""


def choose(image_miou: NDArray[np.float64], count: int) -> dict[Literal["best", "worst"], list[int]]:
    """Indices of the `count` best images, best first, and of the `count` worst, worst first; none is in both lists.

    Images without a labelled pixel (NaN) are left out.
    """
    order = [int(i) for i in np.argsort(image_miou, kind="stable") if not np.isnan(image_miou[i])]
    count = min(count, (len(order) + 1) // 2)
    worst = order[:count]
    return {"best": [i for i in order[::-1][:count] if i not in worst], "worst": worst}


def examples(
    packed: PackedDataset, scores: Mapping[str, Scores], predictors: Mapping[str, Predictor], count: int
) -> list[Example]:
    """The best and the worst images of the last model in `scores`, predicted once more by every model.

    Args:
        packed: the packed dataset.
        scores: model → its scores, all on one split.
        predictors: model → what gave them.
        count: how many of each kind.
    """
    last = list(scores.values())[-1]
    kinds = {index: kind for kind, indices in choose(last.image_miou, count).items() for index in indices}
    split = packed.split(last.split)
    samples = [split[index] for index in kinds]
    masks = {model: [predictor([s.image])[0] for s in samples] for model, predictor in predictors.items()}
    return [
        Example(
            kind,
            sample,
            {model: float(scores[model].image_miou[index]) for model in scores},
            {model: masks[model][place] for model in scores},
        )
        for place, (sample, (index, kind)) in enumerate(zip(samples, kinds.items(), strict=True))
    ]


def colored(mask: Pixels, colors: Sequence[tuple[int, int, int]]) -> Pixels:
    """(H, W, 3) uint8 RGB of trainIds in their classes' colours; ignored pixels are black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    return palette[mask]


def errors(sample: Packed, prediction: Pixels, ignore_index: int) -> Pixels:
    """(H, W, 3) uint8 RGB: the image in grey, wrong pixels in red, ignored ones dark."""
    grey = cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey // 2 + 64)[..., None], 3, axis=2)
    ignored = sample.mask == ignore_index
    wrong = (sample.mask != prediction) & ~ignored
    picture[ignored] //= 3
    picture[wrong] = picture[wrong] // 3 + (np.array(WRONG) * 2 // 3).astype(np.uint8)
    return picture


def encoded(picture: Pixels, kind: Literal["jpeg", "png"], limit: int = WIDTH) -> bytes:
    """A file of the picture, at most `limit` pixels wide; png for flat colours, which must not blend."""
    height, width = picture.shape[:2]
    if width > limit:
        how = cv2.INTER_AREA if kind == "jpeg" else cv2.INTER_NEAREST
        picture = cv2.resize(picture, (limit, max(1, round(height * limit / width))), interpolation=how)
    options = [cv2.IMWRITE_JPEG_QUALITY, 82] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, data = cv2.imencode(f".{kind}", picture[..., ::-1], options)
    assert done
    return bytes(data)


def data_uri(picture: Pixels, kind: Literal["jpeg", "png"]) -> str:
    """The picture as an address that loads nothing."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded(picture, kind)).decode()}"
