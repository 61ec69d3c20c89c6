"""What is read of a kustomization, of its patches and of the resources that it names."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from segraft.params import Section


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_compiles)]


class Known(Section):
    """Some fields of kustomize's; its others are refused rather than passed over."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _has_no_other(self) -> Self:
        if self.model_extra:
            other = next(iter(self.model_extra))
            raise ValueError(f"{other}: not known here; `kubectl apply -k` knows it, or do without")
        return self


class Target(Known):
    """Which resources a patch is for: regular expressions for the whole kind and name; empty: any."""

    kind: Pattern = ""
    name: Pattern = ""


class Patch(Known):
    """A change, written in its place or in a file of its own."""

    target: Target | None = None
    patch: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _has_one_text(self) -> Patch:
        if (self.patch is None) == (self.path is None):
            raise ValueError("expected either a patch or the path of one")
        return self


class Labels(Known):
    """Labels of every resource; the kinds that are built have neither selectors nor templates that would get them."""

    pairs: dict[str, str]
    includeSelectors: bool = False
    includeTemplates: bool = False


class Image(Known):
    """Another name, tag or digest for an image."""

    name: str
    newName: str = ""
    newTag: str = ""
    digest: str = ""


class Kustomization(Known):
    """A kustomization.yaml, as far as it is known."""

    apiVersion: str = ""
    kind: str = ""
    namespace: str = ""
    labels: tuple[Labels, ...] = ()
    images: tuple[Image, ...] = ()
    resources: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()


class Part(Section):
    """What is read of a manifest, which may hold more."""

    model_config = ConfigDict(extra="allow")


class Operation(Part):
    """One of RFC 6902; jsonpatch looks at the rest."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str


class Operations(Section):
    """A patch of RFC 6902."""

    operations: tuple[Operation, ...]


class Metadata(Part):
    """What a resource is called, and what is said of it."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = Field({})
    annotations: dict[str, str] = Field({})


class Head(Part):
    """How every resource begins, and a patch that is a part of one."""

    apiVersion: str
    kind: str
    metadata: Metadata


class Variable(Part):
    """An entry of `env`."""

    name: str


class ModelSpec(Part):
    """What the endpoint serves."""

    env: tuple[Variable, ...] = ()


class Query(Part):
    """What is asked of Prometheus."""

    query: str


class External(Part):
    """A metric from elsewhere, and what scaling wants it to be."""

    metric: Query
    target: dict[str, Any]


class Metric(Part):
    """What the endpoint is scaled by; of a pod's resources there is nothing to read."""

    external: External | None = None


class AutoScaling(Part):
    """How KEDA scales the endpoint."""

    metrics: tuple[Metric, ...] = ()


class Predictor(Part):
    """The pods of an endpoint."""

    model: ModelSpec
    autoScaling: AutoScaling = AutoScaling()


class ServiceSpec(Part):
    """The endpoint's parts."""

    predictor: Predictor


class Service(Head):
    """An InferenceService whose model can be replaced."""

    spec: ServiceSpec
