"""Component pretrained: a model to start from that exists already."""

from kfp.dsl import Artifact, Model, Output

from components import component


@component
def pretrained(
    place: str, version: str, tracking: str, weights: Output[Model], log: Output[Artifact], build: str
) -> None:
    """Bring a registered model (verified) or a model folder, and what is known of its training.

    Args:
        place: models:/NAME/VERSION, or a model folder.
        version: digest of the folder, so that another model is another input; empty: not known, or registered.
        tracking: the params section, as JSON.
        weights: the model folder.
        log: its training log.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.references import bring

    bring(place, version, tracking, weights, log)
