"""Networks whose layers are narrower than their builder makes them, as channel pruning leaves them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segraft.errors import UserError
from segraft.training.transfer import HEAD

Widths = dict[str, int]
"""module → output channels"""


def widths(network: nn.Module) -> Widths:
    """Output channels of every convolution."""
    return {name: module.out_channels for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def fit_widths(network: nn.Module, state: Mapping[str, Tensor], said: Mapping[str, int]) -> None:
    """Give the convolutions and BatchNorms of a freshly built network the shapes of the tensors of `state`.

    Args:
        network: changed in place; it may have other classes. What is resized is drawn anew, as torch does.
        state: a state dict.
        said: the widths that the model's card names: every other layer must stay as it was built.

    Raises:
        UserError: `state` has other widths than the card names.
    """
    before = widths(network)
    for name, module in network.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            continue
        out = len(module.weight if name.startswith(HEAD) else weight)
        shape = torch.Size((out, *weight.shape[1:]))
        if shape == module.weight.shape:
            continue
        if isinstance(module, nn.Conv2d):
            _resize_convolution(module, shape)
        else:
            _resize_norm(module, out)
    found = {name: width for name, width in widths(network).items() if width != before[name]}
    if found != dict(said):
        strange = sorted(set(found.items()) ^ set(said.items()))[:4]
        raise UserError(
            f"model.json: channels: not those of the weights; they differ at {strange}; make the model again"
        )


def _resize_convolution(conv: nn.Conv2d, shape: torch.Size) -> None:
    depthwise = conv.groups == conv.in_channels > 1
    conv.groups = shape[0] if depthwise else conv.groups
    conv.out_channels, conv.in_channels = shape[0], shape[1] * conv.groups
    conv.weight = nn.Parameter(torch.empty(shape))
    if conv.bias is not None:
        conv.bias = nn.Parameter(torch.empty(shape[0]))
    conv.reset_parameters()


def _resize_norm(norm: nn.BatchNorm2d, features: int) -> None:
    norm.num_features = features
    norm.weight, norm.bias = nn.Parameter(torch.empty(features)), nn.Parameter(torch.empty(features))
    norm.running_mean, norm.running_var = torch.zeros(features), torch.ones(features)
    norm.reset_parameters()
