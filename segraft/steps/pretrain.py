"""Step pretrain: learn on the source."""

from __future__ import annotations

from segraft.params import Model, Pretrain
from segraft.steps import InOrUrl, Metrics, Out, Work


def pretrain(model: Model, pretrain: Pretrain, dataset: InOrUrl, work: Work, weights: Out, log: Out) -> Metrics:
    """Train on the source dataset, in the target's classes; without a source the encoder's weights go on as they are.

    Args:
        dataset: the packed source dataset.
        work: folder of checkpoints; a killed run goes on from there.
        weights: model folder of the pretrained model.
        log: folder of the training log.
    """
    from segraft.data.packed import PackedDataset
    from segraft.training.run import train

    if not len(PackedDataset(dataset).split("train")):
        print("there is no source: the encoder's weights go on as they are")
        pretrain = pretrain.model_copy(update={"epochs": 0})
    return train("pretrain", model, pretrain, dataset, None, work, weights, log)
