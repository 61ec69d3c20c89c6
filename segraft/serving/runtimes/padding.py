"""Any image size through networks that want multiples of a stride."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""(N, H, W, 3) RGB"""


def pad(images: Images, stride: int) -> Images:
    """Mirror below and to the right until both sides are multiples of `stride`; contiguous."""
    height, width = images.shape[1:3]
    bottom, right = -height % stride, -width % stride
    if not bottom and not right:
        return np.ascontiguousarray(images)
    return np.stack([cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT) for image in images])
