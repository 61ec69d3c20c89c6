"""L2-SP: weight decay towards the pretrained weights rather than towards 0."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


class StartingPoint:
    """Pulls parameters back to where they are now (Li et al. 2018), by ½ · strength · |w - w₀|².

    The pull is decoupled from the gradient, as AdamW's decay is (Loshchilov & Hutter 2019): an adaptive optimizer would
    otherwise divide it by the gradient's size.

    Args:
        model: its parameters as they are now are w₀.
        strength: α of the paper.
        names: the parameters that are pulled: those that came from the pretrained model.
    """

    def __init__(self, model: nn.Module, strength: float, names: Collection[str]) -> None:
        self._strength = strength
        self._start = {p: p.detach().clone() for name, p in model.named_parameters() if name in names}

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step: w ← w - lr · strength · (w - w₀)."""
        for group in optimizer.param_groups:
            moved = [p for p in group["params"] if p in self._start and p.requires_grad]
            share = min(1.0, group["lr"] * self._strength)
            if moved:
                torch._foreach_lerp_(moved, [self._start[p] for p in moved], share)
