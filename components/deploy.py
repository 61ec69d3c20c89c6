"""Component deploy: the model that passed the gate is the one to serve."""

from kfp.dsl import Artifact, Input

from components import component


@component
def deploy(tracking: str, deploy: str, manifests: str, registered: Input[Artifact], build: str) -> None:
    """Give the registered version the alias `deployed`; before that, if the section says so, roll the endpoint out.

    Args:
        tracking: the params section, as JSON.
        deploy: the params section, as JSON.
        manifests: the endpoint's, as JSON: name → manifest.
        registered: JSON file that register wrote.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.references import release

    release(tracking, deploy, manifests, registered)
