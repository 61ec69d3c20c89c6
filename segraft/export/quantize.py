"""INT8 by post-training quantisation (NNCF): min-max ranges and bias correction over calibration images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segraft.export.graph import INPUT
from segraft.serving.runtimes.padding import pad
from segraft.serving.runtimes.telemetry import ov

Images = Sequence[NDArray[np.uint8]]
PRECISE = ["Add", "Interpolate", "Resize", "Concat"]
"""Operations, by OpenVINO's and ONNX's names, whose inputs stay as they are: quantised too, they ruined U-Net lite0."""


def quantize_openvino(graph: Path, images: Images, stride: int, destination: Path) -> None:
    """Write the INT8 form of an ONNX graph as OpenVINO IR (`destination`, an .xml, and a .bin beside it).

    Args:
        graph: what `export_graph` wrote.
        images: (H, W, 3) uint8 calibration images; sizes may differ.
        stride: sides are padded to multiples of this.
        destination: the .xml file.
    """
    nncf = _quiet_nncf()
    model = ov.Core().read_model(graph)
    ov.save_model(_quantize(nncf, model, images, stride, lambda image: image, None), destination)


def quantize_onnx(graph: Path, images: Images, stride: int, destination: Path) -> None:
    """Write the INT8 form (QDQ) of an ONNX graph; arguments as above, `destination` an .onnx file."""
    nncf = _quiet_nncf()
    import onnx

    model = onnx.load(graph)
    # ONNX Runtime's QLinearConv takes one range for all channels; before depthwise convolutions NNCF would write many.
    onnx.save(_quantize(nncf, model, images, stride, lambda image: {INPUT: image}, False), destination)


def _quantize(
    nncf: Any,
    model: Any,
    images: Images,
    stride: int,
    feed: Callable[[NDArray[np.uint8]], Any],
    per_channel: bool | None,
) -> Any:
    calibration = nncf.Dataset(images, lambda image: feed(pad(image[None], stride)))
    ranges = nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=per_channel)
    return nncf.quantize(
        model,
        calibration,
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: Swish and ReLU6 have one-sided ranges
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(types=PRECISE, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(activations_quantization_params=ranges),
    )


def _quiet_nncf() -> Any:
    """NNCF without its advice; its telemetry is off because `telemetry` was imported before it."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf
