"""Learning-rate schedules, as plain functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from segraft.params import Training

RISE, FIRST, LAST = 0.3, 1 / 25, 1e-4 / 25
"""Of one_cycle, as PyTorch has them: the share of the run in which the rate rises, and the rate at either end."""
POINTS = 60
"""Most points of a planned schedule."""


def lr_factor(step: int, total: int, steps_per_epoch: int, training: Training) -> float:
    """What the peak learning rate is multiplied with at `step` (0 … total - 1).

    Warm-up comes first: linear from 1/n to 1, or constant at a tenth (Goyal et al. 2017); then the decay runs over the
    steps that are left: constant; step, `decay` every `decay_every` epochs; exponential, η·decay^t with t in epochs;
    cosine to 0 (Loshchilov & Hutter 2017); poly, (1 - t)^power (Liu et al. 2015, DeepLab); one_cycle, up over three
    tenths of the run and down to next to nothing, both as half a cosine (Smith & Topin 2018).
    """
    warmup = training.warmup_steps if training.warmup != "none" else 0
    if step < warmup:
        return 0.1 if training.warmup == "constant" else (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    epochs = (step - warmup) / steps_per_epoch
    match training.schedule:
        case "constant":
            return 1.0
        case "step":
            return float(training.decay ** (epochs // training.decay_every))
        case "exponential":
            return float(training.decay**epochs)
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "poly":
            return float((1 - done) ** training.power)
        case "one_cycle" if done < RISE:
            return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * done / RISE)) / 2
        case "one_cycle":
            return LAST + (1 - LAST) * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2


def learning_rate(group: Mapping[str, Any], step: int, total: int, steps_per_epoch: int, training: Training) -> float:
    """A group's learning rate at `step`: 0 until it starts, then the whole schedule, warm-up included, in what is left.

    Args:
        group: an optimizer group with `peak`, its highest rate, and `start`, its first step.
        step: 0 … total - 1.
        total: steps of the run.
        steps_per_epoch: steps of an epoch.
        training: the knobs.
    """
    start: int = group["start"]
    if step < start:
        return 0.0
    return float(group["peak"] * lr_factor(step - start, total - start, steps_per_epoch, training))


def planned(
    groups: Iterable[Mapping[str, Any]], total: int, steps_per_epoch: int, training: Training
) -> dict[str, list[tuple[int, float]]]:
    """Part of the model → (step, learning rate) as planned, for a chart; {} without steps."""
    every = max(1, math.ceil(total / POINTS))
    steps = sorted({*range(0, total, every), total - 1} if total else set())
    return {
        group["part"]: [(step, learning_rate(group, step, total, steps_per_epoch, training)) for step in steps]
        for group in groups
        if total
    }
