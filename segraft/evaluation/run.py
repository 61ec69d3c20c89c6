"""Scoring a model folder on a split of a packed dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segraft.checkpoint import ModelCard
from segraft.data.packed import Packed, PackedDataset, PackedSplit
from segraft.errors import UserError
from segraft.evaluation import scores
from segraft.evaluation.confusion import Matrix, confusion
from segraft.evaluation.intervals import interval, resampled_miou
from segraft.evaluation.predict import Predictor, batches
from segraft.params import Evaluate
from segraft.progress import progress


@dataclass(frozen=True)
class Scores:
    """What a model scored on a split: the confusion matrix of all of it, and what every score needs of each image."""

    card: ModelCard
    dataset: str
    """fingerprint of the packed dataset"""
    split: str
    matrix: Matrix
    ids: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    counts: scores.Counts
    """(N, 3, C): `scores.counts` of each image, in the order of the split"""

    @property
    def miou(self) -> float:
        """Mean IoU of the split."""
        return float(scores.miou(self.matrix))

    @property
    def image_miou(self) -> scores.Floats:
        """(N,) mean IoU of each image alone, over the classes that its label shows."""
        return scores.mean(scores.iou_of_counts(self.counts))

    def slices(self, labels: Sequence[Sequence[str]]) -> dict[str, float | None]:
        """Label → mean IoU of the images that carry it; `labels` has an entry an image."""
        images: dict[str, list[int]] = {}
        for image, of_image in enumerate(labels):
            for name in of_image:
                images.setdefault(name, []).append(image)
        totals = {name: self.counts[images[name]].sum(0) for name in sorted(images)}
        return {name: number(scores.mean(scores.iou_of_counts(total))) for name, total in totals.items()}

    def as_json(self) -> dict[str, Any]:
        """The scores with plain types; what is not defined is None. docs/metrics.md explains each."""
        names = [c.name for c in self.card.classes]
        per_class = {"iou": scores.iou(self.matrix), "dice_by_class": scores.dice(self.matrix)}
        return {
            "miou": number(self.miou),
            "miou_interval": [number(end) for end in interval(resampled_miou(self.counts))],
            "pixel_accuracy": number(scores.pixel_accuracy(self.matrix)),
            "mean_accuracy": number(scores.mean_accuracy(self.matrix)),
            "dice": number(scores.mean(scores.dice(self.matrix))),
            **{name: dict(zip(names, map(number, values), strict=True)) for name, values in per_class.items()},
            "slices": self.slices(self.tags),
            "groups": self.slices([(group,) for group in self.groups]),
            "weights_sha256": self.card.weights_sha256,
        }


def number(value: Any) -> float | None:
    """A float for JSON: NaN, a score that is not defined, is None."""
    return None if math.isnan(value) else float(value)


def score(
    model_folder: Path, dataset: Path, split: str, batch_size: int, threads: int = 0, how: Evaluate | None = None
) -> Scores:
    """Score a model on a split: one pass, in memory that grows by a few numbers an image.

    Args:
        model_folder: a model folder.
        dataset: a packed dataset; a model of other classes answers in its classes through the taxonomies' map.
        split: train, val or test.
        batch_size: images a forward pass.
        threads: CPU threads (0: all that the process may use).
        how: windows and CRF; None: neither.

    Raises:
        UserError: the split has no labelled pixel, or nothing links the model's classes with the dataset's.
    """
    packed = PackedDataset(dataset)
    return score_predictor(Predictor(model_folder, threads, packed.card, how), packed, split, batch_size)


def score_predictor(predictor: Predictor, packed: PackedDataset, split: str, batch_size: int) -> Scores:
    """As `score`, by a predictor that answers in the dataset's classes; what it adapts to the split stays so."""
    dataset = packed.location
    if not len(packed.split(split)):
        raise UserError(f"{dataset}: split {split} has no samples; a model can only be scored on labelled images")
    predictor.adapt(packed.split(split), batch_size)
    classes, ignore_index = len(packed.card.classes), packed.card.ignore_index
    seen: list[tuple[str, tuple[str, ...], str]] = []
    counts: dict[str, scores.Counts] = {}
    total = np.zeros((classes, classes), np.int64)
    for batch in batches(_noted(packed.split(split), seen, f"score {predictor.name}"), batch_size):
        for sample, mask in zip(batch, predictor([s.image for s in batch]), strict=True):
            matrix = confusion(sample.mask, mask, classes, ignore_index)
            total += matrix
            counts[sample.id] = scores.counts(matrix)
    if not total.any():
        raise UserError(f"{dataset}: the masks of split {split} hold ignored pixels alone; there is nothing to score")
    ids, tags, groups = zip(*seen, strict=True)
    in_order = np.stack([counts[sample_id] for sample_id in ids])
    return Scores(predictor.card, packed.card.fingerprint, split, total, ids, tags, groups, in_order)


def _noted(samples: PackedSplit, seen: list[tuple[str, tuple[str, ...], str]], what: str) -> Iterator[Packed]:
    """The samples; `seen` keeps their order, which batches of one size do not."""
    for sample in progress(samples, what):
        seen.append((sample.id, sample.tags, sample.group))
        yield sample
