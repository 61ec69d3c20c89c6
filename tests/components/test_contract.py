"""Promises between files: a component says what its step says, and nothing more happens in it."""

import ast
import inspect
from pathlib import Path

import pytest

import components
from segraft.orchestration.rendering import RENDERERS
from segraft.steps import STEPS, spec

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "components").glob("*.py") if path.stem != "__init__")
SHOWN = {"metrics", "confusion", "page", "summary"}
PARTS = {
    "logs": {"pretrain_log", "finetune_log", "scratch_log"},
    "taxonomies": {"taxonomies"},
    "lock": set(),
    "work": set(),
}
"""In and Work paths that a component is given in parts, as JSON, or not at all."""


def interface(name):
    found = components.load(name).component_spec
    return found.inputs or {}, found.outputs or {}


def is_artifact(of):
    return "@" in of.type


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_a_component_with_its_sections_and_paths(name):
    step, (inputs, outputs) = spec(name), interface(name)
    parameters = {key for key, of in inputs.items() if not is_artifact(of)}
    assert parameters == {*step.sections, "build"} | ({"taxonomies"} & set(step.paths))
    assert all(inputs[key].type == "String" for key in parameters), "the UI shows one JSON box a section"
    given = {p for path, kind in step.paths.items() if kind != "out" for p in PARTS.get(path, {path})}
    assert {key for key, of in inputs.items() if is_artifact(of)} == given - {"taxonomies"}
    made = {path for path, kind in step.paths.items() if kind == "out"}
    assert {key for key, of in outputs.items() if is_artifact(of)} - SHOWN == made


@pytest.mark.parametrize("name", STEPS)
def test_what_a_component_shows_can_be_rendered(name):
    _, outputs = interface(name)
    assert "metrics" in outputs
    for shown in {"page", "summary"} & set(outputs):
        assert (name, shown) in RENDERERS
    rendered = {output for step, output in RENDERERS if step == name}
    assert rendered <= set(outputs), "nothing is rendered for nobody"


@pytest.mark.parametrize("name", FILES)
def test_a_body_is_one_import_and_one_call(name):
    tree = ast.parse((ROOT / "components" / f"{name}.py").read_text())
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    docstring, an_import, call = function.body
    assert function.name == name and isinstance(docstring, ast.Expr)
    assert isinstance(an_import, ast.ImportFrom) and an_import.module.startswith("segraft.")
    assert isinstance(call, ast.Expr | ast.Return)


@pytest.mark.parametrize("name", FILES)
def test_every_input_and_output_is_explained(name):
    inputs, outputs = interface(name)
    component = components.load(name)
    said = inspect.getdoc(component.python_func) or ""
    assert all(f"\n    {key}: " in said for key in {**inputs, **outputs} if key != "Output")


@pytest.mark.parametrize("name", FILES)
def test_a_component_installs_nothing(name):
    container = components.load(name).component_spec.implementation.container
    command = " ".join(map(str, [*container.command, *container.args]))
    assert "pip install" not in command and "from segraft" in command


def test_every_step_has_a_file_and_so_has_what_a_pipeline_needs_beside():
    assert set(STEPS) < set(FILES)
    beside = {"finish", "locate", "fetch", "pretrained", "choose", "deploy", "pack", "join", "augment_target"}
    assert set(FILES) - set(STEPS) == beside
