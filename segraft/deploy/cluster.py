"""What `segraft deploy` says to the Kubernetes API: apply, and wait until the endpoint answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segraft.deploy.endpoint import DIGEST, MODE
from segraft.deploy.manifests import Resource
from segraft.deploy.status import reasons, split, waits
from segraft.errors import UserError
from segraft.progress import bar

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

MANAGER = "segraft"
"""Who owns the fields, in server-side apply."""
PLURAL = {"InferenceService": "inferenceservices", "ServingRuntime": "servingruntimes"}
ANSWER = 30
"""Seconds that one call to the API may take."""


def connect() -> ApiClient:
    """A client for the cluster of kubectl's current context, else of the pod that this runs in.

    Raises:
        UserError: there is neither, or what kubectl reads is broken.
    """
    import yaml

    try:
        from kubernetes import client, config
    except ImportError:
        raise UserError("segraft deploy needs the package kubernetes: install segraft[kubeflow]") from None
    told = client.Configuration()
    try:
        config.load_kube_config(client_configuration=told)
    except config.ConfigException as why:
        try:
            config.load_incluster_config(client_configuration=told)
        except config.ConfigException:
            raise UserError(
                f"no cluster: {why}. Set KUBECONFIG or write ~/.kube/config; --dry-run needs none"
            ) from None
    except (yaml.YAMLError, TypeError, OSError) as why:  # config reads no further than it must, and checks little
        place = config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
        raise UserError(f"{place}: no kubeconfig: {' '.join(str(why).split())}; `kubectl config view` helps") from None
    return client.ApiClient(told)


class Cluster:
    """One namespace of a cluster.

    Args:
        client: how to speak with its API.
        namespace: where everything goes.
        force: take over fields that someone else has set.
        poll: seconds between two looks at the status.
        settle: seconds after which the status is the new version's: until KServe looks, the old one's says "ready".
    """

    def __init__(
        self, client: ApiClient, namespace: str, force: bool = False, poll: float = 2.0, settle: float = 5.0
    ) -> None:
        self._client, self._namespace, self._force = client, namespace, force
        self._poll, self._settle = poll, settle

    def apply(self, resource: Resource) -> None:
        """Server-side apply.

        Raises:
            UserError: the cluster refuses; with its reason.
        """
        query = [("fieldManager", MANAGER), ("force", str(self._force).lower())]
        with _refusals(resource):
            self._call("PATCH", self._path(resource), query, resource)

    def wait(self, service: Resource, timeout: float) -> Resource:
        """The InferenceService, once it and its pods are ready.

        Args:
            service: as it was applied.
            timeout: seconds.

        Raises:
            UserError: it failed, or the time is over; with the conditions' own messages.
        """
        name, started = f"InferenceService {service['metadata']['name']}", time.monotonic()
        with _refusals(service), bar(round(timeout), 0, name, "s") as line:
            while True:
                found = self._call("GET", self._path(service))
                failed, why = reasons(found)
                why += self._pods(service)
                waited = time.monotonic() - started
                line.set_postfix_str("; ".join(why)[:160], refresh=False)
                line.update(min(round(waited), round(timeout)) - line.n)
                if waited >= self._settle and not why:
                    return found
                if waited > timeout or (failed and waited >= self._settle):
                    what = "failed" if failed else f"not ready after {timeout:g} s"
                    raise UserError(f"{name}: {what}: {'; '.join(why)}")
                time.sleep(self._poll)

    def _pods(self, service: Resource) -> list[str]:
        """Why its pods are not those of this version, all of them ready."""
        metadata = service["metadata"]
        selector = f"serving.kserve.io/inferenceservice={metadata['name']}"
        listed = self._call("GET", f"/api/v1/namespaces/{self._namespace}/pods", [("labelSelector", selector)])
        new, old = split(listed["items"], DIGEST, metadata["annotations"][DIGEST])
        rolling = metadata["annotations"].get(MODE) != "Knative"  # which keeps the old ones for their share of requests
        return waits(new) + ([f"{len(old)} pods of another version are still there"] if old and rolling else [])

    def _path(self, resource: Resource) -> str:
        plural, name = PLURAL[resource["kind"]], resource["metadata"]["name"]
        return f"/apis/{resource['apiVersion']}/namespaces/{self._namespace}/{plural}/{name}"

    def _call(
        self, method: str, path: str, query: list[tuple[str, str]] | None = None, body: Resource | None = None
    ) -> Resource:
        content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        found = self._client.call_api(
            path,
            method,
            query_params=query or [],
            header_params={"Accept": "application/json", "Content-Type": content},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=ANSWER,
        )
        if not isinstance(found, dict):
            raise UserError(f"{self._client.configuration.host}: no Kubernetes API answers there, but {found!r:.80}")
        return found


@contextmanager
def _refusals(resource: Resource) -> Iterator[None]:
    """The API server's refusals, or its silence, as UserErrors."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    what = f"{resource['kind']} {resource['metadata']['name']}"
    try:
        yield
    except ApiException as error:
        raise UserError(f"{what}: the cluster says {error.status}: {_why(error.status, error.body)}") from None
    except HTTPError as error:
        raise UserError(f"{what}: the cluster does not answer: {error}") from None


def _why(status: int, body: Any) -> str:
    """The message of a Kubernetes Status, and what helps."""
    try:
        told = json.loads(body)
    except (TypeError, ValueError):
        told = None
    if not isinstance(told, dict):
        told = {"message": body}
    message = str(told.get("message") or "no reason given").strip()
    if status == 404 and not told.get("details"):
        return f"{message}; is KServe installed there?"
    return f"{message}; --force takes these fields over" if status == 409 else message
