"""Component choose: the best of several trainings."""

from typing import List  # noqa: UP035

from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components import component


@component
def choose(
    models: Input[List[Model]],  # noqa: UP006
    logs: Input[List[Artifact]],  # noqa: UP006
    weights: Output[Model],
    log: Output[Artifact],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Take the model with the best mIoU on val; the test split is not looked at.

    Args:
        models: model folders.
        logs: their training logs, in the same order.
        weights: the best one.
        log: its training log.
        metrics: the mIoU on val of each.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.references import choose

    choose(models, logs, weights, log, metrics)
