"""BatchNorm under transfer: keep its statistics, take them anew on other images, or do without it."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from segraft.errors import UserError

GROUPS = 32


def stay_in_eval(module: nn.Module) -> None:
    """Eval mode for good, whatever `train()` is called around it; its parameters go on learning."""
    module.train = types.MethodType(_stay, module)  # type: ignore[method-assign]
    module.training = False


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every BatchNorm of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def freeze_statistics(model: nn.Module) -> None:
    """Normalise by the statistics as they are, in training too; scale and shift go on learning."""
    for norm in norms(model):
        stay_in_eval(norm)


@torch.no_grad()
def reestimate(model: nn.Module, images: Iterable[Tensor], forward: Callable[[Tensor], Tensor] | None = None) -> None:
    """Replace the statistics by those of other images: AdaBN (Li et al. 2017). Without images, nothing changes.

    A norm that sees one value a channel (one image, pooled to 1×1) learns nothing from that batch.

    Args:
        model: changed in place.
        images: batches of (N, 3, H, W) normalised images.
        forward: how the model is asked for a batch's logits; None: in one call. Each call counts as much as any other.
    """
    before = {norm: (norm.training, norm.momentum) for norm in norms(model)}
    training, begun = model.training, set[nn.Module]()

    def listen(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.training = not one_value(inputs[0])
        if norm.training and norm not in begun:
            begun.add(norm)
            norm.reset_running_stats()  # type: ignore[operator]

    model.eval()
    for norm in before:
        norm.momentum = None  # the plain mean over the batches
    hooks = [norm.register_forward_pre_hook(listen) for norm in before]
    for batch in images:
        (forward or model)(batch)
    for hook in hooks:
        hook.remove()
    model.train(training)
    for norm, (mode, momentum) in before.items():
        norm.training, norm.momentum = mode, momentum


def one_value(features: Tensor) -> bool:
    """Whether (N, C, …) features hold one value a channel, which has no variance."""
    return features.numel() == features.shape[1]


@torch.no_grad()
def check_lone_image(model: nn.Module, image: Tensor) -> None:
    """Refuse to train with one (1, 3, H, W) image a batch where a BatchNorm would see one value a channel of it.

    Raises:
        UserError: it would.
    """
    starved: list[str] = []

    def listen(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if one_value(inputs[0]):
            starved.append(type(norm).__name__)

    learning = [norm for norm in norms(model.train()) if norm.training]
    hooks = [norm.register_forward_pre_hook(listen) for norm in learning]
    model.eval()(image)
    for hook in hooks:
        hook.remove()
    if starved:
        raise UserError(
            "batch_size: 1: this network pools an image down to one value a channel, of which BatchNorm can take no "
            "variance; say 2 or more, or batch_norm: frozen or group"
        )


def to_group_norm(model: nn.Module) -> None:
    """Put GroupNorm (Wu & He 2018) where BatchNorm is, with the same names, scales and shifts."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _group_norm(child))


def _group_norm(norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    from timm.layers import GroupNormAct

    groups = math.gcd(norm.num_features, GROUPS)
    new: nn.Module = nn.GroupNorm(groups, norm.num_features, eps=norm.eps)
    if hasattr(norm, "act"):  # timm's BatchNorm that carries the activation after it
        new = GroupNormAct(norm.num_features, groups, eps=norm.eps)
        new.drop, new.act = norm.drop, norm.act
    new.load_state_dict({"weight": norm.weight.detach(), "bias": norm.bias.detach()})
    return new
