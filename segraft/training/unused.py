"""Knobs that are set and change nothing in a run: a line each, for the one who set them."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from segraft.params import Training
from segraft.training.batchnorm import norms

WEIGHTED, SMOOTHED = ("cross_entropy", "ohem", "focal"), ("cross_entropy", "ohem")
"""Losses that know class weights, and label smoothing."""


def without_effect(training: Training, model: nn.Module, kept: Collection[str], steps: int, scored: bool) -> list[str]:
    """What has no effect, and why.

    Args:
        training: the knobs.
        model: what they are to train.
        kept: names of the parameters that came from the pretrained model.
        steps: of the run.
        scored: whether there are val labels.
    """
    found = []
    if training.class_weights != "none" and not set(WEIGHTED) & set(training.loss):
        found.append(f"class_weights: {training.class_weights}: no loss here is one of {', '.join(WEIGHTED)}")
    if training.label_smoothing and not set(SMOOTHED) & set(training.loss):
        found.append(f"label_smoothing: {training.label_smoothing}: no loss here is one of {', '.join(SMOOTHED)}")
    if training.l2_sp and not kept:
        found.append(f"l2_sp: {training.l2_sp}: nothing came from a pretrained model")
    if training.batch_norm in ("frozen", "reestimate") and not norms(model):
        found.append(f"batch_norm: {training.batch_norm}: the network has no BatchNorm")
    if training.self_train.weight and training.self_train.start >= training.epochs:
        found.append(f"self_train: begins after {training.self_train.start} epochs, and this run has {training.epochs}")
    if training.freeze in ("encoder", "body") and training.layer_decay < 1:
        found.append(f"layer_decay: {training.layer_decay}: freeze: {training.freeze} keeps the encoder as it is")
    if training.freeze in ("encoder", "body") and training.distill.teacher and training.distill.kind == "feature":
        found.append(f"distill: kind: feature is about the encoder, which freeze: {training.freeze} keeps as it is")
    if training.patience and not scored:
        found.append(f"patience: {training.patience}: there are no val labels")
    if training.freeze == "gradual" and not training.thaw:
        found.append("freeze: gradual: thaw: 0 thaws all at once")
    if training.schedule != "constant" and training.warmup != "none" and 0 < steps <= training.warmup_steps:
        found.append(
            f"schedule: {training.schedule}: warm-up takes {training.warmup_steps} steps, this run has {steps}"
        )
    left, warmup = steps - round(training.thaw * steps), training.warmup_steps if training.warmup != "none" else 0
    if training.freeze == "gradual" and steps and left <= warmup:
        found.append(f"thaw: {training.thaw}: what thaws last has {left} steps left, none beyond its own warm-up")
    return [f"without effect: {line}" for line in found]
