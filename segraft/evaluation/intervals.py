"""Bootstrap intervals: how much a score hangs on which images happen to be in the split (Efron 1979)."""

from __future__ import annotations

import numpy as np

from segraft.evaluation.scores import Counts, Floats, iou_of_counts, mean

RESAMPLES, AT_ONCE = 2000, 100
LEAST = 5
"""Images below which resamples say nothing: those of one image are all alike."""
SEED = 20210317
"""Fixed, so that two models scored apart see the same resamples and the same scores give the same interval."""

Interval = tuple[float, float]


def resampled_miou(counts: Counts) -> Floats:
    """Mean IoU of each of `RESAMPLES` splits drawn, with replacement, from the images of one.

    Args:
        counts: (N, 3, C) of the N images.

    Returns:
        (RESAMPLES,) in 0…1. It depends on N and the counts alone: the i-th values of two models are of the same images,
        so that their difference is a paired one.
    """
    images, rng = len(counts), np.random.default_rng(SEED)
    pixels = counts.reshape(images, -1).astype(np.float64)
    totals = [  # exact below 2^53 pixels
        rng.multinomial(images, np.full(images, 1 / images), size=AT_ONCE) @ pixels for _ in range(RESAMPLES // AT_ONCE)
    ]
    return mean(iou_of_counts(np.concatenate(totals).reshape(RESAMPLES, *counts.shape[1:])))


def interval(samples: Floats, level: float = 0.95) -> Interval:
    """The percentile interval that holds `level` of the samples, NaN left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return float(low), float(high)
