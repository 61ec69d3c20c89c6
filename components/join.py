"""Component join: the parts of a packed source as one dataset."""

from typing import List  # noqa: UP035

from kfp.dsl import Dataset, Input, Output

from components import component


@component
def join(parts: Input[List[Dataset]], packed_source: Output[Dataset], build: str) -> None:  # noqa: UP006
    """Make one packed dataset of its parts, without copying shards on one volume.

    Args:
        parts: packed parts, in order.
        packed_source: packed source dataset.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.packing import join

    join(parts, packed_source)
