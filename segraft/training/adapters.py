"""LoRA: an encoder learns by low-rank updates of its linear layers (Hu et al. 2022).

It rests on torch's parametrizations: `peft` is made for language models, and its import costs nine CPU-seconds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segraft.errors import UserError

SCALE = 2.0
"""What the update is multiplied with: the α / rank of the paper, at its usual value."""


class LowRank(nn.Module):
    """W → W + scale · B A, with B = 0 at first, so that training starts from W."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        self.down = nn.Parameter(torch.empty(rank, into, device=weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) from (out, in)."""
        return weight + SCALE * (self.up @ self.down)


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Freeze the encoder but for low-rank updates of its linear layers.

    Raises:
        UserError: the encoder has no linear layers.
    """
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError("lora_rank: this encoder has no linear layers to update; say lora_rank: 0")
    encoder.requires_grad_(False)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def merge_lora(model: nn.Module) -> None:
    """Add the updates to the weights: the model is a plain one again."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
