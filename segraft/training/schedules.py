"""Learning-rate schedules, as plain functions of the step."""

from __future__ import annotations

import math

from segraft.params import Training


def lr_factor(step: int, total: int, steps_per_epoch: int, training: Training) -> float:
    """What the peak learning rate is multiplied with at `step` (0 … total - 1).

    Warm-up comes first: linear from 1/n to 1, or constant at a tenth (Goyal et al. 2017); then the decay runs over the
    steps that are left: constant; step, `decay` every `decay_every` epochs; exponential, η·decay^t with t in epochs;
    cosine to 0 (Loshchilov & Hutter 2017); poly, (1 - t)^power (Liu et al. 2015, DeepLab).
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
