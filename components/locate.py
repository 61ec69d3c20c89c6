"""Component locate: a dataset that is there already, by reference."""

from kfp.dsl import Dataset, Output

from components import component


@component
def locate(place: str, md5: str, dataset: Output[Dataset]) -> None:
    """Refer to a folder that every step can read (a volume, or this machine), without copying it.

    Args:
        place: path of the folder.
        md5: its digest, so that other content is another input; empty: not known, and the step always runs.
        dataset: the reference.
    """
    from segraft.orchestration.references import refer

    refer(place, md5, dataset)
