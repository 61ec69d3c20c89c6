"""The zoo: `create_model(arch, encoder, classes)` over two dicts; the networks come from well-kept libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segraft.errors import UserError
from segraft.models.encoders import ENCODERS, Encoder

if TYPE_CHECKING:
    from torch import nn


def create_model(arch: str, encoder: str, classes: int) -> nn.Module:
    """A segmentation network with random weights.

    It takes (N, 3, H, W) float normalised RGB, H and W multiples of 32, and gives (N, classes, H, W) logits.
    `.encoder`, `.decoder` and `.segmentation_head` are its parts.

    Raises:
        UserError: an unknown name; the message lists the choices.
    """
    if arch not in ARCHS:
        raise UserError(f"model.arch: {arch!r}: unknown; choose one of {', '.join(ARCHS)}")
    model: nn.Module = ARCHS[arch](find_encoder(encoder), classes)
    return model


def find_encoder(name: str) -> Encoder:
    """The encoder's entry in the zoo, or a UserError that lists the choices."""
    if name not in ENCODERS:
        raise UserError(f"model.encoder: {name!r}: unknown; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def _smp(name: str) -> Callable[[Encoder, int], nn.Module]:
    def build(encoder: Encoder, classes: int) -> nn.Module:
        import segmentation_models_pytorch as smp

        network: nn.Module = getattr(smp, name)(encoder.smp_name, encoder_weights=None, classes=classes)
        return network

    return build


def _torchvision(head: str) -> Callable[[Encoder, int], nn.Module]:
    def build(encoder: Encoder, classes: int) -> nn.Module:
        from segraft.models.dilated import DilatedModel

        return DilatedModel(head, encoder.smp_name, classes)

    return build


ARCHS: dict[str, Callable[[Encoder, int], Any]] = {
    "unet": _smp("Unet"),
    "deeplabv3plus": _smp("DeepLabV3Plus"),
    "deeplabv3": _torchvision("deeplabv3"),
    "fcn": _torchvision("fcn"),
}
"""arch → builder. U-Net: Ronneberger et al. 2015; DeepLabV3+: Chen et al. 2018; DeepLabV3: Chen et al. 2017; FCN:
Long et al. 2015, in torchvision's dilated form at stride 8."""
