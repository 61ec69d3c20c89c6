"""Component export: the runtimes that serve fast."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import component


@component
def export(
    export: str,
    finetuned: Input[Model],
    dataset: Input[Dataset],
    exported: Output[Model],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Make the runtimes that serve fast, measure them against PyTorch, choose the fastest that agrees.

    Args:
        export: the params section, as JSON.
        finetuned: model folder of the transferred model.
        dataset: the packed target dataset.
        exported: folder of the runtimes, and of which was chosen.
        metrics: speed and parity of each runtime.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("export", locals())
