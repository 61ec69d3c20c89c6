"""Component pretrain: learn on the source."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import component


@component
def pretrain(
    model: str,
    pretrain: str,
    dataset: Input[Dataset],
    weights: Output[Model],
    log: Output[Artifact],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Train on the source.

    Args:
        model: the params section, as JSON.
        pretrain: the params section, as JSON.
        dataset: the packed source dataset.
        weights: model folder of the pretrained model.
        log: the training log.
        metrics: steps, seconds and the best mIoU on val.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("pretrain", locals())
