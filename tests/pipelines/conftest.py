"""A pipeline drawn from the project's params, compiled, and parsed with kfp's own protobuf."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import kubernetes  # noqa: F401  (registers the platform's messages)
from kfp.kubernetes import kubernetes_executor_config_pb2 as platform
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.graph import Target, draw
from pipelines.remote import compile_to
from segraft.params import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A folder to start fine-tuning from; drawing does not open it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def known():
    """What was compiled already."""
    return {}


@pytest.fixture
def compiled(tmp_path, model_folder, known):
    """Compiles a pipeline with overrides; gives (pipeline spec, executor → its pod's settings, text)."""

    def compile_pipeline(name="transfer", *overrides, fresh=False):
        if fresh or (name, overrides) not in known:
            params = load_params(ROOT / "params.yaml", overrides)
            target = Target(params, "sha256:0", remote=True, pretrained=str(model_folder) if name == "finetune" else "")
            compile_to(draw(name, target, ROOT), tmp_path / "pipeline.yaml")
            known[name, overrides] = (tmp_path / "pipeline.yaml").read_text()
        return parsed(known[name, overrides])

    return compile_pipeline


def parsed(text):
    documents = list(yaml.load_all(text, yaml.CSafeLoader))
    spec = json_format.ParseDict(documents[0], ir.PipelineSpec())
    platforms = json_format.ParseDict(documents[1], ir.PlatformSpec()).platforms
    pods = {
        label: json_format.ParseDict(json_format.MessageToDict(settings), platform.KubernetesExecutorConfig())
        for label, settings in platforms["kubernetes"].deployment_spec.executors.items()
    }
    return spec, pods, text
