"""The rungs: ways to spend one compute budget on a target, as settings of the section finetune."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from segraft.errors import UserError
from segraft.params import Finetune, RungName

FORWARD = 1 / 3
"""A forward pass alone, as a share of a training step; the backward pass costs twice as much (Kaplan et al. 2020)."""
SELF_TRAINED_STEP = 2 + FORWARD
"""A step with as many unlabelled images: a student's step on either, and the teacher's answer."""
SOURCELESS: tuple[RungName, ...] = ("scratch", "scratch_total", "encoder", "encoder_total")
TOTAL: tuple[RungName, ...] = ("scratch_total", "encoder_total")
"""Rungs that spend the pretraining's compute on the target, too."""
UNTRAINED: tuple[RungName, ...] = ("source",)
PLAIN: dict[str, Any] = {"freeze": "none", "lora_rank": 0, "source_share": 0.0}
WITHOUT_SOURCE: dict[str, Any] = PLAIN | {"l2_sp": 0.0}
CHANGES: Mapping[RungName, Mapping[str, Any]] = {
    "encoder": WITHOUT_SOURCE,
    "encoder_total": WITHOUT_SOURCE,
    "probe": PLAIN | {"freeze": "body", "batch_norm": "frozen"},
    "frozen": PLAIN | {"freeze": "encoder"},
    "gradual": PLAIN | {"freeze": "gradual"},
    "full": PLAIN,
    "mixed": PLAIN | {"source_share": 0.5},
    "distilled": PLAIN,
    "self_train": PLAIN,
}
"""Rung → what it changes in finetune; the rungs that are not here change nothing."""


def settings(rung: RungName, finetune: Finetune, seed: int) -> Finetune:
    """The section finetune as a rung uses it, at the compute of the section as it is.

    Args:
        rung: its name.
        finetune: the section.
        seed: of the training.

    Raises:
        UserError: the compute would depend on the number of labels, or does not suffice for one step an epoch.
    """
    if not finetune.steps_per_epoch or not finetune.epochs or finetune.patience:
        raise UserError(
            "ladder: rungs of equal compute need finetune.epochs and finetune.steps_per_epoch above 0, and patience 0"
        )
    update: dict[str, Any] = {"seed": seed}
    if rung != "finetune":
        weight = 1.0 if rung == "self_train" else 0.0
        update |= {"self_train": finetune.self_train.model_copy(update={"weight": weight})}
        teacher = "pretrained" if rung == "distilled" else None
        update |= {"distill": finetune.distill.model_copy(update={"teacher": teacher})}
    if rung == "self_train" and not finetune.ema:
        raise UserError("ladder: self_train: its teacher is the averaged model; give finetune.ema a value above 0")
    if rung not in ("probe", "finetune") and finetune.batch_norm != "group":
        # A decoder made by chance has no statistics to keep, and who has a source is to differ by the source alone.
        update |= {"batch_norm": "train"}
    if rung == "self_train" and finetune.self_train.start >= finetune.epochs:
        raise UserError(
            f"ladder: self_train: begins after {finetune.self_train.start} epochs, and finetune.epochs is "
            f"{finetune.epochs}; lower finetune.self_train.start"
        )
    changed = finetune.model_copy(update=update | dict(CHANGES.get(rung, {})))
    steps = math.floor(finetune.epochs * finetune.steps_per_epoch / _step_units(changed) + 1e-9)
    if not steps:
        raise UserError(
            f"ladder: {rung}: the compute of finetune does not suffice for one step an epoch; raise its steps"
        )
    return changed.model_copy(update={"steps_per_epoch": steps})


def _step_units(training: Finetune) -> float:
    """Training steps' worth of compute of one step in every epoch."""
    teacher = FORWARD if training.distill.teacher else 0.0
    alone = min(training.self_train.start, training.epochs) if training.self_train.weight else training.epochs
    return alone * (1 + teacher) + (training.epochs - alone) * (SELF_TRAINED_STEP + teacher)


def compute(training: Finetune, crop: tuple[int, int]) -> int:
    """Pixels' worth of training: steps × batch × crop, where a forward pass alone counts for a third."""
    return round(_step_units(training) * training.steps_per_epoch * training.batch_size * math.prod(crop))
