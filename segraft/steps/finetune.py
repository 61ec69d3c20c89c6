"""Step finetune: the transfer itself."""

from __future__ import annotations

from segraft.params import Finetune, Model
from segraft.steps import In, InOrUrl, Metrics, Out, Work


def finetune(
    model: Model, finetune: Finetune, dataset: InOrUrl, pretrained: In, work: Work, weights: Out, log: Out
) -> Metrics:
    """Fine-tune on the target dataset, starting from every tensor of the pretrained model that fits.

    Args:
        dataset: the packed target dataset.
        pretrained: model folder to start from.
        work: folder of checkpoints; a killed run goes on from there.
        weights: model folder of the transferred model.
        log: folder of the training log.
    """
    from segraft.training.run import train

    return train("finetune", model, finetune, dataset, pretrained, work, weights, log)
