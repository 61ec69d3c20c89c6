"""A registered model to an endpoint on a cluster: rendered from the manifests of k8s/, applied, and waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segraft.deploy.endpoint import MODEL, read, render, share
from segraft.deploy.version import CANARY, DEPLOYED, drop, find, point

if TYPE_CHECKING:
    from segraft.deploy.manifests import Resource
    from segraft.params import Deploy, Tracking

__all__ = ["find", "point", "read", "render", "roll_out"]


def roll_out(
    uri: str,
    deploy: Deploy,
    tracking: Tracking,
    storage: str = "",
    force: bool = False,
    manifests: Sequence[Resource] = (),
) -> str:
    """Serve a registered model at the endpoint.

    Once that is ready, the alias `deployed` names the version; while it gets only some of the requests, `canary` does.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        deploy: what the endpoint is to be.
        tracking: which registry.
        storage: where pods find the model folder; empty: where the registry keeps it.
        force: take over fields that someone else has set.
        manifests: what `read` gave; empty: it is asked now.

    Returns:
        What answers where.

    Raises:
        UserError: no such model, none that pods can reach, no cluster, a refusal, or an endpoint that is not ready in
            time; with the cluster's own message.
    """
    from segraft.deploy.cluster import Cluster, connect

    version = find(uri, deploy, tracking, storage)
    resources = render(version, deploy, manifests)
    cluster = Cluster(connect(), deploy.namespace, force)
    for resource in resources:
        cluster.apply(resource)
    ready = cluster.wait(resources[-1], deploy.timeout)
    model, url = ready["metadata"]["annotations"][MODEL], ready["status"].get("url", "no address outside")
    if (percent := share(resources[-1])) < 100:
        point(version.name, version.number, tracking, CANARY)
        return f"{model} gets {percent} % of the requests at {url}, and the alias {CANARY}, not {DEPLOYED}"
    point(version.name, version.number, tracking)
    drop(version.name, CANARY, tracking)
    return f"{model} answers at {url}"
