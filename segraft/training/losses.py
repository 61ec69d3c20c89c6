"""Losses of dense prediction, all blind to ignored pixels; `Loss` adds up the ones that the knobs name.

Every loss takes (N, C, H, W) logits of any float dtype, computes in float32, and is 0 with a gradient of 0 where every
pixel is ignored. segmentation_models_pytorch has some of them, but its Dice divides by the classes that are absent too,
its Lovász gives an empty tensor when all is ignored, and its focal loss is a sum of one-against-rest losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segraft.errors import UserError
from segraft.params import LossName, Training
from segraft.training.fused import defer_upsampling, fused_cross_entropy

if TYPE_CHECKING:
    from segraft.data.packed import CoarseCard, SplitCard

ClassWeights = Literal["none", "inverse", "inverse_sqrt", "median_frequency", "effective_number"]
MOST = 10
"""How many times the smallest class weight the largest may be."""
EPSILON = 1e-6


def class_weights(class_pixels: Sequence[int], kind: ClassWeights, shown_pixels: Sequence[int] = ()) -> Tensor | None:
    """(classes,) float32 weights whose mean over the pixels is 1; None for none, and where no pixel is labelled.

    With f a class's share of the pixels:

    - inverse: 1 / f.
    - inverse_sqrt: 1 / √f, a milder form.
    - median_frequency: median(g) / g, g a class's share of the pixels of the images that show it (Eigen & Fergus 2015).
    - effective_number: (1 - β) / (1 - β^n) (Cui et al. 2019), n a class's pixels. Their β = 0.9999 would weigh all
      classes of a megapixel dataset alike; β = (N - 1) / N with N the mean number of pixels a class keeps it between
      inverse frequency, for rare classes, and no weighting, for those beyond the mean.

    Weights are at most ten times the smallest of a class that occurs, for a class of a few pixels would otherwise set
    the gradient; classes that do not occur weigh 1.

    Args:
        class_pixels: pixels of each class.
        kind: the rule.
        shown_pixels: labelled pixels of the images that show each class; only median_frequency reads them.

    Raises:
        UserError: median_frequency without `shown_pixels`: the dataset was packed by an earlier version.
    """
    if kind == "none" or not any(class_pixels):
        return None
    pixels = torch.tensor(class_pixels, dtype=torch.float64)
    share = pixels / pixels.sum()
    present = share > 0
    if kind == "median_frequency" and len(shown_pixels) != len(class_pixels):
        raise UserError(
            "class_weights: median_frequency: the packed dataset does not say which images show a class; "
            "run the augment step again, or say inverse"
        )
    weights = torch.ones_like(share)
    raw = _raw_weights(share[present], kind, pixels[present] / torch.tensor(shown_pixels or class_pixels)[present])
    raw = raw.clamp(max=MOST * float(raw.min()))
    weights[present] = raw / (raw * share[present]).sum()
    return weights.float()


def _raw_weights(share: Tensor, kind: ClassWeights, where_shown: Tensor) -> Tensor:
    match kind:
        case "inverse_sqrt":
            return share**-0.5
        case "effective_number":
            return 1 / (1 - torch.exp(-len(share) * share))  # β^n = ((N - 1) / N)^n ≈ exp(-n / N)
        case "median_frequency":
            return where_shown.median() / where_shown
        case _:
            return 1 / share


def cross_entropy(
    logits: Tensor, masks: Tensor, weights: Tensor | None, ignore_index: int, smoothing: float = 0.0
) -> Tensor:
    """Mean over the pixels that are not ignored; 0, with a gradient of 0, if all are.

    Args:
        logits: (N, C, H, W), any float dtype; the loss is computed in float32.
        masks: (N, H, W) int64 trainIds or ignore_index.
        weights: (C,) or None. The weighted sum is divided by the number of pixels, not by their weights, so that a crop
            of common classes does not count as much as one of rare ones.
        ignore_index: pixels with it add nothing.
        smoothing: share of a pixel's label that is spread over all classes (Szegedy et al. 2016).
    """
    total = functional.cross_entropy(
        logits.float(), masks, weights, ignore_index=ignore_index, reduction="sum", label_smoothing=smoothing
    )
    return total / (masks != ignore_index).sum().clamp(min=1)


def ohem(
    logits: Tensor, masks: Tensor, weights: Tensor | None, ignore_index: int, keep: float, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the hardest share `keep` of the pixels alone (Shrivastava et al. 2016; Wu et al. 2016)."""
    each = functional.cross_entropy(
        logits.float(), masks, weights, ignore_index=ignore_index, reduction="none", label_smoothing=smoothing
    )
    known = each[masks != ignore_index]
    if not known.numel():
        return each.sum()  # of zeros: keeps the graph
    return known.topk(max(1, round(keep * known.numel()))).values.mean()


def focal(logits: Tensor, masks: Tensor, weights: Tensor | None, ignore_index: int, gamma: float) -> Tensor:
    """Cross-entropy of each pixel times (1 - p)^γ, p its class's probability (Lin et al. 2017); mean over pixels."""
    log_p = torch.log_softmax(logits.float(), 1)
    known = masks != ignore_index
    label = masks.where(known, 0)
    own = log_p.gather(1, label[:, None])[:, 0]
    # 1 - p may be 0, where the power's slope is infinite for γ < 1.
    each = -own * (1 - own.exp()).clamp(min=EPSILON) ** gamma
    if weights is not None:
        each = each * weights[label]
    return (each * known).sum() / known.sum().clamp(min=1)


def tversky(logits: Tensor, masks: Tensor, ignore_index: int, alpha: float, beta: float) -> Tensor:
    """1 - TP / (TP + α FP + β FN), soft, over the batch; mean over the classes that its labels show.

    β > α makes a missed pixel dearer than a false one (Salehi et al. 2017). α = β = ½ is the Dice loss.
    """
    p, truth, _ = _probabilities(logits, masks, ignore_index)
    hit, said, real = (t.sum((0, 2, 3)) for t in (p * truth, p, truth))
    index = hit / (hit + alpha * (said - hit) + beta * (real - hit)).clamp(min=EPSILON)
    present = real > 0
    return ((1 - index) * present).sum() / present.sum().clamp(min=1)


def dice(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """1 - 2 TP / (2 TP + FP + FN), soft, over the batch (Milletari et al. 2016); mean over the classes it shows."""
    return tversky(logits, masks, ignore_index, 0.5, 0.5)


def lovasz(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Lovász-softmax, the convex closure of 1 - IoU, over the batch (Berman et al. 2018); mean over its classes."""
    p = torch.softmax(logits.float(), 1).movedim(1, -1)
    known = masks != ignore_index
    p, labels = p[known], masks[known]
    losses = []
    for label in range(p.shape[1]):
        truth = (labels == label).float()
        if not truth.any():
            continue
        errors, order = (truth - p[:, label]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(truth[order]))
    return torch.stack(losses).mean() if losses else logits.float().sum() * 0


def _jaccard_steps(truth: Tensor) -> Tensor:
    """(P,) by how much 1 - IoU grows with each pixel that is wrong, in this order.

    The differences in closed form: those of neighbours, each near 1, would keep few of float32's digits, and none of a
    rare class's.
    """
    found = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    return torch.where(truth > 0, 1 / union, found / union / (union - 1).clamp(min=1))


def boundary(logits: Tensor, masks: Tensor, ignore_index: int, width: int = 3, tolerance: int = 5) -> Tensor:
    """1 - F1 of the classes' boundaries, soft, over the batch (Bokhovkin & Burnaev 2019); mean over the classes shown.

    It does not see which side of a boundary a class is on, so it is added to a loss that does.

    Args:
        logits: (N, C, H, W).
        masks: (N, H, W) int64.
        ignore_index: pixels next to an ignored one are no boundary: their true neighbour is not known.
        width: window, pixels, in which a class's last pixel is found.
        tolerance: window, pixels, in which a boundary counts as hit.
    """
    p, truth, known = _probabilities(logits, masks, ignore_index)
    known = 1 - _spread(1 - known, width)
    said, real = ((_spread(1 - t, width) - (1 - t)) * known for t in (p, truth))
    precision, recall = (
        (line * _spread(other, tolerance)).sum((0, 2, 3)) / line.sum((0, 2, 3)).clamp(min=EPSILON)
        for line, other in ((said, real), (real, said))
    )
    f1 = 2 * precision * recall / (precision + recall).clamp(min=EPSILON)
    present = real.sum((0, 2, 3)) > 0
    return ((1 - f1) * present).sum() / present.sum().clamp(min=1)


def _spread(x: Tensor, window: int) -> Tensor:
    return functional.max_pool2d(x, window, 1, (window - 1) // 2)


def _probabilities(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, H, W) probabilities and one-hot labels, both 0 where ignored, and (N, 1, H, W) 1 where not ignored."""
    known = (masks != ignore_index)[:, None]
    p = torch.softmax(logits.float(), 1) * known
    labels = masks.where(known[:, 0], 0)
    truth = torch.zeros_like(p).scatter_(1, labels[:, None], 1.0) * known
    return p, truth, known.float()


def coarse_cross_entropy(logits: Tensor, masks: Tensor, members: Tensor, weights: Tensor | None) -> Tensor:
    """-log of the summed probability of the classes that a coarse label stands for; sum over the pixels labelled so.

    With one label for car, truck and bus, a pixel of it says no more than that one of the three is there, and the
    gradient leaves open which (a node of YOLO9000's WordTree, Redmon & Farhadi 2017, over one softmax).

    Args:
        logits: (N, C, H, W), any float dtype; the loss is computed in float32.
        masks: (N, H, W) int64; C + k for the k-th coarse label, anything from C + K on adds nothing.
        members: (K, C) bool: the classes of each coarse label.
        weights: (C,) or None; a pixel weighs as its classes do in the mean.
    """
    label = masks - members.shape[1]
    coarse = (label >= 0) & (label < len(members))
    z, label = logits.movedim(1, -1)[coarse].float(), label[coarse]
    within = z.masked_fill(~members[label], -torch.inf).logsumexp(1)
    each = z.logsumexp(1) - within
    if weights is not None:
        each = each * ((members * weights).sum(1) / members.sum(1))[label]
    return each.sum()


class Loss:
    """The weighted sum of the losses that `training.loss` names.

    A coarse label is counted by `coarse_cross_entropy`, with the weight of cross_entropy (1 without it), and is ignored
    by the others; fine and coarse pixels count alike.

    Args:
        training: the knobs.
        split: the train split's card, for the class weights.
        ignore_index: pixels with it add nothing.
        device: where the logits will be.
        coarse: the dataset's labels that stand for several classes.
    """

    def __init__(
        self,
        training: Training,
        split: SplitCard,
        ignore_index: int,
        device: torch.device,
        coarse: Sequence[CoarseCard] = (),
    ) -> None:
        self._ignore, self._training = ignore_index, training
        weights = class_weights(split.class_pixels, training.class_weights, split.shown_pixels)
        self._weights = None if weights is None else weights.to(device)
        self._terms = training.loss
        self._upsampling: nn.Upsample | None = None
        self._members = torch.zeros(len(coarse), len(split.class_pixels), dtype=torch.bool, device=device)
        for number, one in enumerate(coarse):
            self._members[number, list(one.members)] = True

    def take_upsampling(self, model: nn.Module) -> None:
        """Do the upsampling at the model's end here, where cross-entropy is all there is: that is faster on a CPU."""
        alone = set(self._terms) == {"cross_entropy"} and not len(self._members)
        if alone and not self._training.label_smoothing:
            self._upsampling = defer_upsampling(model)

    def full_size(self, logits: Tensor) -> Tensor:
        """(N, C, H, W) of the images' size from what the model gives while it trains."""
        return self._upsampling(logits.float()) if self._upsampling else logits

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Scalar float32 loss of the model's (N, C, H, W) logits and (N, H, W) int64 masks."""
        if self._upsampling:
            scale = self._terms["cross_entropy"]
            return scale * fused_cross_entropy(logits, masks, self._weights, self._ignore, self._upsampling)
        return self._with_coarse(logits, masks) if len(self._members) else self._fine(logits, masks)

    def _with_coarse(self, logits: Tensor, masks: Tensor) -> Tensor:
        labels = masks.where(masks < self._members.shape[1], self._ignore)
        fine, known = ((one != self._ignore).sum() for one in (labels, masks))
        coarse = coarse_cross_entropy(logits, masks, self._members, self._weights)
        return (fine * self._fine(logits, labels) + self._terms.get("cross_entropy", 1.0) * coarse) / known.clamp(min=1)

    def _fine(self, logits: Tensor, masks: Tensor) -> Tensor:
        terms = [self._of(name)(logits, masks) * weight for name, weight in self._terms.items()]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def _of(self, name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
        knobs, ignore, weights = self._training, self._ignore, self._weights
        losses: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
            "cross_entropy": lambda z, y: cross_entropy(z, y, weights, ignore, knobs.label_smoothing),
            "ohem": lambda z, y: ohem(z, y, weights, ignore, knobs.ohem_keep, knobs.label_smoothing),
            "focal": lambda z, y: focal(z, y, weights, ignore, knobs.focal_gamma),
            "dice": lambda z, y: dice(z, y, ignore),
            "tversky": lambda z, y: tversky(z, y, ignore, *knobs.tversky),
            "lovasz": lambda z, y: lovasz(z, y, ignore),
            "boundary": lambda z, y: boundary(z, y, ignore),
        }
        return losses[name]
