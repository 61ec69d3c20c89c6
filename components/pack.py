"""Component pack: a part of a very large source, as training will read it."""

from kfp.dsl import Dataset, Input, Output

from components import component


@component
def pack(
    data: str,
    augment: str,
    source: Input[Dataset],
    taxonomies: str,
    manifest: Input[Dataset],
    part: str,
    packed: Output[Dataset],
    build: str,
) -> None:
    """Map the labels of one part of the source to the model's classes, simulate, and pack into shards.

    Args:
        data: the params section, as JSON.
        augment: the params section, as JSON.
        source: the source dataset.
        taxonomies: taxonomy files as JSON: name → text.
        manifest: the manifests that validate wrote.
        part: k/n for the k-th of n parts, counted from 0.
        packed: the part, a packed dataset of its own.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.packing import pack

    pack(locals())
