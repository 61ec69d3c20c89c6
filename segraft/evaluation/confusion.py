"""Streaming confusion matrix: all that the scores need to know of any number of images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.uint8]
Matrix = NDArray[np.int64]
"""(C, C): pixels by label (row) and prediction (column)."""

CHUNK = 1 << 24
"""OpenCV returns float32 counts, which are exact up to here."""


def confusion(label: Masks, prediction: Masks, classes: int, ignore_index: int = 255) -> Matrix:
    """Count the pixels of each pair of label and prediction.

    Args:
        label: (…, H, W) uint8 trainIds; pixels of `ignore_index` are left out, whatever was predicted there.
        prediction: uint8 trainIds of the same shape.
        classes: number of classes C.
        ignore_index: the label of pixels that are neither right nor wrong.

    Returns:
        (C, C) int64; row = label, column = prediction.

    Raises:
        ValueError: shapes or dtypes differ from the above, or a counted pixel holds a value that is no class.
    """
    if label.shape != prediction.shape or label.dtype != np.uint8 or prediction.dtype != np.uint8:
        found = f"{label.dtype} {label.shape} and {prediction.dtype} {prediction.shape}"
        raise ValueError(f"label and prediction: found {found}, expected uint8 of one shape")
    pairs = label.reshape(-1), prediction.reshape(-1)
    matrix = np.zeros((classes, classes), np.int64)
    for start in range(0, label.size, CHUNK):
        chunk = [flat[start : start + CHUNK] for flat in pairs]
        matrix += cv2.calcHist(chunk, [0, 1], None, [classes, classes], [0, classes, 0, classes]).astype(np.int64)
    if ignore_index < classes:
        matrix[ignore_index] = 0
    if matrix.sum() != label.size - np.count_nonzero(label == ignore_index):
        _explain(label, prediction, classes, ignore_index)
    return matrix


def _explain(label: Masks, prediction: Masks, classes: int, ignore_index: int) -> None:
    counted = label != ignore_index
    for name, values in (("label", label[counted]), ("prediction", prediction[counted])):
        strange = np.unique(values[values >= classes]).tolist()
        if strange:
            raise ValueError(f"{name}: found {strange}, expected trainIds below {classes} or {ignore_index}")
    raise AssertionError("pixels were lost although every value is a class")


class ConfusionMatrix:
    """A confusion matrix that grows batch by batch; memory does not depend on how much it has seen.

    Args:
        classes: number of classes C.
        ignore_index: the label of pixels that count nowhere.
    """

    def __init__(self, classes: int, ignore_index: int = 255) -> None:
        self.classes, self.ignore_index = classes, ignore_index
        self.matrix: Matrix = np.zeros((classes, classes), np.int64)

    def update(self, label: Masks, prediction: Masks) -> None:
        """Add (…, H, W) uint8 trainIds; see `confusion` for the errors."""
        self.matrix += confusion(label, prediction, self.classes, self.ignore_index)
