"""Large images in overlapping windows, blended: memory is a window's, and each pixel is seen near a window's middle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def windowed(forward: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int]) -> Tensor:
    """Logits of images that are larger than what the network sees at once.

    Windows overlap by half; where they do, logits are averaged with weights that fall towards a window's border.

    Args:
        forward: (N, 3, h, w) → (N, C, h, w).
        images: (N, 3, H, W).
        window: largest h and w.

    Returns:
        (N, C, H, W), float32 if there is more than one window.
    """
    height, width = (min(side, limit) for side, limit in zip(images.shape[-2:], window, strict=True))
    tops, lefts = starts(images.shape[-2], height), starts(images.shape[-1], width)
    if len(tops) == len(lefts) == 1:
        return forward(images)
    weight = _hat(height, images.device)[:, None] * _hat(width, images.device)
    total = weights = torch.zeros((), device=images.device)
    for top in tops:
        for left in lefts:
            part = (..., slice(top, top + height), slice(left, left + width))
            logits = forward(images[part]).float()
            if not total.ndim:
                total = logits.new_zeros((*logits.shape[:2], *images.shape[-2:]))
                weights = total.new_zeros(images.shape[-2:])
            total[part] += logits * weight
            weights[part] += weight
    return total / weights


def starts(length: int, size: int) -> list[int]:
    """Where windows of `size` begin so that they cover `length`, each overlapping the next by half or more."""
    step = max(1, size // 2)
    return sorted({min(at, length - size) for at in range(0, length - size + step, step)})


def _hat(size: int, device: torch.device) -> Tensor:
    """(size,) weights: 1 in the middle, falling to little at the ends, never 0."""
    middle = (size - 1) / 2
    return 1 - (torch.arange(size, device=device) - middle).abs() / (middle + 1)
