"""Architectures: what each asks of an encoder, and how its decoder and its classifier are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    Parts = tuple[nn.Module, nn.Module]

Build = Callable[[list[int], int], "Parts"]


@dataclass(frozen=True)
class Arch:
    """One architecture."""

    build: Build
    """(channels of the maps at strides 1, 2, 4, 8, 16, 32; classes) → decoder, segmentation_head"""
    paper: str
    output_stride: int = 32
    """the stride of the deepest map; the encoder is dilated to it"""
    strides: tuple[int, ...] = (4, 8, 16, 32)
    """strides of the maps that it cannot do without"""


def _smp(decoder: nn.Module, width: int, classes: int, kernel_size: int, upsampling: int) -> Parts:
    from segmentation_models_pytorch.base import SegmentationHead, initialization

    head = SegmentationHead(width, classes, kernel_size=kernel_size, upsampling=upsampling)
    initialization.initialize_decoder(decoder)
    initialization.initialize_head(head)
    return decoder, head


UNET_CHANNELS = (256, 128, 64, 32, 16)


def _unet(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    return _smp(UnetDecoder(channels, UNET_CHANNELS), UNET_CHANNELS[-1], classes, 3, 1)


def _unetplusplus(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder

    return _smp(UnetPlusPlusDecoder(channels, UNET_CHANNELS), UNET_CHANNELS[-1], classes, 3, 1)


def _fpn(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    decoder = FPNDecoder(channels)
    return _smp(decoder, decoder.out_channels, classes, 1, 4)


def _pspnet(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

    from segraft.models.network import with_grid_means

    return _smp(with_grid_means(PSPDecoder(channels)), 512, classes, 3, 8)


def _upernet(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    from segraft.models.network import with_grid_means

    return _smp(with_grid_means(UPerNetDecoder(channels)), 256, classes, 1, 4)


def _segformer(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    return _smp(SegformerDecoder(channels), 256, classes, 1, 4)


def _deeplabv3plus(channels: list[int], classes: int) -> Parts:
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    decoder = DeepLabV3PlusDecoder(
        channels,
        encoder_depth=5,
        out_channels=256,
        atrous_rates=(12, 24, 36),
        output_stride=16,
        aspp_separable=True,
        aspp_dropout=0.5,
    )
    return decoder, SegmentationHead(256, classes, kernel_size=1, upsampling=4)


def _torchvision(layers: Any) -> Parts:
    """All of a head of torchvision but its classifier; its classifier, upsampled from stride 8."""
    from torch import nn

    from segraft.models.network import LastFeature, upsample

    *layers, classifier = layers
    return LastFeature(nn.Sequential(*layers)), nn.Sequential(classifier, upsample(8))


def _fcn(channels: list[int], classes: int) -> Parts:
    from torchvision.models.segmentation.fcn import FCNHead

    return _torchvision(FCNHead(channels[-1], classes))


def _deeplabv3(channels: list[int], classes: int) -> Parts:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return _torchvision(DeepLabHead(channels[-1], classes, atrous_rates=(12, 24, 36)))


def _fcn_with_skips(skips: int) -> Build:
    def build(channels: list[int], classes: int) -> Parts:
        from torch import nn
        from torchvision.models.segmentation.fcn import FCNHead

        from segraft.models.classic import SkipScores, WithSkips

        *layers, score = FCNHead(channels[-1], classes)
        widths = [score.in_channels, *channels[-2 : -2 - skips : -1]]
        return WithSkips(nn.Sequential(*layers), skips), SkipScores(widths, classes)

    return build


def _deeplabv1(channels: list[int], classes: int) -> Parts:
    from torch import nn

    from segraft.models.classic import LARGE_FOV, large_fov
    from segraft.models.network import upsample

    return large_fov(channels[-1]), nn.Sequential(nn.Conv2d(LARGE_FOV, classes, 1), upsample(8))


def _deeplabv2(channels: list[int], classes: int) -> Parts:
    from torch import nn

    from segraft.models.classic import ParallelScores
    from segraft.models.network import LastFeature, upsample

    return LastFeature(nn.Identity()), nn.Sequential(ParallelScores(channels[-1], classes), upsample(8))


def _lraspp(channels: list[int], classes: int) -> Parts:
    from torch import nn

    from segraft.models.classic import LiteAspp
    from segraft.models.network import upsample

    width = 128
    low = channels[3]
    head = nn.Sequential(nn.Conv2d(low + width, classes, 1), upsample(8))
    return LiteAspp(low, channels[-1], width), head


def _swiftnet(channels: list[int], classes: int) -> Parts:
    from torch import nn

    from segraft.models.classic import SWIFT, SwiftDecoder
    from segraft.models.network import upsample

    return SwiftDecoder(channels[2:]), nn.Sequential(nn.Conv2d(SWIFT, classes, 1), upsample(4))


ARCHS: dict[str, Arch] = {
    "unet": Arch(_unet, "Ronneberger et al. 2015"),
    "unetplusplus": Arch(_unetplusplus, "Zhou et al. 2018", strides=(2, 4, 8, 16, 32)),
    "fpn": Arch(_fpn, "Kirillov et al. 2019"),
    "pspnet": Arch(_pspnet, "Zhao et al. 2017", output_stride=8, strides=(8,)),
    "upernet": Arch(_upernet, "Xiao et al. 2018"),
    "segformer": Arch(_segformer, "Xie et al. 2021"),
    "deeplabv1": Arch(_deeplabv1, "LargeFOV: Chen et al. 2015", output_stride=8, strides=(8,)),
    "deeplabv2": Arch(_deeplabv2, "ASPP: Chen et al. 2016", output_stride=8, strides=(8,)),
    "deeplabv3": Arch(_deeplabv3, "Chen et al. 2017", output_stride=8, strides=(8,)),
    "deeplabv3plus": Arch(_deeplabv3plus, "Chen et al. 2018", output_stride=16, strides=(4, 16)),
    "fcn": Arch(_fcn, "Long et al. 2015, in torchvision's dilated form", output_stride=8, strides=(8,)),
    "fcn32s": Arch(_fcn_with_skips(0), "Long et al. 2015", strides=(32,)),
    "fcn16s": Arch(_fcn_with_skips(1), "Long et al. 2015", strides=(16, 32)),
    "fcn8s": Arch(_fcn_with_skips(2), "Long et al. 2015", strides=(8, 16, 32)),
    "lraspp": Arch(_lraspp, "Howard et al. 2019", output_stride=16, strides=(8, 16)),
    "swiftnet": Arch(_swiftnet, "Oršić et al. 2019"),
}
"""arch → what it is."""
