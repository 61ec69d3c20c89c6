"""A Triton model repository from an exported model folder: the ONNX graph and its config.pbtxt.

Triton's ONNX Runtime backend runs `{repository}/{name}/{version}/model.onnx`; with TensorRT as accelerator it builds
engines for the shapes that it meets. Padding is the caller's: sides are multiples of the parameter `stride`, mirrored
below and to the right as `segraft.serving.runtimes.padding` does.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from segraft.checkpoint import ModelCard, read_card
from segraft.errors import UserError
from segraft.serving.runtimes import GRAPH
from segraft.serving.runtimes.card import ServingCard, read_serving_card, verified
from segraft.steps import beside, write_bytes


@dataclass(frozen=True)
class Triton:
    """How Triton is to run the model.

    Attributes:
        name: of the model in the repository.
        version: of the model, from 1.
        max_batch: images that one execution takes.
        delay: microseconds that a request waits for others to batch with.
        instances: copies of the model a device.
        tensorrt: "", or the precision in which TensorRT runs on GPUs: "FP32" or "FP16".
    """

    name: str = "segraft"
    version: int = 1
    max_batch: int = 8
    delay: int = 2000
    instances: int = 1
    tensorrt: str = ""


def write_repository(exported: Path, repository: Path, how: Triton) -> Path:
    """Write a version into `{repository}/{how.name}`, beside others that it has, and its configuration; returns it.

    Raises:
        UserError: the folder was not exported, or without an ONNX graph; or the name is none that Triton takes.
    """
    serving, card = read_serving_card(exported), read_card(exported)
    if serving is None or GRAPH not in serving.files:
        raise UserError(f"{exported}: has no {GRAPH}; run `segraft export` with onnx-fp32 among export.runtimes")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", how.name):
        raise UserError(f"--name {how.name}: use letters, digits, - and _ alone")
    final, graph = repository / how.name, verified(exported, serving, GRAPH)
    with beside(final / str(how.version)) as made:
        made.mkdir()
        shutil.copyfile(graph, made / GRAPH)
    write_bytes(final / "config.pbtxt", config(card, serving, how).encode())
    return final


def config(card: ModelCard, serving: ServingCard, how: Triton) -> str:
    """The text of config.pbtxt, a ModelConfig message (https://github.com/triton-inference-server/common)."""
    sizes = sorted({size for size in (how.max_batch // 2, how.max_batch) if size > 1})
    batching = f"preferred_batch_size: {sizes}\n  max_queue_delay_microseconds: {how.delay}"
    facts = {
        "stride": str(serving.stride),
        "classes": json.dumps([c.name for c in card.classes]),
        "weights_sha256": card.weights_sha256,
    }
    return f"""name: {_text(how.name)}
backend: "onnxruntime"
default_model_filename: "{GRAPH}"
max_batch_size: {how.max_batch}
input [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
  {{ name: "ids" data_type: TYPE_UINT8 dims: [ -1, -1 ] }},
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {len(card.classes)}, -1, -1 ] }}
]
instance_group [ {{ count: {how.instances} kind: KIND_AUTO }} ]
dynamic_batching {{
  {batching}
}}
{_accelerator(how)}{"".join(_parameter(key, value) for key, value in facts.items())}"""


def _accelerator(how: Triton) -> str:
    if not how.tensorrt:
        return ""
    return f"""optimization {{
  execution_accelerators {{
    gpu_execution_accelerator : [ {{
      name : "tensorrt"
      parameters {{ key: "precision_mode" value: "{how.tensorrt}" }}
      parameters {{ key: "trt_engine_cache_enable" value: "true" }}
      parameters {{ key: "trt_engine_cache_path" value: "/tmp/trt" }}
    }} ]
  }}
}}
"""


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_text(key)} value: {{ string_value: {_text(value)} }} }}\n"


def _text(value: str) -> str:
    """A string of protobuf's text format; JSON escapes the same characters."""
    return json.dumps(value)
