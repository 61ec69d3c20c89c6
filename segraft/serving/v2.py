"""V2 over REST, with the binary tensor extension: bytes stay bytes, both ways.

KServe 0.21's own `InferRequest.from_bytes` turns a binary tensor into a list of Python integers and cannot read BYTES
that are not text; `InferResponse.to_rest` does the like on the way out, and the route parses JSON with pydantic. Only
these two functions of it are replaced; tests/serving/test_upstream.py tells when they need not be.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.infer_type import RequestedOutput

from segraft.params import ServeLimits
from segraft.serving.asks import in_binary, json_type, parse_json
from segraft.serving.errors import Refused

JSON_LENGTH = "inference-header-content-length"
SMALL = 1 << 16
"""Bytes of JSON, or numbers, up to which parsing and writing are done at once: a thread would take longer to start."""
DATATYPES = {
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
}


def json_end(json_length: str | None, length: int) -> int:
    """Where a body's JSON ends, by the header Inference-Header-Content-Length; without one it is all JSON.

    Raises:
        Refused: the header is no length within the body's.
    """
    if json_length is None:
        return length
    if not json_length.isascii() or not json_length.isdigit() or len(json_length) > 12 or int(json_length) > length:
        raise Refused(400, f"Inference-Header-Content-Length: {json_length[:20]!r}: expected 0 to {length}, the body's")
    return int(json_length)


def read_request(body: bytes, end: int, model: str, limits: ServeLimits) -> InferRequest:
    """A V2 request as KServe's own type.

    Args:
        body: JSON, then the binary data of the inputs that have it, in order.
        end: of the JSON.
        model: name of the model.
        limits: what is accepted.

    Raises:
        Refused: the body is no such request.
    """
    document = parse_json(body[:end], limits)
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise Refused(400, "inputs: expected a JSON object with a list of inputs")
    inputs, raw, at = [], [], end
    for index, value in enumerate(document["inputs"]):
        tensor, size = _input(value, f"inputs[{index}]")
        inputs.append(tensor)
        raw.append(memoryview(body)[at : at + size] if size is not None else None)
        at += size or 0
    if at != len(body):
        raise Refused(
            400, f"body: {len(body) - end} bytes of binary data; the inputs' binary_data_size sum to {at - end}"
        )
    request = InferRequest(
        model_name=model,
        request_id=_text(document.get("id"), "id"),
        parameters=_flagged(document.get("parameters"), "binary_data_output", "parameters"),
        infer_inputs=inputs,
        request_outputs=_outputs(document.get("outputs")),
    )
    for tensor, data in zip(inputs, raw, strict=True):
        tensor._raw_data = data
    return request


def is_large(response: InferResponse, request: InferRequest) -> bool:
    """Whether writing the response is work for a thread: a tensor of many elements as JSON."""
    asked = _binary_outputs(response, request)
    return any(o.name not in asked and o.datatype != "BYTES" and o.data.size > SMALL for o in response.outputs)


def write_response(response: InferResponse, request: InferRequest) -> tuple[bytes, dict[str, str]]:
    """A V2 response and its headers; an output is binary if the request asks for it.

    In JSON a file of BYTES is base64 text, or itself if it is JSON.
    """
    asked = _binary_outputs(response, request)
    outputs, binary = [], []
    for output in response.outputs:
        if output.name in asked:
            data = _binary(output)
            binary.append(data)
            outputs.append(_described(output, {"binary_data_size": len(data)}))
        else:
            outputs.append(_described(output, {}) | {"data": _listed(output)})
    head: dict[str, Any] = {"id": response.id, "model_name": response.model_name}
    if response.model_version:
        head["model_version"] = response.model_version
    text = orjson.dumps(head | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(text))}
    return b"".join([text, *binary]), headers


def _binary_outputs(response: InferResponse, request: InferRequest) -> set[str]:
    """Names of the outputs that are to be binary."""
    return {output.name for output in response.outputs if in_binary(output.name, request)}


def _input(value: Any, where: str) -> tuple[InferInput, int | None]:
    """An input without its binary data, and their size in bytes."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise Refused(400, f"{where}: expected an object with name, shape, datatype and data")
    parameters = _object(value.get("parameters"), f"{where}.parameters") or {}
    datatype = value.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        found = repr(datatype[:20]) if isinstance(datatype, str) else json_type(datatype)
        raise Refused(400, f"{where}.datatype: {found}: expected UINT8 or BYTES")
    size, data = parameters.get("binary_data_size"), value.get("data")
    if (size is None) == (data is None):
        raise Refused(400, f"{where}: expected data, or binary_data_size among its parameters")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise Refused(400, f"{where}.parameters.binary_data_size: expected a whole number")
    return InferInput(value["name"], value.get("shape"), datatype, data, parameters), size


def _outputs(values: Any) -> list[RequestedOutput] | None:
    if values is None:
        return None
    named = isinstance(values, list) and all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in values)
    if not named or len(values) > 32:
        raise Refused(400, "outputs: expected a list of objects with a name")
    return [
        RequestedOutput(v["name"], _flagged(v.get("parameters"), "binary_data", "outputs.parameters")) for v in values
    ]


def _flagged(value: Any, flag: str, where: str) -> dict[str, Any] | None:
    """Parameters, among which there may be a flag."""
    parameters = _object(value, where)
    if not isinstance(found := (parameters or {}).get(flag, False), bool):
        raise Refused(400, f"{where}.{flag}: expected true or false, found {json_type(found)}")
    return parameters


def _object(value: Any, where: str) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise Refused(400, f"{where}: expected an object")
    return value


def _text(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Refused(400, f"{where}: expected a string")
    return value or None


def _described(output: InferOutput, extra: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
    parameters = (output.parameters or {}) | extra
    return described | ({"parameters": parameters} if parameters else {})


def _binary(output: InferOutput) -> bytes:
    if output.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(file)) + file for file in output.data)
    return bytes(np.ascontiguousarray(output.data).data)


def _listed(output: InferOutput) -> Any:
    if output.datatype != "BYTES":
        return np.ascontiguousarray(output.data).ravel()
    as_text = output.parameters["content_type"].endswith("json")
    return [file.decode() if as_text else base64.b64encode(file).decode() for file in output.data]
