"""Distillation: a teacher's answers as further labels, for every pixel and all classes at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segraft.checkpoint import ModelCard
from segraft.params import Distill
from segraft.training.transfer import Translated

GRID = 16
"""Features are compared between at most so many places a side."""


class Distillation:
    """The loss by which a student follows a teacher.

    Args:
        knobs: the params section.
        teacher: a network in eval mode, on the device, that answers in the student's classes; of those that it does not
            know, nothing is learned from it.
        card: the teacher's; it normalises the images as its teacher learned them.
        student: with kind feature, what its encoder gives is listened to.
    """

    def __init__(self, knobs: Distill, teacher: nn.Module, card: ModelCard, student: nn.Module) -> None:
        self._knobs, self._teacher = knobs, teacher.requires_grad_(False)
        device = next(teacher.parameters()).device
        how = card.preprocessing
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in (how.mean, how.std))
        self._known = teacher.known if isinstance(teacher, Translated) else slice(None)
        self._encoders = [model.get_submodule("encoder") for model in (student, teacher)]
        self._last: dict[nn.Module, Tensor] = {}
        if knobs.kind == "feature":
            for encoder in self._encoders:
                encoder.register_forward_hook(self._listen)

    def _listen(self, encoder: nn.Module, images: Any, features: list[Tensor]) -> None:
        self._last[encoder] = features[-1]

    def __call__(
        self,
        images: Tensor,
        logits: Tensor,
        autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> Tensor:
        """The weighted loss, a float32 scalar, of the student's last forward pass.

        Args:
            images: (N, h, w, 3) uint8 RGB on the device.
            logits: (N, C, h/s, w/s) of the student, to whose size the teacher's are resized.
            autocast: how the teacher is to compute; the loss is float32.
        """
        with torch.no_grad(), autocast():
            normalised = images.permute(0, 3, 1, 2).float().sub_(self._mean).div_(self._std)
            answer = self._teacher(normalised).float()[:, self._known]
        own = logits.float()[:, self._known]
        match self._knobs.kind:
            case "logit":
                loss = logit_loss(own, answer, self._knobs.temperature)
            case "channel":
                loss = channel_loss(own, answer, self._knobs.temperature)
            case "feature":
                loss = feature_loss(*(self._last.pop(encoder).float() for encoder in self._encoders))
        return self._knobs.weight * loss


def _resized(answer: Tensor, like: Tensor) -> Tensor:
    if answer.shape[2:] == like.shape[2:]:
        return answer
    return functional.interpolate(answer, like.shape[2:], mode="bilinear", align_corners=False)


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence between the classes of each pixel, times T² (Hinton et al. 2015); mean over the pixels."""
    own, other = (torch.log_softmax(z / temperature, 1) for z in (student, _resized(teacher, student)))
    pixels = own.numel() / own.shape[1]
    return temperature**2 * functional.kl_div(own, other, log_target=True, reduction="sum") / pixels


def channel_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence between the places of each class's map, times T² (Shu et al. 2021); mean over maps.

    It asks where a class is likeliest, not how likely: the small and rare weigh as much as the road.
    """
    own, other = (torch.log_softmax(z.flatten(2) / temperature, 2) for z in (student, _resized(teacher, student)))
    maps = own.shape[0] * own.shape[1]
    return temperature**2 * functional.kl_div(own, other, log_target=True, reduction="sum") / maps


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of how alike any two places are (Liu et al. 2019); the widths may differ."""
    height, width = (min(GRID, *sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    own, other = (_similarities(functional.adaptive_avg_pool2d(f, (height, width))) for f in (student, teacher))
    return functional.mse_loss(own, other)


def _similarities(features: Tensor) -> Tensor:
    """(N, P, P) cosines between the P places of (N, C, h, w)."""
    places = functional.normalize(features.flatten(2), dim=1)
    return places.transpose(1, 2) @ places
