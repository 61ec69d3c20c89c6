"""The decoders that no library has: FCN's skips, DeepLab v1 and v2, SwiftNet, and LR-ASPP on any encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segraft.models.network import GridMean, LastFeature, conv_norm_relu

LARGE_FOV = 1024
ASPP_RATES = (6, 12, 18, 24)
SWIFT = 128
DEEPEST = 32
GRIDS = (8, 4, 2, 1)


def large_fov(channels: int) -> LastFeature:
    """fc6 and fc7 of DeepLab-LargeFOV: 3×3 at rate 12, then 1×1, 1024 channels (Chen et al. 2015, 2016).

    BatchNorm, which is younger than the paper, lets it train from random weights.
    """
    fc6, fc7 = conv_norm_relu(channels, LARGE_FOV, 3, dilation=12), conv_norm_relu(LARGE_FOV, LARGE_FOV, 1)
    return LastFeature(nn.Sequential(*fc6, nn.Dropout(0.5), *fc7, nn.Dropout(0.5)))


class ParallelScores(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v2 on ResNet: four dilated classifiers, added (Chen et al. 2016)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in ASPP_RATES)
        for score in self.scores:
            # Four are added: each is to start at a fourth of the usual variance.
            nn.init.normal_(score.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) → (N, classes, h, w)."""
        return torch.stack([score(features) for score in self.scores]).sum(0)


class WithSkips(nn.Module):
    """FCN's deepest map, through `layers`, and the maps of as many lower strides as `skips` (Long et al. 2015)."""

    def __init__(self, layers: nn.Module, skips: int) -> None:
        super().__init__()
        self.layers, self.skips = layers, skips

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps at strides 32, 16, …."""
        return [self.layers(features[-1]), *(features[-2 - i] for i in range(self.skips))]


class SkipScores(nn.Module):
    """Scores each map and adds them on the way up: FCN-32s, 16s and 8s with one, two and three maps (Long et al. 2015).

    Upsampling is bilinear and fixed, what the paper's deconvolutions start from.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps at strides 32, 16, … → (N, classes, H, W)."""
        logits: Tensor = self.scores[0](features[0])
        for score, skip in zip(list(self.scores)[1:], features[1:], strict=True):
            logits = functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False) + score(skip)
        stride = DEEPEST >> (len(features) - 1)
        return functional.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)


class LiteAspp(nn.Module):
    """LR-ASPP (Howard et al. 2019): deep features gated by their global mean, beside those of stride 8.

    torchvision's `LRASPPHead` adds two classifiers; one classifier on both, side by side, is the same function.
    """

    def __init__(self, low: int, high: int, width: int) -> None:
        from torchvision.models.segmentation.lraspp import LRASPPHead

        super().__init__()
        head = LRASPPHead(low, high, 1, width)
        self.cbr, self.scale = head.cbr, head.scale

    def forward(self, features: list[Tensor]) -> Tensor:
        """(N, low + width, H/8, W/8)."""
        low, high = features[3], features[-1]
        gated = self.cbr(high) * self.scale(high)
        gated = functional.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([low, gated], 1)


class SwiftDecoder(nn.Module):
    """SwiftNet (Oršić et al. 2019): pyramid pooling on the deepest map, then three light ladder steps of 128 channels.

    Dense 3×3 convolutions and no dilation: for its accuracy the fastest of the zoo on CPUs and edge devices.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *skips, deepest = channels
        self.reduce = conv_norm_relu(deepest, SWIFT, 1)
        self.levels = nn.ModuleList(
            nn.Sequential(GridMean(grid), nn.Conv2d(SWIFT, SWIFT // len(GRIDS), 1)) for grid in GRIDS
        )
        self.fuse = conv_norm_relu(2 * SWIFT, SWIFT, 1)
        self.laterals = nn.ModuleList(conv_norm_relu(width, SWIFT, 1) for width in reversed(skips))
        self.blends = nn.ModuleList(conv_norm_relu(SWIFT, SWIFT, 3) for _ in skips)

    def forward(self, features: list[Tensor]) -> Tensor:
        """(N, 128, H/4, W/4) from the maps at strides 4 to 32."""
        x = self._pooled(self.reduce(features[-1]))
        for lateral, blend, skip in zip(self.laterals, self.blends, features[-2:1:-1], strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = blend(x + lateral(skip))
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        means = [level(x) for level in self.levels]
        wide = [functional.interpolate(m, size=x.shape[-2:], mode="bilinear", align_corners=False) for m in means]
        pooled: Tensor = self.fuse(torch.cat([x, *wide], 1))
        return pooled
