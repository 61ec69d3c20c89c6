"""Whole-image inference: uint8 RGB in, uint8 trainIds out; all preprocessing comes from the model's own card."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segraft.checkpoint import ModelCard, load_model
from segraft.device import autocast, setup
from segraft.evaluation.windows import windowed
from segraft.models.network import MULTIPLE

if TYPE_CHECKING:
    from pathlib import Path

    from segraft.data.packed import DatasetCard, Packed
    from segraft.params import Crf, Evaluate

Pixels = NDArray[np.uint8]
POOL = 8
"""Batches' worth of images that may wait for others of their size."""


class Predictor:
    """A model folder, ready to be asked.

    Args:
        folder: the model folder.
        threads: CPU threads (0: all that the process may use).
        dataset: card of a packed dataset in whose classes to answer; None: in the model's own.
        how: windows and CRF; None: neither.

    Raises:
        UserError: the folder is not whole, or nothing links its classes with the dataset's.
    """

    def __init__(
        self, folder: Path, threads: int = 0, dataset: DatasetCard | None = None, how: Evaluate | None = None
    ) -> None:
        self.name, self.how = folder.name, how
        device = setup(threads)
        model, self.card = load_model(folder)
        if dataset:
            from segraft.training.transfer import translated

            model, self.card = translated(model, self.card, dataset, str(folder))
        self.model: torch.nn.Module = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def adapt(self, samples: Iterable[Packed], batch_size: int) -> None:
        """Take BatchNorm's statistics anew on what the network sees of images to be predicted, if `how` says so."""
        if self.how and self.how.adapt_batch_norm:
            from segraft.training.batchnorm import norms, reestimate

            if not norms(self.model):
                print(f"without effect: evaluate.adapt_batch_norm: {self.name} has no BatchNorm")
                return
            device = next(self.model.parameters()).device
            inputs = (
                network_input(self.card, [s.image for s in part], device) for part in batches(samples, batch_size)
            )
            reestimate(self.model, inputs, functools.partial(_logits, self.model, self.how))

    def __call__(self, images: Sequence[Pixels]) -> list[Pixels]:
        """(H, W) uint8 trainIds of each (H, W, 3) uint8 RGB image; sizes may differ."""
        return predict(self.model, self.card, images, self.how)


def predict(
    model: torch.nn.Module, card: ModelCard, images: Sequence[Pixels], how: Evaluate | None = None
) -> list[Pixels]:
    """Class of each pixel of a few images.

    Images whose sizes round up to the same multiple of 32 go through the network as one batch: the caller bounds the
    memory. They are padded by mirroring below and to the right, and the answer is cut back.

    Args:
        model: a network in eval mode, on the device that is to do the work.
        card: its card.
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        how: windows and CRF; None: neither.

    Returns:
        (H, W) uint8 trainIds of each image, in order.
    """
    masks: list[Pixels] = [np.empty(0, np.uint8)] * len(images)
    for size in dict.fromkeys(padded_size(image) for image in images):
        chosen = [i for i, image in enumerate(images) if padded_size(image) == size]
        answers = _forward(model, card, [images[i] for i in chosen], how)
        for i, answer in zip(chosen, answers, strict=True):
            masks[i] = answer[: images[i].shape[0], : images[i].shape[1]]
    return masks


@torch.inference_mode()
def _forward(model: torch.nn.Module, card: ModelCard, images: Sequence[Pixels], how: Evaluate | None) -> Pixels:
    """Images of one padded size → (N, H, W) uint8 of that size."""
    device = next(model.parameters()).device
    with autocast(device, "auto")():
        batch = network_input(card, images, device)
        logits = _logits(model, how, batch)
    if how and how.crf.iterations:
        return np.stack([_refined(*pair, how.crf) for pair in zip(logits, images, strict=True)])
    best = logits.max(1).indices  # in channels_last twice as fast as argmax
    masks: Pixels = best.to(torch.uint8).cpu().numpy()
    return masks


def _logits(model: torch.nn.Module, how: Evaluate | None, images: Tensor) -> Tensor:
    logits: Tensor = windowed(model, images, how.window) if how and how.window else model(images)
    return logits


def _refined(logits: Tensor, image: Pixels, crf: Crf) -> Pixels:
    """(C, H, W) logits of one image → (H, W) uint8, along the image's edges."""
    from segraft.evaluation.crf import refine

    probabilities = logits.float().softmax(0).permute(1, 2, 0).contiguous().cpu().numpy()
    best: Pixels = refine(probabilities, _pad(image, padded_size(image)), crf).argmax(2).astype(np.uint8)
    return best


def network_input(card: ModelCard, images: Sequence[Pixels], device: torch.device) -> Tensor:
    """(N, 3, H, W) float32 of the (h, w, 3) uint8 RGB images of one padded size (H, W)."""
    how = card.preprocessing
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (how.mean, how.std))
    stacked = np.stack([_pad(image, padded_size(image)) for image in images])
    batch = torch.from_numpy(stacked).to(device).permute(0, 3, 1, 2)  # the bytes of NHWC are channels_last already
    return (batch / 255 - mean) / std


def padded_size(image: Pixels) -> tuple[int, int]:
    """Height and width of an image, rounded up to what the networks take."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in image.shape[:2])
    return height, width


def _pad(image: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = image.shape[:2]
    padded: Pixels = cv2.copyMakeBorder(image, 0, size[0] - height, 0, size[1] - width, cv2.BORDER_REFLECT)
    return padded


def batches(samples: Iterable[Packed], batch_size: int) -> Iterator[list[Packed]]:
    """Samples in batches of one padded size, in one pass and bounded memory.

    A batch is smaller than asked for when a size has too few images, or when too many images wait for their like.
    """
    waiting: dict[tuple[int, int], list[Packed]] = {}
    for sample in samples:
        size = padded_size(sample.image)
        waiting.setdefault(size, []).append(sample)
        if len(waiting[size]) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= POOL * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()
