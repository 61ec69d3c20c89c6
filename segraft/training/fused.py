"""Cross-entropy of upsampled logits without its temporaries: a head's upsampling, softmax and gradient in one go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeferredUpsampling(nn.Module):
    """A head's last bilinear upsampling: done when the model predicts, left to the loss when it trains."""

    def __init__(self, upsampling: nn.Upsample) -> None:
        super().__init__()
        self.upsampling = upsampling

    def forward(self, logits: Tensor) -> Tensor:
        """(N, C, sH, sW) when predicting, the (N, C, H, W) that came in when training."""
        return logits if self.training else self.upsampling(logits)


def defer_upsampling(model: nn.Module) -> nn.Upsample | None:
    """Leave the upsampling at the end of the model's head to the loss; returns it, or None if there is none."""
    head = model.get_submodule("segmentation_head")
    names = [name for name, module in head.named_children() if isinstance(module, nn.Upsample)]
    if len(names) != 1:
        return None
    upsampling = head.get_submodule(names[0])
    assert isinstance(upsampling, nn.Upsample)
    if upsampling.mode != "bilinear" or not isinstance(upsampling.scale_factor, float):
        return None
    setattr(head, names[0], DeferredUpsampling(upsampling))
    return upsampling


def fused_cross_entropy(
    logits: Tensor, masks: Tensor, weights: Tensor | None, ignore_index: int, upsampling: nn.Upsample
) -> Tensor:
    """`losses.cross_entropy` of the upsampled logits, in float32, about three times faster on a CPU.

    Bilinear upsampling is linear in rows and in columns, so it is a matrix product on either side, and so is its
    gradient. The loss and its gradient are worked out together, image by image, while an image's logits are in the
    cache; the full-size logits of the batch, their softmax and their gradients are never written to memory.

    Args:
        logits: (N, C, h, w), any float dtype.
        masks: (N, H, W) int64 trainIds or ignore_index.
        weights: (C,) or None.
        ignore_index: pixels with it add nothing.
        upsampling: how (h, w) becomes (H, W).
    """
    rows, columns = (_matrix(side, upsampling).to(logits.device) for side in logits.shape[2:])
    assert (len(rows), len(columns)) == tuple(masks.shape[1:])
    loss: Tensor = _FusedCrossEntropy.apply(logits, masks, weights, ignore_index, rows, columns)  # type: ignore[no-untyped-call]
    return loss


def _matrix(side: int, upsampling: nn.Upsample) -> Tensor:
    """(s·side, side) what linear upsampling of one dimension multiplies by."""
    unit, factor = torch.eye(side)[None], upsampling.scale_factor
    return functional.interpolate(unit, scale_factor=factor, mode="linear", align_corners=upsampling.align_corners)[0].T


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        masks: Tensor,
        weights: Tensor | None,
        ignore_index: int,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        known = masks != ignore_index
        labels = masks.masked_fill(~known, 0)
        scale = known.float() if weights is None else known * weights[labels]
        gradient = torch.empty_like(logits)
        total = torch.zeros((), device=logits.device)
        for image, label, factor, slope in zip(logits, labels, scale, gradient, strict=True):
            log_p = torch.log_softmax(rows @ (image.float().contiguous() @ columns.T), 0)
            total -= (log_p.gather(0, label[None])[0] * factor).sum()
            p = log_p.exp_().mul_(factor)
            p.scatter_add_(0, label[None], -factor[None])
            slope.copy_(rows.T @ p @ columns)
        count = known.sum().clamp(min=1)
        ctx.save_for_backward(gradient.div_(count))
        return total / count

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None, None
