"""Component finetune: the transfer itself.

The pattern of every component: the step's sections as JSON strings, its `In` paths as inputs and its `Out` paths as
outputs of the same names, what the UI shows, and `build`; the body is one import and one call.
"""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import component


@component
def finetune(
    model: str,
    finetune: str,
    dataset: Input[Dataset],
    pretrained: Input[Model],
    weights: Output[Model],
    log: Output[Artifact],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Fine-tune on the target, from the pretrained model.

    Args:
        model: the params section, as JSON.
        finetune: the params section, as JSON.
        dataset: the packed target dataset.
        pretrained: model folder to start from.
        weights: model folder of the transferred model.
        log: the training log.
        metrics: steps, seconds and the best mIoU on val.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("finetune", locals())
