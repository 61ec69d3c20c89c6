"""Pixel-wise cross-entropy with an ignored class, and its class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def class_weights(
    class_pixels: Sequence[int], kind: Literal["none", "median_frequency", "inverse_sqrt"]
) -> Tensor | None:
    """(classes,) float32 weights whose mean over the pixels is 1; None for none.

    median_frequency: median(f) / f, f a class's share of the pixels (Eigen & Fergus 2015); inverse_sqrt: 1 / √f, a
    milder form. Weights are at most ten times the smallest of a class that occurs, for a class of a few pixels would
    otherwise set the gradient; classes that do not occur weigh 1.
    """
    if kind == "none":
        return None
    pixels = torch.tensor(class_pixels, dtype=torch.float64)
    share = pixels / pixels.sum()
    present = share > 0
    weights = torch.ones_like(share)
    raw = share[present] ** -0.5 if kind == "inverse_sqrt" else share[present].median() / share[present]
    raw = raw.clamp(max=10 * float(raw.min()))
    weights[present] = raw / (raw * share[present]).sum()
    return weights.float()


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    """Mean over the pixels that are not ignored; 0, with a gradient of 0, if all are.

    Args:
        logits: (N, C, H, W), any float dtype; the loss is computed in float32.
        masks: (N, H, W) int64 trainIds or ignore_index.
        weights: (C,) or None. The weighted sum is divided by the number of pixels, not by their weights, so that a crop
            of common classes does not count as much as one of rare ones.
        ignore_index: pixels with it add nothing.
    """
    total = functional.cross_entropy(logits.float(), masks, weights, ignore_index=ignore_index, reduction="sum")
    return total / (masks != ignore_index).sum().clamp(min=1)
