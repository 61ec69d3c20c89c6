"""Comparing rungs: paired bootstrap intervals over images and seeds, a verdict, and what more labels would buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segraft.evaluation.intervals import LEAST, RESAMPLES, SEED, Interval, interval, resampled_miou
from segraft.evaluation.scores import Counts, Floats

Verdict = Literal["helped", "no difference", "negative transfer", "too few images"]
GOOD = 0.8
"""R² below which a power law is called a bad fit."""
LEAST_POINTS = 3


@dataclass(frozen=True)
class Score:
    """A mean over seeds and its 95 % interval, mIoU in 0…1."""

    mean: float
    interval: Interval


@dataclass(frozen=True)
class PowerLaw:
    """1 - mIoU = a · labels^-b (Hestness et al. 2017), fitted to the mean over seeds."""

    a: float
    b: float
    r2: float
    good: bool
    why: str
    """what speaks for or against the fit"""
    predictions: Mapping[int, Score]
    """labelled images → mIoU to expect; empty if the fit is bad"""


def resampled(seeds: Sequence[Counts]) -> Floats:
    """Mean mIoU over seeds, for each of `RESAMPLES` draws of images and of seeds.

    Args:
        seeds: (N, 3, C) of the same N images for each seed.

    Returns:
        (RESAMPLES,). The draws depend on the numbers of images and seeds alone: the i-th values of two rungs are of the
        same images and the same seeds, so that their difference is a paired one.
    """
    values = np.stack([resampled_miou(counts) for counts in seeds])
    draws = np.random.default_rng([SEED, 1]).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES)
    averaged: Floats = (draws.T * values).sum(0) / len(seeds)
    return averaged


def score_of(samples: Floats, value: float) -> Score:
    """A value with the interval of its resamples."""
    return Score(value, interval(samples))


def verdict(difference: Interval, images: int) -> Verdict:
    """What the interval of (with source - without) says: one that leaves 0 out, and is of more than a few images."""
    if images < LEAST:
        return "too few images"
    low, high = difference
    return "helped" if low > 0 else "negative transfer" if high < 0 else "no difference"


def power_law(labels: Sequence[int], means: Sequence[float], samples: Sequence[Floats], ask: Sequence[int]) -> PowerLaw:
    """Fit error against labels on logarithmic scales, and extrapolate.

    Args:
        labels: labelled images of each budget, rising.
        means: mean mIoU at each.
        samples: its (RESAMPLES,) resamples, paired over the budgets.
        ask: numbers of labelled images to predict.
    """
    if len(set(labels)) < LEAST_POINTS:
        return PowerLaw(0, 0, 0, False, f"{len(set(labels))} label budgets; a power law needs {LEAST_POINTS}", {})
    x, y = np.log(labels), _log_error(np.array(means))
    slope, offset = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - float(((y - slope * x - offset) ** 2).sum()) / spread if spread else 0.0
    slopes, offsets = np.polyfit(x, _log_error(np.stack(samples)), 1)
    low, high = interval(-slopes)
    why = f"R² {r2:.2f}, exponent {-slope:.2f} ({low:.2f} to {high:.2f})"
    good = bool(r2 >= GOOD and low > 0)
    if not good:
        why += ": more labels did not lower the error by a power law; do not extrapolate"
    far = {
        n: score_of(1 - np.exp(offsets + slopes * np.log(n)), float(1 - np.exp(offset + slope * np.log(n))))
        for n in ask
    }
    return PowerLaw(float(np.exp(offset)), float(-slope), r2, good, why, far if good else {})


def _log_error(miou: Floats) -> Floats:
    return np.log(np.maximum(1 - miou, 1e-6))
