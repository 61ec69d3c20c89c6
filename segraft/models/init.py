"""How random weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from segraft.errors import UserError
from segraft.params import InitName

SCHEMES: dict[str, Callable[[Any], Any]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}
"""Xavier: Glorot & Bengio 2010; He et al. 2015, by fan-in; orthogonal: Saxe et al. 2014."""


def initialise(model: nn.Module, scheme: InitName, zero_last_norm: bool) -> None:
    """Draw the weights of every convolution and linear layer anew; biases become 0.

    Pretrained weights are loaded over them afterwards.

    Args:
        model: changed in place.
        scheme: "library" leaves what each layer's library chose.
        zero_last_norm: scale the last BatchNorm of each residual block by 0, so that the block starts as its
            shortcut (Goyal et al. 2017).

    Raises:
        UserError: zero_last_norm, and there is no residual block with BatchNorm.
    """
    if scheme != "library":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                SCHEMES[scheme](module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    if zero_last_norm:
        norms = [norm for module in model.modules() if (norm := _last_norm(module))]
        if not norms:
            raise UserError("model.zero_last_norm: this encoder has no residual block with BatchNorm; say false")
        for norm in norms:
            nn.init.zeros_(norm.weight)


def _last_norm(block: nn.Module) -> nn.BatchNorm2d | nn.GroupNorm | None:
    """The last norm on the way through a residual block of torchvision or timm; None for other modules."""
    kind = type(block).__name__
    shortcut = kind in ("BasicBlock", "Bottleneck", "DarkBlock")
    if not (shortcut or getattr(block, "use_res_connect", False) or getattr(block, "has_skip", False)):
        return None
    around = getattr(block, "downsample", None)
    beside = set(around.modules()) if isinstance(around, nn.Module) else set()
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm) and m not in beside]
    return norms[-1] if norms else None
