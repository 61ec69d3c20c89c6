"""How high a learning rate: a range test, repeated, that measures each step against the untouched network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segraft.params import Training
from segraft.planning.machine import Make

RANGES = 3
"""Repetitions, each with its own batches; the median of three outvotes one that went astray."""
A_DECADE = 10
"""Steps while the rate grows tenfold."""
BEYOND = 10
"""The rate grows to so many times the highest that may be chosen: the loss has to be seen rising again."""
REACH = 4
"""Steps to either side that smoothing looks at."""
DIVERGED = 1.25
"""Once the smoothed loss is so many times its lowest, the network is lost and later steps say nothing."""
FALL = 0.05
"""The smoothed loss must fall by this share below the untouched network's, or the test has shown nothing."""
Optimizer = Literal["sgd", "adam", "adamw"]
BOUNDS: Mapping[Optimizer, tuple[float, float]] = {
    "adam": (1e-4, 1e-2),
    "adamw": (1e-4, 1e-2),
    "sgd": (1e-3, 1e-1),
}
"""Lowest and highest rate that may be chosen. A step of Adam moves each weight by about the rate, whatever the gradient
(Kingma & Ba 2015): above 0.01 that is as much as most weights are large, below 0.0001 a run of 500 steps cannot change
them by more than half of that. SGD's hold what DeepLab, PSPNet, HRNet and BiT were trained with, with room around."""
SHARES: Mapping[Optimizer, float] = {"adam": 0.75, "adamw": 0.75, "sgd": 0.1}
"""The rate that is chosen, of that at which the loss was lowest. Adam's steps do not grow with the gradient: it goes on
learning close to that rate, and the peak of a schedule that falls to nothing is twice what a run learns at on average.
On the embedded streets and on CamVid at dusk, with 100 and with 500 steps, a half or less was too little
(docs/results-dusk.md). SGD diverges at a rate below it, and takes some steps to show that: a tenth (Howard & Gugger
2020)."""
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """A learning-rate range test."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """relative to the untouched network on the same batches: the median of the repetitions, smoothed"""
    lowest: float | None
    """rate at the lowest loss; None if it did not fall"""
    chosen: float | None
    """`share` of it, within the optimizer's bounds; None if the loss did not fall"""
    share: float
    """of `SHARES`"""

    @property
    def why(self) -> str:
        """In words."""
        if self.lowest is None or self.chosen is None:
            return "kept: the loss did not fall while the rate rose"
        said = f"as the rate rose, the loss was lowest at {self.lowest:.2g}; {self.share:g} of it"
        return said if self.chosen == self.share * self.lowest else f"{said} is beyond what suits the optimizer"


def range_test(make: Make, training: Training) -> Range:
    """The learning-rate range test (Smith 2017): the rate grows with each step, and the loss is watched.

    A pretrained network's losses differ more from batch to batch than a few steps can change them. So the loss of each
    step is divided by that of the untouched network on the same batch, and all of it is done `RANGES` times. The
    rate is that of decoder and head; the encoder's follows by its factor.
    """
    low, high = BOUNDS[training.optimizer]
    decades = round(math.log10(BEYOND * high / low))
    rates = np.geomspace(low, BEYOND * high, decades * A_DECADE + 1).tolist()
    ratios = []
    for seed in range(training.seed, training.seed + RANGES):
        knobs = training.model_copy(update={"seed": seed})
        untouched = make(knobs, len(rates)).losses_untouched(len(rates), "losses before training")
        factors = [rate / training.lr for rate in rates]
        losses = make(knobs, len(rates)).losses_at(factors, "find the learning rate")
        ratios.append([loss / max(before, 1e-9) for loss, before in zip(losses, untouched, strict=False)])
    return read_range(rates, ratios, (low, high), SHARES[training.optimizer])


def read_range(
    rates: Sequence[float], ratios: Sequence[Sequence[float]], bounds: tuple[float, float], share: float
) -> Range:
    """What a range test says.

    Args:
        rates: learning rate of each step, rising by a constant factor.
        ratios: of each repetition and step, the loss over the untouched network's; the last of a repetition may be no
            number, and some may be missing: it diverged.
        bounds: lowest and highest rate to choose.
        share: what to choose of the rate at the lowest loss.
    """
    curve = _smooth(_median(ratios, len(rates)))
    curve = curve[: _end(curve)]
    shown, losses = tuple(rates[: len(curve)]), tuple(np.exp(curve).tolist())
    bottom = int(curve.argmin()) if len(curve) else 0
    if not bottom or losses[bottom] > 1 - FALL:
        return Range(shown, losses, None, None, share)
    chosen = float(np.clip(share * rates[bottom], *bounds))
    return Range(shown, losses, rates[bottom], chosen, share)


def _median(ratios: Sequence[Sequence[float]], steps: int) -> Curve:
    """Logarithm of the median over repetitions, as far as it is a number."""
    table = np.full((len(ratios), steps), np.inf)
    for row, values in zip(table, ratios, strict=True):
        row[: len(values)] = np.where(np.isfinite(values), values, np.inf)
    middle: Curve = np.median(table, axis=0)
    finite = np.isfinite(middle)
    known = middle[: len(middle) if finite.all() else int(finite.argmin())]
    return np.log(np.maximum(known, 1e-9))


def _smooth(curve: Curve) -> Curve:
    """Means weighted by a triangle, of what there is of it at either end."""
    if not len(curve):
        return curve
    kernel = np.bartlett(2 * REACH + 3)[1:-1]
    weights = np.convolve(np.ones(len(curve)), kernel)[REACH : REACH + len(curve)]
    smoothed: Curve = np.convolve(curve, kernel)[REACH : REACH + len(curve)] / weights
    return smoothed


def _end(curve: Curve) -> int:
    """Steps before the loss has risen for good."""
    lost = curve > np.minimum.accumulate(curve) + np.log(DIVERGED) if len(curve) else curve
    return int(lost.argmax()) if lost.any() else len(curve)
