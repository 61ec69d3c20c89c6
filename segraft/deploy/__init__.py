"""A registered model to an endpoint on a cluster: rendered from the manifests of k8s/, applied, and waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segraft.deploy.endpoint import MODEL, render
from segraft.deploy.version import find, point

if TYPE_CHECKING:
    from segraft.params import Deploy, Tracking

__all__ = ["find", "point", "render", "roll_out"]


def roll_out(uri: str, deploy: Deploy, tracking: Tracking, storage: str = "", force: bool = False) -> str:
    """Serve a registered model at the endpoint; once that is ready, the alias `deployed` names the version.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        deploy: what the endpoint is to be.
        tracking: which registry.
        storage: where pods find the model folder; empty: where the registry keeps it.
        force: take over fields that someone else has set.

    Returns:
        What answers where.

    Raises:
        UserError: no such model, none that pods can reach, no cluster, a refusal, or an endpoint that is not ready in
            time; with the cluster's own message.
    """
    from segraft.deploy.cluster import Cluster, connect

    version = find(uri, deploy, tracking, storage)
    resources = render(version, deploy)
    cluster = Cluster(connect(), deploy.namespace, force)
    for resource in resources:
        cluster.apply(resource)
    ready = cluster.wait(resources[-1], deploy.timeout)
    point(version.name, version.number, tracking)
    return f"{ready['metadata']['annotations'][MODEL]} answers at {ready['status'].get('url', 'no address outside')}"
