"""torchvision's FCN and DeepLabV3 heads on a dilated encoder of stride 8."""

from __future__ import annotations

from typing import Any

from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

HEADS: dict[str, Any] = {
    "fcn": lambda channels, classes: FCNHead(channels, classes),
    "deeplabv3": lambda channels, classes: DeepLabHead(channels, classes, atrous_rates=(12, 24, 36)),
}


class LastFeature(nn.Module):
    """All of a head but its classifier, applied to the deepest feature map."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: list[Tensor]) -> Tensor:
        """(N, C, H/8, W/8) from the encoder's list of feature maps."""
        output: Tensor = self.layers(features[-1])
        return output


class DilatedModel(SegmentationModel):  # type: ignore[misc]
    """Encoder at stride 8, torchvision head, bilinear upsampling (align_corners=False, as in torchvision)."""

    def __init__(self, head: str, encoder: str, classes: int) -> None:
        super().__init__()
        self.encoder = get_encoder(encoder, output_stride=8, weights=None)
        *layers, classifier = HEADS[head](self.encoder.out_channels[-1], classes)
        self.decoder = LastFeature(nn.Sequential(*layers))
        self.segmentation_head = nn.Sequential(
            classifier, nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False)
        )
        self.classification_head = None
