"""What can be said of each pixel, from ids and logits: the maps that answers are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.generic]
ROWS = 64
"""Rows that are worked on at once, so that the intermediate results stay in the cache."""
FILE = {"overlay": 4, "confidence": 2, "entropy": 2}
"""Bytes a pixel of an answer's file, where it may have more than one."""
TEXT, BASE64 = {"uint8": 4, "float32": 16}, 4 / 3
"""Bytes of a number in JSON at its longest, with its comma; and of a file's byte."""
SAMPLED = 4
"""Of "sample", an image's confidence: every so many-th row and column."""


def argmax(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, H, W) → (H, W) uint8; class by class, which is several times faster than NumPy's argmax along this axis."""
    best, ids = logits[0].copy(), np.zeros(logits.shape[1:], np.uint8)
    for index in range(1, len(logits)):
        better = logits[index] > best
        np.copyto(best, logits[index], where=better)
        ids[better] = index
    return ids


def confidence(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) → (H, W) float32, 1/C … 1: the softmax of the winning class (Hendrycks and Gimpel, 2017)."""
    return np.asarray(1 / np.exp(logits - logits.max(0)).sum(0), np.float32)


def entropy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) → (H, W) float32, 0 … 1: Shannon's entropy of the softmax as a share of its maximum, log C."""
    shifted = logits - logits.max(0)
    exp = np.exp(shifted)
    total = exp.sum(0)
    nats = np.log(total) - (exp * shifted).sum(0) / total
    return np.asarray(np.clip(nats / np.log(len(logits)), 0, 1), np.float32)


def top(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(C, H, W) → (k, H, W) uint8 trainIds and float32 probabilities of the k likeliest classes, likeliest first."""
    order = np.argsort(-logits, axis=0, kind="stable")[:k]
    total = np.exp(logits - logits.max(0)).sum(0)
    probabilities = np.exp(np.take_along_axis(logits, order, 0) - logits.max(0)) / total
    return order.astype(np.uint8), probabilities.astype(np.float32)


def allocate(wants: Iterable[str], classes: int, k: int, size: tuple[int, int]) -> dict[str, Map]:
    """Empty maps of an image."""
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "confidence": (size, np.float32),
        "entropy": (size, np.float32),
        "topk": ((k, *size), np.uint8),
        "topk_probability": ((k, *size), np.float32),
        "logits": ((classes, *size), np.float32),
        "sample": ((-(-size[0] // SAMPLED), -(-size[1] // SAMPLED)), np.float32),
    }
    names = [name for want in wants for name in ((want, "topk_probability") if want == "topk" else (want,))]
    return {name: np.empty(*shapes[name]) for name in names}


def bytes_a_pixel(want: str, classes: int, k: int, as_text: AbstractSet[str]) -> float:
    """Bytes that an answer takes for each pixel: its maps, and the file that is made of them.

    Args:
        want: the output.
        classes: how many the model knows.
        k: how many of them "topk" has.
        as_text: tensors and files that are written as JSON.
    """
    maps = allocate({want} & WANT_LOGITS, classes, k, (1, 1))
    if want == "ids":
        maps[want] = np.empty((1, 1), np.uint8)
    total = 0 if want in TENSORS else FILE.get(want, 1) * (BASE64 if want in as_text else 1)
    for name, values in maps.items():
        total += values.size * TEXT[str(values.dtype)] if name in as_text & TENSORS else values.nbytes
    return total


def fill(maps: dict[str, Map], top_left: tuple[int, int], logits: NDArray[np.float32]) -> None:
    """Write what a block of (C, h, w) logits says into the maps at a place."""
    (y, x), (_, height, width) = top_left, logits.shape
    if "sample" in maps:
        part = confidence(logits[:, -y % SAMPLED :: SAMPLED, -x % SAMPLED :: SAMPLED])
        row, column = -(-y // SAMPLED), -(-x // SAMPLED)
        maps["sample"][row : row + part.shape[0], column : column + part.shape[1]] = part
    for start in range(0, height, ROWS):
        block = logits[:, start : start + ROWS]
        place = (..., slice(y + start, y + start + block.shape[1]), slice(x, x + width))
        for name, compute in SIMPLE.items():
            if name in maps:
                maps[name][place] = compute(block)
        if "topk" in maps:
            ids, probabilities = top(block, len(maps["topk"]))
            maps["topk"][place], maps["topk_probability"][place] = ids, probabilities


SIMPLE: dict[str, Callable[[NDArray[np.float32]], Map]] = {
    "confidence": confidence,
    "entropy": entropy,
    "logits": lambda logits: logits,
}
TENSORS = {"ids", "topk", "topk_probability", "logits"}
"""Answers that are maps themselves; the others are files."""
WANT_LOGITS = {"confidence", "entropy", "topk", "logits"}
"""Answers that need more than ids."""
