"""How far two sets of images are apart, to the encoder that is to be transferred: KID, with what chance alone gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segraft.evaluation.predict import network_input
from segraft.progress import progress

if TYPE_CHECKING:
    from segraft.checkpoint import ModelCard
    from segraft.data.packed import PackedSplit

Features = NDArray[np.float64]
SAMPLE = 64
"""Most images of either set."""
LONGEST = 512
"""Longer images are scaled down to this, pixels."""
PERMUTATIONS = 500
LEVEL = 0.95


def domain_distance(
    encoder: nn.Module, card: ModelCard, source: PackedSplit, target: PackedSplit, seed: int
) -> tuple[float, float]:
    """KID between two splits, and the value that chance alone stays below in 95 % of cases.

    Args:
        encoder: (N, 3, H, W) → feature maps, the deepest last.
        card: the model's card, for the preprocessing.
        source: at least two images.
        target: at least two images.
        seed: decides which images are taken, and the permutations.
    """
    rng = np.random.default_rng(seed)
    ours = features(encoder, card, _sample(target, rng), "target")
    theirs = features(encoder, card, _sample(source, rng), "source")
    return kid(theirs, ours, rng)


def _sample(split: PackedSplit, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    chosen = np.sort(rng.choice(len(split), min(len(split), SAMPLE), replace=False))
    return [split[int(i)].image for i in chosen]


@torch.inference_mode()
def features(encoder: nn.Module, card: ModelCard, images: Sequence[NDArray[np.uint8]], what: str) -> Features:
    """(N, D) means over the deepest feature map of each (H, W, 3) uint8 RGB image."""
    device = next(encoder.parameters()).device
    encoder.eval()
    found = []
    for image in progress(images, f"features of the {what}"):
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        deepest = encoder(network_input(card, [small.astype(np.uint8, copy=False)], device))[-1]
        found.append(deepest.float().mean((0, 2, 3)).double().cpu().numpy())
    return np.stack(found)


def kid(first: Features, second: Features, rng: np.random.Generator) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018), and its 95th percentile under permutation (Gretton et al. 2012).

    Unlike the Fréchet distance it is unbiased, which a dozen images need. Features are scaled to unit variance first:
    figures of different encoders are then of one size.

    Args:
        first: (N, D), N ≥ 2.
        second: (M, D), M ≥ 2.
        rng: of the permutations.
    """
    every = np.concatenate([first, second])
    deviation = every.std(0)
    every = (every - every.mean(0)) / np.where(deviation > 0, deviation, 1)
    kernel = (every @ every.T / every.shape[1] + 1) ** 3
    order = np.arange(len(every))
    chance = [_mmd(kernel, rng.permutation(order), len(first)) for _ in range(PERMUTATIONS)]
    return _mmd(kernel, order, len(first)), float(np.quantile(chance, LEVEL))


def _mmd(kernel: Features, order: NDArray[np.int64], count: int) -> float:
    """Unbiased squared maximum mean discrepancy between the first `count` of an order and the others."""
    a, b = order[:count], order[count:]
    within = sum(_off_diagonal_mean(kernel[np.ix_(part, part)]) for part in (a, b))
    return float(within - 2 * kernel[np.ix_(a, b)].mean())


def _off_diagonal_mean(kernel: Features) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
