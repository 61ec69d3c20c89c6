"""What every network of the zoo is: an encoder, a decoder, a classifier; any input size in, the same size out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 32
"""Every encoder of the zoo halves at most five times."""


class SegmentationModel(nn.Module):
    """Encoder → decoder → segmentation_head.

    Args:
        encoder: (N, 3, H, W) → feature maps at strides 1, 2, 4, 8, 16, 32 (or the stride that it was dilated to).
        decoder: those maps → what the head takes.
        segmentation_head: → (N, classes, H, W). Only here do shapes depend on the classes: a tensor's first dimension
            is the classes.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = segmentation_head

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float → (N, classes, H, W) logits; sides are padded to a multiple of 32 inside."""
        height, width = images.shape[-2:]
        below, right = -height % MULTIPLE, -width % MULTIPLE
        if below or right:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        logits = cast(Tensor, self.segmentation_head(self.decoder(self.encoder(images))))
        return logits[..., :height, :width] if below or right else logits


class LastFeature(nn.Module):
    """Layers on the deepest feature map alone."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: list[Tensor]) -> Tensor:
        """(N, C, h, w) from the encoder's list of feature maps."""
        return cast(Tensor, self.layers(features[-1]))


class GridMean(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products: it exports with open sizes, and is deterministic on GPUs."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, grid, grid)."""
        rows, columns = (self._shares(side, x) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def _shares(self, side: int, like: Tensor) -> Tensor:
        """(grid, side): what each pixel of a line adds to each cell's mean; cells may overlap by a pixel."""
        pixels = torch.arange(side, device=like.device)
        cells = torch.arange(self.grid, device=like.device)[:, None]
        first = torch.div(cells * side, self.grid, rounding_mode="floor")
        beyond = torch.div((cells + 1) * side + self.grid - 1, self.grid, rounding_mode="floor")
        return ((pixels >= first) & (pixels < beyond)).to(like.dtype) / (beyond - first).to(like.dtype)


def with_grid_means(decoder: nn.Module) -> nn.Module:
    """The decoder with a `GridMean` for each adaptive pooling to more than one cell, which ONNX cannot write."""
    for parent in list(decoder.modules()):
        for name, pool in list(parent.named_children()):
            if isinstance(pool, nn.AdaptiveAvgPool2d):
                size = pool.output_size
                grid = size[0] if isinstance(size, tuple) else size
                if grid is not None and grid > 1:
                    setattr(parent, name, GridMean(grid))
    return decoder


def upsample(factor: int) -> nn.Module:
    """Bilinear, with pixels as areas (align_corners=False), as torchvision and the FCN paper's kernels do."""
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)


def conv_norm_relu(channels: int, out: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, BatchNorm, ReLU."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(channels, out, kernel_size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
