"""Encoders whose layers are one `nn.Sequential`: torchvision's plain and mobile networks, and Darknet-19."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

LEVELS = 6
"""Maps at strides 1, 2, 4, 8, 16, 32."""


class SequentialEncoder(nn.Module):
    """Gives the last map of each stride; may be dilated.

    Dilating (Chen et al. 2015, Yu & Koltun 2016) takes away the strides beyond `output_stride` and spreads the taps of
    all later layers, so that each output pixel that there was before keeps its value and new ones come between.

    Args:
        features: the layers, classifier excluded.
        output_stride: 8, 16 or 32.
    """

    def __init__(self, features: nn.Sequential, output_stride: int) -> None:
        super().__init__()
        totals, channels, total, width = [], [], 1, 3
        for layer in features:
            total *= _stride(layer)
            width = _width(layer, width)
            totals.append(total)
            channels.append(width)
        assert total == 1 << (LEVELS - 1), f"the layers reduce by {total}"
        strides = [1 << level for level in range(LEVELS)]
        self._ends = [max((i for i, t in enumerate(totals) if t == stride), default=-1) for stride in strides]
        empty = [3] + [0] * (LEVELS - 1)
        self.out_channels = [channels[end] if end >= 0 else empty[i] for i, end in enumerate(self._ends)]
        self.output_stride = output_stride
        self.features = features
        _dilate(features, output_stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Six maps; the first is the image, and the second is empty, where the first layer skips their strides."""
        half = images[:, :0, ::2, ::2]
        maps = [images, half] + [images] * (LEVELS - 2)
        x = images
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._ends:
                maps[self._ends.index(index)] = x
        return maps


def _stride(layer: nn.Module) -> int:
    """Product of the strides in a layer: true of layers without a strided shortcut."""
    strides = [m.stride for m in layer.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    return math.prod(stride[0] if isinstance(stride, tuple) else stride for stride in strides)


def _width(layer: nn.Module, before: int) -> int:
    """Channels of a layer's output."""
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            before = module.out_channels
        elif isinstance(module, nn.Linear):
            before = module.out_features
    return before


def _dilate(features: nn.Sequential, output_stride: int) -> None:
    """Trade strides beyond `output_stride` for dilation, in place."""
    total, rate = 1, 1
    for index, layer in enumerate(features):
        stride = _stride(layer)
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                strided = module.stride[0] > 1
                if strided and total * stride > output_stride:
                    _spread(module, rate)
                    rate *= stride
                elif rate > 1:
                    _spread(module, rate)
        if isinstance(layer, nn.MaxPool2d) and total * stride > output_stride:
            features[index] = _dense_pool(layer, rate)
            rate *= stride
        total *= stride


def _spread(conv: nn.Conv2d, rate: int) -> None:
    """Stride 1, taps `rate` apart; an even kernel has no middle: its first tap stays in place."""
    size = conv.kernel_size[0]
    conv.stride, conv.dilation = (1, 1), (rate, rate)
    conv.padding = (size // 2 * rate, size // 2 * rate) if size % 2 else (0, 0)
    if size % 2 == 0:
        conv.register_forward_pre_hook(partial(_pad_after, (size - 1) * rate))


def _pad_after(pixels: int, conv: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (functional.pad(inputs[0], (0, pixels, 0, pixels)),)


def _dense_pool(pool: nn.MaxPool2d, rate: int) -> nn.Module:
    size = cast(int, pool.kernel_size)
    before, after = (size - 1) // 2 * rate, size // 2 * rate
    pad = nn.ReplicationPad2d((before, after, before, after))
    return nn.Sequential(pad, nn.MaxPool2d(size, stride=1, dilation=rate))


def torchvision_features(name: str) -> nn.Sequential:
    """The layers of a torchvision classifier, with random weights."""
    from torchvision.models import get_model

    if name.startswith("vgg"):
        return _vgg(*name.removeprefix("vgg").partition("_bn"))
    features: nn.Sequential = get_model(name, weights=None).features
    return features


def _vgg(depth: str, norm: str, _: str) -> nn.Sequential:
    """VGG without building the 100 million weights of its classifier first."""
    from torchvision.models.vgg import cfgs, make_layers

    features: nn.Sequential = make_layers(cfgs[{"11": "A", "16": "D", "19": "E"}[depth]], batch_norm=bool(norm))
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return features


def alexnet() -> nn.Sequential:
    """Torchvision's AlexNet, padded so that each stride divides exactly; the weights fit as they are."""
    features = torchvision_features("alexnet")
    for layer in features:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            size = layer.kernel_size
            layer.padding = (half := (size[0] if isinstance(size, tuple) else size) // 2, half)
    return features


DARKNET19 = (32, "M", 64, "M", 128, 64, 128, "M", 256, 128, 256, "M", 512, 256, 512, 256, 512, "M")
DARKNET19_TOP = (1024, 512, 1024, 512, 1024)


def darknet19() -> nn.Sequential:
    """Darknet-19 without its classifier (Redmon & Farhadi 2017, YOLO9000, table 6): 3×3 widens, 1×1 narrows."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in (*DARKNET19, *DARKNET19_TOP):
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        size = 1 if entry < channels else 3
        conv = nn.Conv2d(channels, entry, size, padding=size // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, 0.1, nonlinearity="leaky_relu")
        layers.append(nn.Sequential(conv, nn.BatchNorm2d(entry), nn.LeakyReLU(0.1, inplace=True)))
        channels = entry
    return nn.Sequential(*layers)
