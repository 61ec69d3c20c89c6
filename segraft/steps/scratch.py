"""Step scratch: what the target alone is worth, the baseline that a transfer has to beat."""

from __future__ import annotations

from segraft.errors import UserError
from segraft.params import Finetune, Model, Pretrain, Scratch
from segraft.steps import InOrUrl, Metrics, Out, Work


def scratch(
    model: Model,
    pretrain: Pretrain,
    finetune: Finetune,
    scratch: Scratch,
    dataset: InOrUrl,
    work: Work,
    weights: Out,
    log: Out,
) -> Metrics:
    """Train the same network on the target from random weights, with finetune's settings and the budget of `scratch`.

    Args:
        dataset: the packed target dataset.
        work: folder of checkpoints; a killed run goes on from there.
        weights: model folder of the baseline.
        log: folder of the training log.
    """
    from segraft.training.run import train

    epochs = finetune.epochs
    if scratch.budget == "total":
        if not (pretrain.steps_per_epoch and finetune.steps_per_epoch):
            raise UserError("scratch.budget: total: give pretrain and finetune a steps_per_epoch, or say finetune")
        epochs += round(pretrain.epochs * pretrain.steps_per_epoch / finetune.steps_per_epoch)
    settings = {"epochs": epochs, "lr": scratch.lr, "encoder_lr": 1.0, "layer_decay": 1.0, "freeze": "none"}
    settings |= {"l2_sp": 0.0, "lora_rank": 0, "source_share": 0.0}
    settings |= {"batch_norm": "group" if finetune.batch_norm == "group" else "train"}
    settings |= {"distill": finetune.distill.model_copy(update={"teacher": None})}
    settings |= {"self_train": finetune.self_train.model_copy(update={"weight": 0.0})}
    random = model.model_copy(update={"weights": "random"})
    return train("scratch", random, finetune.model_copy(update=settings), dataset, None, work, weights, log)
