"""Normalised cross-correlation of two maps of edges, the dearest thing that validate does with an image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def correlation(image: NDArray[np.float32], template: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `cv2.matchTemplate` makes of two channels with TM_CCOEFF_NORMED, in three quarters of the time or less.

    The channels are the real and the imaginary part of one Fourier transform: the real part of the product is the sum
    of both correlations. The energy under the template comes from integral images (Lewis 1995).

    Args:
        image: H×W×2.
        template: h×w×2, not larger.

    Returns:
        (H-h+1)×(W-w+1), the score of each place of the template's first corner, from -1 to 1.
    """
    (height, width), (h, w) = image.shape[:2], template.shape[:2]
    size = cv2.getOptimalDFTSize(height), cv2.getOptimalDFTSize(width)
    centred = np.zeros((*size, 2), np.float32)
    cv2.subtract(template, cv2.mean(template), centred[:h, :w])
    norm = cv2.norm(centred)
    product = cv2.copyMakeBorder(image, 0, size[0] - height, 0, size[1] - width, cv2.BORDER_CONSTANT)
    cv2.dft(product, product)
    cv2.dft(centred, centred)
    spectrum = product.view(np.complex64)
    spectrum *= centred.view(np.complex64).conj()  # five times faster than cv2.mulSpectrums
    cv2.dft(product, product, cv2.DFT_INVERSE | cv2.DFT_SCALE)
    sums, squares = (_windows(total, h, w) for total in cv2.integral2(image))
    energy = (squares - sums**2 / (h * w)).sum(axis=2)
    scale = norm * np.sqrt(energy.clip(1e-6))
    score: NDArray[np.float32] = (product[: height - h + 1, : width - w + 1, 0] / scale).astype(np.float32)
    return score


def _windows(total: NDArray[np.float64], h: int, w: int) -> NDArray[np.float64]:
    """The sum over each window, from an integral image."""
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
