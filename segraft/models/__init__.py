"""The zoo: `create_model(arch, encoder, classes)` over two dicts; the networks come from well-kept libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segraft.errors import UserError
from segraft.models.archs import ARCHS
from segraft.models.encoders import ENCODERS, Encoder, build_encoder

if TYPE_CHECKING:
    from torch import nn


def create_model(arch: str, encoder: str, classes: int) -> nn.Module:
    """A segmentation network with random weights.

    It takes (N, 3, H, W) float normalised RGB of any size and gives (N, classes, H, W) logits.
    `.encoder`, `.decoder` and `.segmentation_head` are its parts.

    Raises:
        UserError: an unknown name (the message lists the choices), or two that do not go together (it says why).
    """
    from segraft.models.network import SegmentationModel

    check_pair(arch, encoder)
    head, entry = ARCHS[arch], ENCODERS[encoder]
    body = build_encoder(entry, head.output_stride)
    channels: list[int] = list(body.out_channels)  # type: ignore[arg-type]
    if entry.library != "timm":
        return SegmentationModel(body, *head.build(channels, classes))
    from torch.nn import Sequential

    from segraft.models.vit import Pyramid

    neck = Pyramid(channels[-1], head.strides)
    decoder, classifier = head.build(neck.out_channels, classes)
    return SegmentationModel(body, Sequential(neck, decoder), classifier)


def find_encoder(name: str) -> Encoder:
    """The encoder's entry in the zoo, or a UserError that lists the choices."""
    if name not in ENCODERS:
        raise UserError(f"model.encoder: {name!r}: unknown; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def check_pair(arch: str, encoder: str) -> None:
    """Refuse an unknown name, or an architecture that asks what the encoder cannot give.

    Raises:
        UserError: why.
    """
    if arch not in ARCHS:
        raise UserError(f"model.arch: {arch!r}: unknown; choose one of {', '.join(ARCHS)}")
    entry, wanted = find_encoder(encoder), ARCHS[arch]
    if wanted.output_stride not in entry.output_strides:
        raise UserError(
            f"model: {arch} works at stride {wanted.output_stride}, and {encoder} cannot be dilated to it (it gives "
            f"{' or '.join(map(str, entry.output_strides))}); take {_others(arch)}, or another encoder than {encoder}"
        )
    if min(wanted.strides) < entry.first_stride:
        raise UserError(
            f"model: {arch} needs a map at stride {min(wanted.strides)}, and the first of {encoder} has stride "
            f"{entry.first_stride}; take unet, or another encoder than {encoder}"
        )


def _others(arch: str) -> str:
    return ", ".join(name for name in ("unet", "fpn", "upernet", "segformer", "swiftnet") if name != arch)
