"""What segraft does in KServe's place. When one of these passes, KServe does it itself: use that, and delete ours."""

import json

import numpy as np
import pytest
from kserve import InferOutput, InferRequest, InferResponse
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput


def body(datatype: str, shape: list[int], raw: bytes) -> tuple[bytes, int]:
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).encode()
    return text + raw, len(text)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="kserve 0.21 makes a list of integers of a binary tensor")
def test_kserve_keeps_the_bytes_of_a_binary_tensor():
    raw = bytes(range(12))
    request = InferRequest.from_bytes(*body("UINT8", [2, 2, 3], raw), "m")
    assert not isinstance(request.inputs[0].data, list)


@pytest.mark.xfail(strict=True, reason="kserve 0.21 decodes BYTES as UTF-8")
def test_kserve_reads_bytes_that_are_not_text():
    raw = b"\4\0\0\0\xff\xd8\xff\xe0"
    request = InferRequest.from_bytes(*body("BYTES", [1], raw), "m")
    assert request.inputs[0].as_numpy()[0] == b"\xff\xd8\xff\xe0"


@pytest.mark.xfail(strict=True, reason="kserve 0.21 cannot put BYTES that are not text into JSON")
def test_kserve_writes_bytes_that_are_not_text_as_json():
    output = InferOutput("x", [1], "BYTES", np.array([b"\xff\xd8"], object))
    InferResponse("1", "m", [output]).to_rest()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="kserve 0.21 overrides the default for all outputs")
def test_kserve_takes_the_default_for_an_output_that_does_not_say_binary_or_not():
    output = InferOutput("x", [2], "UINT8", np.array([1, 2], np.uint8))
    response = InferResponse("1", "m", [output], requested_outputs=[RequestedOutput("x")], use_binary_outputs=True)
    assert isinstance(response.to_rest()[0], bytes)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="kserve 0.21 is ready without a model")
def test_kserve_is_not_ready_without_a_model():
    import asyncio

    from kserve.model_repository import ModelRepository

    assert not asyncio.run(DataPlane(ModelRepository()).ready())
