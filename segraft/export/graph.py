"""A network as an ONNX graph: uint8 pixels in, trainIds and logits out, any batch, height and width."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segraft.checkpoint import ModelCard
from segraft.errors import UserError
from segraft.models.network import MULTIPLE
from segraft.serving.runtimes.eager import Served

OPSET = 17
INPUT, OUTPUTS = "images", ["ids", "logits"]
TRACED, OTHER = (2, 2 * MULTIPLE, 3 * MULTIPLE), (1, 5 * MULTIPLE, 4 * MULTIPLE)
"""Batch, height and width that the network is traced at, and others at which the graph must agree."""
LARGEST_ERROR = 1e-3
"""Of the logits, as a share of their largest: fp32 kernels differ by less."""


def export_graph(network: nn.Module, card: ModelCard, path: Path) -> str:
    """Write `images` (N, H, W, 3) uint8 → `ids` (N, H, W) uint8, `logits` (N, C, H, W) float32.

    Tracing takes seconds where torch.export takes half a minute, but it would bake in whatever a network computes from
    its input's size. So the graph is run at another size, and if it is wrong there, torch.export has its turn.

    Args:
        network: in eval mode, on the CPU; its padding is made static, so it takes multiples of 32 from here on.
        card: its card.
        path: the file to write.

    Returns:
        How it was made: "trace" or "torch.export".

    Raises:
        UserError: neither way gives a graph that agrees with the network.
    """
    make_padding_static(network)
    served = Served(network, card).eval()
    problems = []
    for how, export in {"trace": _trace, "torch.export": _export}.items():
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                export(served, path)
                simplify(path)
                error = difference(served, path)
        except Exception as failure:
            problems.append(f"{how}: {type(failure).__name__}: {' '.join(str(failure).split())[:200]}")
            continue
        if error <= LARGEST_ERROR:
            return how
        problems.append(f"{how}: at {OTHER[1]}×{OTHER[2]} pixels the logits are off by {error:.2g} of their largest")
    path.unlink(missing_ok=True)
    raise UserError(f"{card.arch} on {card.encoder} has no ONNX graph: {'; '.join(problems)}")


def _trace(served: Served, path: Path) -> None:
    axes = {0: "n", 1: "h", 2: "w"}
    torch.onnx.export(
        served,
        (torch.zeros(*TRACED, 3, dtype=torch.uint8),),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=OUTPUTS,
        dynamic_axes={INPUT: axes, "ids": axes, "logits": {0: "n", 2: "h", 3: "w"}},
    )


def _export(served: Served, path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        served,
        (torch.zeros(*TRACED, 3, dtype=torch.uint8),),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[INPUT],
        output_names=OUTPUTS,
        dynamic_shapes={INPUT: {0: dynamic, 1: dynamic, 2: dynamic}},
    )


def simplify(path: Path) -> None:
    """Fold what does not depend on the input; a tracer writes even a constant padding as a dozen operations.

    Twice, for a folded shape lets another fold.
    """
    import onnx
    from onnxscript import optimizer

    model = onnx.load(path)
    for _ in range(2):
        model = optimizer.optimize(model)
    onnx.save(model, path)


@torch.no_grad()
def difference(served: Served, path: Path) -> float:
    """Largest error of the graph's logits at a size that it was not traced at, as a share of their largest."""
    import onnxruntime

    images = np.random.default_rng(0).integers(0, 256, (*OTHER, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {INPUT: images})[0]
    wanted = served(torch.from_numpy(images))[1].numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def make_padding_static(network: nn.Module) -> None:
    """Give TensorFlow-style convolutions the one padding that they have when every side is a multiple of 32.

    timm's Conv2dSame computes it from the input's size at each call, which engines cannot fuse into the convolution.
    """
    from timm.layers import Conv2dSame

    for module in network.modules():
        if isinstance(module, Conv2dSame):
            module.forward = functools.partial(_padded, module)


def _padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    total = [(k - 1) * d + 1 - s for k, d, s in zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)]
    top, left = (side // 2 for side in total)
    x = functional.pad(x, (left, total[1] - left, top, total[0] - top))
    return functional.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
