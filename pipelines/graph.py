"""What every pipeline is drawn with: `Graph` makes a task of a step's name, `draw` a pipeline of a graph.

A pipeline's inputs are the params sections of its steps, one JSON string each, what names its data's content, and the
manifests of the endpoint that it deploys to.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl

import components
from pipelines import cluster, data
from segraft.errors import UserError
from segraft.orchestration.digest import code
from segraft.orchestration.secrecy import refuse_passwords
from segraft.params import SECTIONS, Params
from segraft.steps import STEPS, spec

PIPELINES = ("transfer", "finetune", "sweep")
"""Every pipeline; pipeline X is the function X of pipelines/X.py."""

Draw = Callable[["Graph"], None]


@dataclass(frozen=True)
class Target:
    """Where a pipeline will run."""

    params: Params
    image: str
    """what runs: an image's digest, or the name of the image; on this machine alone, empty"""
    remote: bool
    """whether it runs on a cluster, rather than on this machine"""
    pretrained: str = ""
    """for pipelines that start from a model: models:/NAME@ALIAS, or a model folder"""


@dataclass(frozen=True)
class Packed:
    """What training reads."""

    source: Any
    target: Any
    checked: Mapping[str, Any]
    """the outputs of validate"""


class Graph:
    """A pipeline while it is drawn."""

    def __init__(self, target: Target, inputs: Mapping[str, Any], defaults: Mapping[str, str]) -> None:
        self.target, self.params, self.inputs, self.defaults = target, target.params, inputs, defaults

    def __call__(self, name: str, **inputs: Any) -> dsl.PipelineTask:
        """A task of component `name`: its sections and its build are filled in; `inputs` are the rest."""
        component = components.load(name)
        wanted = component.component_spec.inputs or {}
        given = {key: self.inputs[key] for key in wanted if key in self.inputs and key not in inputs}
        if "build" in wanted:
            given["build"] = build(name, self.target.image)
        return cluster.apply(component(**given, **inputs), name, self.target)

    def finish(self) -> dsl.PipelineTask:
        """The exit handler's task, which runs whatever happens."""
        return self("finish").set_caching_options(False)

    def packed(self) -> Packed:
        """Both datasets checked and packed, wherever they come from (see `pipelines.data`)."""
        given = data.tasks(self)
        checked = self("validate", **given)
        manifest = checked.outputs["manifest"]
        if self.params.cluster.pack_parts > 1:
            return self._packed_in_parts(given, manifest, checked)
        packed = self("augment", **given, manifest=manifest).outputs
        return Packed(packed["packed_source"], packed["packed_target"], checked.outputs)

    def _packed_in_parts(self, given: Mapping[str, Any], manifest: Any, checked: dsl.PipelineTask) -> Packed:
        parts = self.params.cluster.pack_parts
        with dsl.ParallelFor([f"{number}/{parts}" for number in range(parts)], name="parts of the source") as part:
            packed = self("pack", source=given["source"], manifest=manifest, part=part)
        source = self("join", parts=dsl.Collected(packed.outputs["packed"])).outputs["packed_source"]
        rest = self("augment_target", **given, manifest=manifest, packed_source=source)
        return Packed(source, rest.outputs["packed_target"], checked.outputs)

    def model(self) -> dsl.PipelineTask:
        """A model that exists already, and its log."""
        task = self("pretrained", place=self.inputs["pretrained"], version=self.inputs["pretrained_version"])
        known = self.defaults["pretrained"].startswith("models:") or self.defaults["pretrained_version"]
        return task if known else task.set_caching_options(False)

    def judged(self, on: Packed, pretrained: Any, tuned: Any, baseline: Any) -> None:
        """The three models scored, the tuned one registered and, if it passes the gate, deployed."""
        tasks = {"pretrain": pretrained, "finetune": tuned, "scratch": baseline}
        logs = {f"{name}_log": task.outputs["log"] for name, task in tasks.items()}
        scored = self(
            "evaluate",
            dataset=on.target,
            pretrained=pretrained.outputs["weights"],
            baseline=baseline.outputs["weights"],
            finetuned=tuned.outputs["weights"],
            manifest=on.checked["manifest"],
            validation=on.checked["report"],
            **logs,
        ).outputs
        exported = self("export", dataset=on.target, finetuned=tuned.outputs["weights"])
        registered = self(
            "register",
            dataset=on.target,
            finetuned=exported.outputs["exported"],
            scores=scored["scores"],
            report=scored["report"],
            **logs,
        )
        with dsl.If(registered.outputs["Output"] == True, name="passed the gate"):  # noqa: E712
            self("deploy", registered=registered.outputs["registered"])


def build(name: str, image: str) -> str:
    """What runs as component `name`: a digest of all of segraft that its step imports, and the image; JSON."""
    return json.dumps({"code": digest_of(code_of(name)), "image": image})


def code_of(name: str) -> dict[str, str]:
    """File → md5 of the code behind component `name`."""
    if name in ("pack", "join", "augment_target"):
        return code("segraft.orchestration.packing")
    if name not in STEPS:
        return code("segraft.orchestration.references")
    return code(f"segraft.steps.{name}") | code("segraft.orchestration.rendering")


def digest_of(files: Mapping[str, str]) -> str:
    """One digest of many."""
    return hashlib.md5(json.dumps(files, sort_keys=True).encode()).hexdigest()


def sections(names: tuple[str, ...]) -> tuple[str, ...]:
    """The params sections that steps need, in the order of params.yaml."""
    wanted = {section for name in names for section in spec(name).sections}
    return tuple(name for name in SECTIONS if name in wanted)


def as_json(params: Params, section: str) -> str:
    """A section as components are given it."""
    return params.section(section).model_dump_json(by_alias=True)


def _manifests(target: Target, project: Path) -> str:
    """Those of the endpoint that the task deploy is to roll out; a pod does not have the folder that they lie in."""
    deploy = target.params.deploy
    if deploy.pipeline != "endpoint":
        return "{}"
    if target.remote and deploy.runtime:
        raise UserError(
            f"deploy.runtime: {deploy.runtime}: a run may not change what other endpoints share; apply it as admin "
            "(docs/cluster.md), and leave this empty"
        )
    from segraft.deploy.endpoint import read

    manifests = {f"{one['kind']}/{one['metadata']['name']}": one for one in read(deploy, project)}
    # Two braces are a template to Argo, and in JSON they occur in texts alone.
    return json.dumps(manifests).replace("{{", "\\u007b\\u007b")


def draw(name: str, target: Target, project: Path) -> Any:
    """Pipeline `name` as kfp wants it; its inputs default to `target.params`.

    Raises:
        UserError: there is no such pipeline (the message lists them), or a knob cannot be drawn.
    """
    if name not in PIPELINES:
        raise UserError(f"{name}: no such pipeline; there are {', '.join(PIPELINES)}")
    if target.remote:
        refuse_passwords(target.params)
    module = importlib.import_module(f"pipelines.{name}")
    inputs = {section: as_json(target.params, section) for section in (*sections(STEPS), "deploy")}
    inputs |= {"manifests": _manifests(target, project), **data.inputs(target, project)}

    def pipeline(*channels: Any) -> None:
        getattr(module, name)(Graph(target, dict(zip(inputs, channels, strict=True)), inputs))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    arguments = [inspect.Parameter(key, kind, default=value, annotation=str) for key, value in inputs.items()]
    pipeline.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    pipeline.__doc__ = inspect.getdoc(getattr(module, name))
    return dsl.pipeline(name=f"segraft-{name}", description=(module.__doc__ or "").strip())(pipeline)
