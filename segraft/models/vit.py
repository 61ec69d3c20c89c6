"""Plain vision transformers as encoders: one stride all through, and a neck that makes a pyramid of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 16
STAGES = 4


class ViTEncoder(nn.Module):
    """A ViT of timm that gives the maps of four depths, all at stride 16.

    Args:
        name: the model in timm. If its patches are not 16 pixels wide (DINOv2: 14), the image is resized so that there
            is a token for each 16 × 16 pixels; positions are interpolated to the image's size.
    """

    def __init__(self, name: str) -> None:
        import timm

        super().__init__()
        with torch.device("meta"):
            depth = len(timm.create_model(name, pretrained=False).blocks)
        ends = [depth * (stage + 1) // STAGES - 1 for stage in range(STAGES)]
        # DINOv3 knows positions by rotation (RoPE): it takes any size as it is.
        options = {} if "dinov3" in name else {"dynamic_img_size": True}
        self.model = timm.create_model(name, features_only=True, out_indices=ends, pretrained=False, **options)
        width = self.model.feature_info.channels()[-1]
        self.patch: int = self.model.model.patch_embed.patch_size[0]
        self.out_channels = [3, 0] + [width] * STAGES
        self.output_stride = STRIDE

    def forward(self, images: Tensor) -> list[Tensor]:
        """The image, an empty map and four maps (N, C, H/16, W/16); H and W are multiples of 32."""
        x = images
        if self.patch != STRIDE:
            size = [side * self.patch // STRIDE for side in images.shape[-2:]]
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return [images, images[:, :0, ::2, ::2], *self.model(x)]


class Pyramid(nn.Module):
    """Turns the four maps into those of strides 4, 8, 16 and 32 (or 16 again), as ViTDet does (Li et al. 2022).

    It belongs to the decoder, for it is not pretrained: a frozen encoder must not freeze it.

    Args:
        width: channels of the encoder's maps.
        strides: which maps the decoder reads; the last one is the deepest.
    """

    def __init__(self, width: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        quarter = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            nn.BatchNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        )
        eighth = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.levels = nn.ModuleList(
            [
                quarter if 4 in strides else nn.Identity(),
                eighth if 8 in strides else nn.Identity(),
                nn.Identity(),
                nn.MaxPool2d(2) if strides[-1] == 32 else nn.Identity(),
            ]
        )
        self.out_channels = [3, 0, width // 4, width // 2, width, width]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Six maps, given the encoder's six."""
        pyramid = [level(map_) for level, map_ in zip(self.levels, features[2:], strict=True)]
        return [*features[:2], *pyramid]
