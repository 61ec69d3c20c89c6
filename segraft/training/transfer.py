"""Moving what one model learned into another: graft weights, freeze layers, give them their own learning rate."""

from __future__ import annotations

import types
from typing import Literal, NamedTuple

from torch import Tensor, nn

from segraft.params import Training


class Graft(NamedTuple):
    """What became of one tensor of the model."""

    tensor: str
    outcome: Literal["kept", "skipped", "mismatched"]
    why: str = ""


def graft(model: nn.Module, donor: dict[str, Tensor], same_classes: bool) -> list[Graft]:
    """Copy every tensor of `donor` that fits into `model`; report each tensor of either.

    Args:
        model: changed in place.
        donor: a state dict.
        same_classes: whether the donor's classes are the model's, in the same order: only then is the classifier kept,
            for its rows would otherwise stand for other classes.

    Returns:
        One entry a tensor: kept, mismatched (another shape, or other classes) or skipped (not in the other).
    """
    own = model.state_dict()
    report = [_fit(name, tensor, donor, same_classes) for name, tensor in own.items()]
    report += [Graft(name, "skipped", "not in this model") for name in donor if name not in own]
    kept = {entry.tensor: donor[entry.tensor] for entry in report if entry.outcome == "kept"}
    model.load_state_dict(own | kept)
    return report


def _fit(name: str, tensor: Tensor, donor: dict[str, Tensor], same_classes: bool) -> Graft:
    if name not in donor:
        return Graft(name, "skipped", "not in the pretrained model")
    if donor[name].shape != tensor.shape:
        return Graft(name, "mismatched", f"{tuple(donor[name].shape)} is not {tuple(tensor.shape)}")
    if name.startswith("segmentation_head.") and not same_classes:
        return Graft(name, "mismatched", "the pretrained model has other classes")
    return Graft(name, "kept")


def freeze(module: nn.Module) -> None:
    """No gradients, and eval mode for good: BatchNorm statistics stay too, whatever `train()` is called around it."""
    module.requires_grad_(False)
    for part in module.modules():
        part.train = types.MethodType(_stay_in_eval, part)  # type: ignore[method-assign]
        part.training = False


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, object]]:
    """Optimizer groups: the encoder has its own learning rate; BatchNorm and biases have no weight decay.

    Each group carries `peak`, the learning rate that the schedule scales.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            peak = training.lr * (training.encoder_lr if name.startswith("encoder.") else 1.0)
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
    return [{"params": p, "lr": peak, "peak": peak, "weight_decay": decay} for (peak, decay), p in groups.items()]
