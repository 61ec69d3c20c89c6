"""Component augment_target: what is left of augment once the source is packed in parts."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from components import component


@component
def augment_target(
    data: str,
    augment: str,
    source: Input[Dataset],
    target: Input[Dataset],
    taxonomies: str,
    manifest: Input[Dataset],
    packed_source: Input[Dataset],
    packed_target: Output[Dataset],
    sheet: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Pack the target into shards that training streams, and show what training will see.

    Args:
        data: the params section, as JSON.
        augment: the params section, as JSON.
        source: the source dataset, for mixed batches.
        target: the target dataset.
        taxonomies: taxonomy files as JSON: name → text.
        manifest: the manifests that validate wrote.
        packed_source: packed source dataset.
        packed_target: packed target dataset.
        sheet: PNG of training crops and their labels.
        page: the same, to look at.
        metrics: samples of each split.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.packing import augment_target

    augment_target(locals())
