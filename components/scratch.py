"""Component scratch: what the target alone is worth, the baseline that a transfer has to beat."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import component


@component
def scratch(
    model: str,
    pretrain: str,
    finetune: str,
    scratch: str,
    dataset: Input[Dataset],
    weights: Output[Model],
    log: Output[Artifact],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Train the same network on the target alone, from random weights.

    Args:
        model: the params section, as JSON.
        pretrain: the params section, as JSON.
        finetune: the params section, as JSON.
        scratch: the params section, as JSON.
        dataset: the packed target dataset.
        weights: model folder of the baseline.
        log: the training log.
        metrics: steps, seconds and the best mIoU on val.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("scratch", locals())
