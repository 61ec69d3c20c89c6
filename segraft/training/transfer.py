"""Moving what one model learned into another: graft its weights, and transplant its classifier between label sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segraft.errors import UserError

if TYPE_CHECKING:
    from segraft.checkpoint import ModelCard
    from segraft.data.packed import DatasetCard

ENCODER, HEAD = "encoder.", "segmentation_head."
PERTURBATION = 0.02
"""Size of what is added to the copies of one row, in standard deviations of the row: else they could never part."""
NEVER = -1e4
"""Logit of a class that the model does not know; finite, so that 0 · NEVER is 0."""
Links = NDArray[np.bool_]
"""(ours, theirs): which class of another label set goes with which of ours"""


FILLED = ("kept", "transplanted")
"""Outcomes of a tensor that another model has filled."""


class Graft(NamedTuple):
    """What became of one tensor of the model."""

    tensor: str
    outcome: Literal["kept", "transplanted", "skipped", "mismatched"]
    why: str = ""


def links(theirs: ModelCard, ours: DatasetCard) -> Links:
    """Which class of a model goes with which of a dataset: by the taxonomies' map, or by name where there is none."""
    mine, other = [c.name for c in ours.classes], [c.name for c in theirs.classes]
    same = [(name, name) for name in mine]
    pairs = set(ours.kin.get(theirs.taxonomy, same) if theirs.taxonomy != ours.taxonomy else same)
    return np.array([[(b, a) in pairs for b in other] for a in mine], bool)


def graft(model: nn.Module, donor: dict[str, Tensor], classes: Links, same_encoder: bool = True) -> list[Graft]:
    """Copy every tensor of `donor` that fits into `model`, and transplant the classifier; report each tensor of either.

    Args:
        model: changed in place.
        donor: a state dict.
        classes: how the donor's classes (columns) go with the model's (rows).
        same_encoder: whether they have one; else the model's is left alone, though names and shapes of parts may fit.

    Returns:
        One entry a tensor: kept, transplanted (a classifier of other classes), mismatched (another shape) or skipped
        (not in the other).
    """
    own = model.state_dict()
    new, report = dict(own), []
    summed = sum(name.startswith(HEAD) and name in donor and tensor.ndim == 1 for name, tensor in own.items())
    for name, tensor in own.items():
        if name.startswith(ENCODER) and not same_encoder:
            report.append(Graft(name, "skipped", "another encoder"))
            continue
        grown, entry = _fit(name, tensor, donor, classes, summed)
        new[name] = grown
        report.append(entry)
    report += [Graft(name, "skipped", "not in this model") for name in donor if name not in own]
    model.load_state_dict(new)
    return report


def _fit(name: str, tensor: Tensor, donor: dict[str, Tensor], classes: Links, summed: int) -> tuple[Tensor, Graft]:
    if name not in donor:
        return tensor, Graft(name, "skipped", "not in the pretrained model")
    ours, theirs = classes.shape
    other = donor[name]
    same_classes = ours == theirs and bool(np.array_equal(classes, np.eye(ours, dtype=bool)))
    if name.startswith(HEAD) and not same_classes and tensor.ndim and (len(tensor), len(other)) == (ours, theirs):
        if not classes.any():
            return tensor, Graft(name, "mismatched", "nothing says which of its classes are the model's")
        if tensor.shape[1:] != other.shape[1:]:
            return tensor, Graft(name, "mismatched", f"{tuple(other.shape[1:])} is not {tuple(tensor.shape[1:])}")
        return transplant(tensor, other, classes, summed), Graft(name, "transplanted", describe(classes))
    if other.shape != tensor.shape:
        return tensor, Graft(name, "mismatched", f"{tuple(other.shape)} is not {tuple(tensor.shape)}")
    return other, Graft(name, "kept")


def describe(classes: Links) -> str:
    """How the rows of a classifier came about, in numbers."""
    parents, children = classes.sum(1), classes.sum(0)
    split = np.array([bool((children[row] > 1).any()) for row in classes])
    kinds = {
        "copied": (parents == 1) & ~split,
        "merged": (parents > 1) & ~split,
        "split": (parents > 0) & split,
        "new": parents == 0,
    }
    return ", ".join(f"{count} {kind}" for kind, which in kinds.items() if (count := int(which.sum())))


def transplant(own: Tensor, other: Tensor, classes: Links, summed: int = 1) -> Tensor:
    """Rows of a classifier, or its bias, for other classes.

    A class that goes with one of theirs has its row. One that goes with several has the mean of their rows, and
    their mean bias + log n: the logarithm of the summed probabilities, where these are alike. Classes that share one of
    theirs have its row with a slight perturbation, and its bias - log n: they share its probability. A new class keeps
    the row that chance gave it.

    Args:
        own: (ours, …) as initialised.
        other: (theirs, …).
        classes: (ours, theirs).
        summed: how many classifiers the head adds up; each has its part of what the bias is to gain or lose.
    """
    rows = own.clone()
    children = classes.sum(0)
    for i, row in enumerate(classes):
        parents = np.flatnonzero(row)
        if not len(parents):
            continue
        share = torch.tensor([math.log(children[p]) for p in parents])
        chosen = other[torch.from_numpy(parents)]
        rows[i] = chosen.mean(0)
        if own.ndim == 1:
            rows[i] += (math.log(len(parents)) - float(share.mean())) / summed
        elif (children[parents] > 1).any():
            rows[i] += PERTURBATION * rows[i].std() * torch.randn_like(rows[i])
    return rows


class Translated(nn.Module):
    """A model that answers in other classes, exactly: the probability of ours is the sum of theirs that go with it.

    Args:
        model: (N, 3, H, W) → (N, theirs, H, W) logits.
        classes: (ours, theirs).
    """

    def __init__(self, model: nn.Module, classes: Links) -> None:
        super().__init__()
        self.model = model
        self.encoder = model.get_submodule("encoder")
        self.known = np.flatnonzero(classes.any(1)).tolist()
        """those of ours that it can tell"""
        self._parents = [np.flatnonzero(row).tolist() for row in classes]
        self._shares = np.log(np.maximum(classes.sum(0), 1)).tolist()

    def forward(self, images: Tensor) -> Tensor:
        """(N, ours, H, W) logits."""
        logits = self.model(images)
        return torch.stack([self._one(logits, parents) for parents in self._parents], 1)

    def _one(self, logits: Tensor, parents: Sequence[int]) -> Tensor:
        if not parents:
            return torch.full_like(logits[:, 0], NEVER)
        shared = torch.stack([logits[:, p] - self._shares[p] for p in parents], 1)
        return shared.logsumexp(1) if len(parents) > 1 else shared[:, 0]


def translated(model: nn.Module, card: ModelCard, dataset: DatasetCard, where: str) -> tuple[nn.Module, ModelCard]:
    """A model and its card in a dataset's classes; the model itself if it has them already.

    Raises:
        UserError: none of its classes is one of the dataset's.
    """
    if [c.name for c in card.classes] == [c.name for c in dataset.classes]:
        return model, card
    classes = links(card, dataset)
    if not classes.any():
        raise UserError(
            f"{where}: knows the classes of {card.taxonomy}, and nothing says which of {dataset.taxonomy} they are; "
            f"write maps.{card.taxonomy} in data/taxonomies/{dataset.taxonomy}.yaml and run the augment step again"
        )
    update = {"classes": dataset.classes, "taxonomy": dataset.taxonomy}
    return Translated(model, classes), card.model_copy(update=update)
