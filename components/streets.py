"""Component streets: the embedded procedural source and target."""

from kfp.dsl import Dataset, Metrics, Output

from components import component


@component
def streets(
    streets: str, source: Output[Dataset], target: Output[Dataset], metrics: Output[Metrics], build: str
) -> None:
    """Generate the embedded source (clear day) and target (night and rain) street scenes.

    Args:
        streets: the params section, as JSON.
        source: the source dataset.
        target: the target dataset.
        metrics: images of each.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("streets", locals())
