"""Every score as a pure function of the confusion matrix; docs/metrics.md states the one averaging rule.

The rule: sum the confusion matrices of all images, then score each class, then average over the classes that the labels
show. A class without a labelled pixel has no score (NaN) and is in no mean. Ignored pixels count nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
"""(…, 3, C): right, labelled and predicted pixels of each class; leading axes are images or resamples."""


def counts(matrix: NDArray[np.int64]) -> Counts:
    """What is left of a (…, C, C) matrix when the kinds of confusion do not matter: (…, 3, C)."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([right, matrix.sum(-1), matrix.sum(-2)], axis=-2)


def iou(matrix: NDArray[np.int64]) -> Floats:
    """Intersection over union (Jaccard index) of each class: (…, C) in 0…1, NaN where the label has none."""
    return iou_of_counts(counts(matrix))


def iou_of_counts(of: NDArray[np.int64] | Floats) -> Floats:
    """`iou` from (…, 3, C) counts."""
    right, labelled, predicted = np.moveaxis(of, -2, 0)
    return _ratio(right, labelled + predicted - right, labelled > 0)


def miou(matrix: NDArray[np.int64]) -> Floats:
    """Mean IoU over the classes that the label shows: (…) in 0…1, NaN if it shows none."""
    return mean(iou(matrix))


def dice(matrix: NDArray[np.int64]) -> Floats:
    """Dice coefficient (F1) of each class: (…, C) in 0…1, NaN where the label has none."""
    right, labelled, predicted = np.moveaxis(counts(matrix), -2, 0)
    return _ratio(2 * right, labelled + predicted, labelled > 0)


def accuracy(matrix: NDArray[np.int64]) -> Floats:
    """Recall of each class: (…, C) in 0…1, NaN where the label has none."""
    right, labelled, _ = np.moveaxis(counts(matrix), -2, 0)
    return _ratio(right, labelled, labelled > 0)


def mean_accuracy(matrix: NDArray[np.int64]) -> Floats:
    """Mean of `accuracy` over the classes that the label shows."""
    return mean(accuracy(matrix))


def pixel_accuracy(matrix: NDArray[np.int64]) -> Floats:
    """Share of the labelled pixels that are right: (…) in 0…1, NaN without any."""
    right, labelled, _ = np.moveaxis(counts(matrix), -2, 0).sum(-1)
    return _ratio(right, labelled, labelled > 0)


def mean(scores: Floats) -> Floats:
    """Mean over the last axis without the NaN; NaN where there is nothing else."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(-1)
    return _ratio(total, known.sum(-1), known.any(-1))


def _ratio(part: ArrayLike, whole: ArrayLike, where: Any) -> Floats:
    out: Floats = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=out, where=where)
    return out
