"""Optimizers, and their state as plain tensors for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segraft.params import Training
from segraft.training.checkpoints import Tensors
from segraft.training.sharding import is_shared, spread_one


def make_optimizer(groups: Sequence[dict[str, Any]], training: Training) -> torch.optim.Optimizer:
    """The optimizer of the section, in its fused form; `groups` as `Layers` makes them."""
    match training.optimizer:
        case "sgd":
            momentum = training.momentum
            whole = not any(is_shared(parameter) for group in groups for parameter in group["params"])
            # torch 2.13 has no fused SGD of DTensors
            return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=whole or None)
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)


def flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameter number and name of a value → that value; scalars too are tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": torch.as_tensor(v) for i, entry in state.items() for name, v in entry.items() if v is not None
    }


def load_flat_state(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Undo `flat_state`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        # Fused optimizers walk raw memory: the state must lie in memory as its parameter does (channels_last).
        laid = torch.empty_like(like).copy_(spread_one(tensor, like)) if tensor.shape == like.shape else tensor
        state.setdefault(int(index), {})[name] = laid
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
