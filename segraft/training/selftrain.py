"""Self-training on unlabelled images: an averaged teacher labels them, a disturbed student learns the labels.

ClassMix pastes half of a labelled image's classes into an unlabelled one (Olsson et al. 2021; DACS, Tranheden et al.
2021); masked consistency hides patches, so that the student must infer them from their surroundings (MIC, Hoyer et al.
2023). The loss weighs as much as the share of pixels that the teacher is sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segraft.data.loader import Batch, Loader
from segraft.errors import UserError
from segraft.params import SelfTrain


class SelfTraining:
    """The loss of the unlabelled images.

    Args:
        knobs: the params section.
        seed: of what is pasted and hidden; with the numbers of the step and of the sample it decides both.
        loader: of the unlabelled images.
        ignore_index: of the labelled masks.
        first: place in a batch of this process's first sample, where several share a batch.

    Raises:
        UserError: there are no unlabelled images.
    """

    def __init__(self, knobs: SelfTrain, seed: int, loader: Loader, ignore_index: int, first: int = 0) -> None:
        if not len(loader.split):
            raise UserError(
                "self_train: the packed dataset has no unlabelled images; name some in augment.unlabelled, or set "
                "self_train.weight to 0"
            )
        self._knobs, self._seed, self._loader, self._ignore, self._first = knobs, seed, loader, ignore_index, first
        self._batches: Iterator[Batch] | None = None

    def __call__(
        self,
        step: int,
        total: int,
        images: Tensor,
        masks: Tensor,
        normalise: Callable[[Tensor], Tensor],
        student: Callable[[Tensor], Tensor],
        teacher: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The weighted loss, a float32 scalar.

        Args:
            step: number of the step; the first call may be at any, each further one is at the next.
            total: steps of the run.
            images: (N, h, w, 3) uint8 RGB, labelled.
            masks: (N, h, w) int64 trainIds of theirs.
            normalise: (N, h, w, 3) uint8 → (N, 3, h, w).
            student: normalised images → (N, C, h, w) logits, with gradients.
            teacher: the same, of the network that labels them.
        """
        self._batches = self._batches or self._loader.batches(step, total)
        bare = torch.from_numpy(next(self._batches).images).to(images.device)
        labels, sure = pseudo_labels(teacher, normalise(bare), self._knobs.threshold)
        seeds = ([self._seed, 2, step, self._first + place] for place in range(len(masks)))
        chances = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        pasted = torch.stack([self._choose(mask, rng) for mask, rng in zip(masks, chances, strict=True)])
        mixed = normalise(torch.where(pasted[..., None], images, bare))
        labels = torch.where(pasted, masks, labels)
        weights = torch.where(pasted, 1.0, sure[:, None, None])
        logits = student(mixed * self._shown(mixed, chances))
        each = functional.cross_entropy(logits.float(), labels, ignore_index=self._ignore, reduction="none")
        return self._knobs.weight * (each * weights).mean()

    def _choose(self, mask: Tensor, rng: np.random.Generator) -> Tensor:
        """(h, w) bool: the pixels of a random half of the classes in (h, w), or none."""
        present = [label for label in np.unique(mask.cpu().numpy()).tolist() if label != self._ignore]
        if rng.random() >= self._knobs.mix or not present:
            return torch.zeros_like(mask, dtype=torch.bool)
        chosen = rng.permutation(present)[: (len(present) + 1) // 2]
        return torch.isin(mask, torch.from_numpy(chosen).to(mask.device))

    def _shown(self, images: Tensor, chances: Sequence[np.random.Generator]) -> Tensor:
        """(N, 1, h, w) 0 in the hidden patches, 1 elsewhere."""
        patch, (height, width) = self._knobs.patch, images.shape[2:]
        size = (1, -(-height // patch), -(-width // patch))
        patches = np.stack([rng.random(size) for rng in chances]) >= self._knobs.mask
        shown = torch.from_numpy(patches.astype(np.float32)).to(images.device)
        return functional.interpolate(shown, scale_factor=patch, mode="nearest")[..., :height, :width]


@torch.no_grad()
def pseudo_labels(teacher: Callable[[Tensor], Tensor], images: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """What a teacher sees.

    Returns:
        (N, h, w) int64 trainIds, and (N,) the share of each image's pixels whose probability is above the threshold.
    """
    best = torch.softmax(teacher(images).float(), 1).max(1)
    return best.indices, (best.values > threshold).float().mean((1, 2))
