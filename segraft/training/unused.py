"""Knobs that are set and change nothing in a run: a line each, for the one who set them."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from segraft.params import Training
from segraft.training.batchnorm import norms
from segraft.training.transfer import ENCODER, HEAD, Translated

WEIGHTED, SMOOTHED = ("cross_entropy", "ohem", "focal"), ("cross_entropy", "ohem")
"""Losses that know class weights, and label smoothing."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def without_effect(
    training: Training,
    model: nn.Module,
    kept: Collection[str],
    steps: int,
    scored: bool,
    teacher: nn.Module | None = None,
) -> list[str]:
    """What has no effect, and why.

    Args:
        training: the knobs.
        model: what they are to train.
        kept: names of the parameters that came from the pretrained model.
        steps: of the run.
        scored: whether there are val labels.
        teacher: what it is to learn from.
    """
    found = []
    frozen = training.freeze in ("encoder", "body")
    still = f"freeze: {training.freeze}" if frozen else "" if training.encoder_lr else "encoder_lr: 0"
    if training.class_weights != "none" and not set(WEIGHTED) & set(training.loss):
        found.append(f"class_weights: {training.class_weights}: no loss here is one of {', '.join(WEIGHTED)}")
    if training.label_smoothing and not set(SMOOTHED) & set(training.loss):
        found.append(f"label_smoothing: {training.label_smoothing}: no loss here is one of {', '.join(SMOOTHED)}")
    if training.l2_sp and not kept:
        found.append(f"l2_sp: {training.l2_sp}: nothing came from a pretrained model")
    elif training.l2_sp and not set(kept) & _learning(training, model):
        found.append(f"l2_sp: {training.l2_sp}: {still or 'lora_rank'} keeps all that came from the pretrained model")
    if training.batch_norm in ("frozen", "reestimate") and not norms(model):
        found.append(f"batch_norm: {training.batch_norm}: the network has no BatchNorm")
    if training.batch_norm == "group" and not any(isinstance(m, NORMS) for m in model.modules()):
        found.append("batch_norm: group: the network has no BatchNorm that GroupNorm could take the place of")
    if training.self_train.weight and training.self_train.start >= training.epochs:
        found.append(f"self_train: begins after {training.self_train.start} epochs, and this run has {training.epochs}")
    if still and training.layer_decay < 1:
        found.append(f"layer_decay: {training.layer_decay}: {still} keeps the encoder as it is")
    if still and training.lora_rank:
        found.append(f"lora_rank: {training.lora_rank}: {still} keeps the encoder as it is")
    if still and training.distill.teacher and training.distill.kind == "feature":
        found.append(f"distill: kind: feature is about the encoder, which {still} keeps as it is")
    if training.distill.kind == "logit" and isinstance(teacher, Translated) and len(teacher.known) == 1:
        found.append("distill: kind: logit compares classes, and the teacher knows one; say channel")
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


def _learning(training: Training, model: nn.Module) -> set[str]:
    """Names of the parameters that are to move."""
    of = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if training.freeze == "body":
        return {name for name in of if name.startswith(HEAD)}
    encoder = training.encoder_lr > 0 and training.freeze != "encoder"
    return {name for name in of if encoder or not name.startswith(ENCODER)}
