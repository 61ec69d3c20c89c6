"""Component deploy: the model that passed the gate is the one to serve."""

from kfp.dsl import Artifact, Input

from components import component


@component
def deploy(tracking: str, registered: Input[Artifact], build: str) -> None:
    """Give the registered version the alias `deployed`, which endpoints and rollouts follow.

    Args:
        tracking: the params section, as JSON.
        registered: JSON file that register wrote.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.references import deploy

    deploy(tracking, registered)
