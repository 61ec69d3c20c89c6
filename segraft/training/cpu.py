"""A training step on a CPU: the same numbers with less work than PyTorch's kernels would make of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Area = tuple[slice, ...]
"""of an (N, h, w, C) map"""
WORTHWHILE = 4.5
"""Maps: where the taps of a dilated depthwise convolution overlap the map by less, `_DilatedDepthwise` is faster."""


def fit_convolutions(model: nn.Module) -> None:
    """Have convolutions compute no more than they must.

    Depthwise ones run in float32: their bf16 backward pass costs more than bf16 saves, and where it does not, as with
    plain 3×3 ones, training ended worse. Dilated ones whose outer taps fall on padding alone, as those of an atrous
    pyramid do on a crop, run as the 1×1 convolution that they then are; depthwise ones skip the padding wherever it is
    much of what they see.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        atrous = min(module.dilation) > 1 and set(module.kernel_size) == {3} and module.padding == module.dilation
        depthwise = module.groups == module.in_channels > 1
        if atrous and set(module.stride) == {1}:
            alone = depthwise and module.out_channels == module.in_channels and module.bias is None
            fitted = _dilated_depthwise if alone else _centre_alone
            module.forward = functools.partial(fitted, module, module.forward)  # type: ignore[method-assign]
        if depthwise:
            module.forward = functools.partial(_in_fp32, module.forward)  # type: ignore[method-assign]


def _centre_alone(module: nn.Conv2d, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if min(module.dilation) < max(x.shape[2:]):
        return forward(x)
    return functional.conv2d(x, module.weight[:, :, 1:2, 1:2], module.bias, groups=module.groups)


def _dilated_depthwise(module: nn.Conv2d, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    down, across = (1 + 2 * max(0, 1 - d / side) for d, side in zip(module.dilation, x.shape[2:], strict=True))
    if down * across > WORTHWHILE:
        return forward(x)
    y: Tensor = _DilatedDepthwise.apply(x, module.weight, module.dilation)  # type: ignore[no-untyped-call]
    return y


def _in_fp32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())


class _DilatedDepthwise(torch.autograd.Function):
    """A 3×3 depthwise convolution that keeps the size, as nine products of shifted maps without their padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        x, taps = x.permute(0, 2, 3, 1), _taps(weight)
        y = x * taps[1, 1]
        for i, j, there, here in _overlaps(x, dilation):
            y[there].addcmul_(x[here], taps[i, j])
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x, slope, taps = x.permute(0, 2, 3, 1), outer[0].permute(0, 2, 3, 1), _taps(weight)
        to_x, to_taps = slope * taps[1, 1], torch.zeros_like(taps)
        to_taps[1, 1] = (slope * x).sum((0, 1, 2))
        for i, j, there, here in _overlaps(x, ctx.dilation):
            to_x[here].addcmul_(slope[there], taps[i, j])
            to_taps[i, j] = (slope[there] * x[here]).sum((0, 1, 2))
        return to_x.permute(0, 3, 1, 2), to_taps.permute(2, 0, 1).unsqueeze(1), None


def _taps(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3) → (3, 3, C), dense, so that products over channels are vectorised."""
    return weight.squeeze(1).permute(1, 2, 0).contiguous()


def _overlaps(x: Tensor, dilation: tuple[int, int]) -> Iterator[tuple[int, int, Area, Area]]:
    """Each outer tap (row, column) that meets the (N, h, w, C) map: where it adds to, and what it adds from there."""
    for i in range(3):
        for j in range(3):
            shifts = (i - 1) * dilation[0], (j - 1) * dilation[1]
            if any(shifts) and all(abs(shift) < side for shift, side in zip(shifts, x.shape[1:3], strict=True)):
                sides = list(zip(shifts, x.shape[1:3], strict=True))
                there = (slice(max(0, -shift), side - max(0, shift)) for shift, side in sides)
                here = (slice(max(0, shift), side - max(0, -shift)) for shift, side in sides)
                yield i, j, (slice(None), *there), (slice(None), *here)


def give_upsamplings_dense_gradients(loss: Tensor) -> None:
    """Have what flows back to an upsampling be dense in memory.

    The gradient of a map that was upsampled and then concatenated is a slice of a larger one; on such, PyTorch's
    backward pass of an upsampling takes three to seven times as long.
    """
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith("Upsample"):
            node.register_prehook(_dense)
        todo += [before for before, _ in node.next_functions]


def _dense(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(N, C, H, W) slices in the layout of what they were cut from."""
    return tuple(
        g
        if g is None
        else g.contiguous(memory_format=torch.channels_last if g.stride(1) == 1 else torch.contiguous_format)
        for g in gradients
    )
