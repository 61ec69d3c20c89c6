"""Requests, whatever their protocol, as one `Ask`: images that passed their inspection, and what is wanted of them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
import orjson
from pydantic import Field, field_validator

from segraft.errors import UserError
from segraft.params import Section, ServeLimits, build
from segraft.serving.errors import Refused
from segraft.serving.images import Encoded, Pixels, check_size, inspect

if TYPE_CHECKING:
    from kserve import InferInput, InferRequest

OutputName = Literal["mask", "ids", "overlay", "rle", "polygons", "area", "confidence", "entropy", "topk", "logits"]
OUTPUTS: tuple[OutputName, ...] = get_args(OutputName)
DAY = 86_400_000
"""Milliseconds."""
TOPK_PROBABILITY = "topk_probability"
"""The tensor that "topk" brings along; by the V2 protocol each of the two can be asked for alone."""
EVERYTHING = frozenset([*OUTPUTS, TOPK_PROBABILITY])
V2_OWN = {"binary_data_output"}
"""Request parameters of the protocol itself, not of ours."""


class Options(Section):
    """What a client may ask for, by `parameters` (V1, V2) or in the URL's query (raw)."""

    outputs: tuple[OutputName, ...] = Field(("mask",), min_length=1)
    alpha: float = Field(0.5, ge=0, le=1, description="overlay: opacity of the classes")
    k: int = Field(3, ge=1, le=10, description="topk: how many classes")
    simplify: float = Field(0.0, ge=0, le=100, description="polygons: pixels that an outline may be off")
    min_area: int = Field(0, ge=0, description="polygons: pixels below which a shape is left out")
    timeout_ms: Annotated[int, Field(ge=1, le=DAY)] | None = Field(
        None, description="milliseconds that the client waits"
    )

    @field_validator("outputs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        return (
            tuple(dict.fromkeys(names)) if isinstance(names, list) and all(isinstance(n, str) for n in names) else names
        )


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        images: files, or (H, W, 3) uint8 RGB; at least one.
        options: what is wanted.
        protocol: "v1", "v2", "grpc" or "raw".
        as_text: tensors and files that are to be written as JSON.
    """

    images: tuple[Encoded | Pixels, ...]
    options: Options
    protocol: str
    as_text: frozenset[str] = frozenset()


def read_raw(body: bytes, content_type: str, query: Mapping[str, str], limits: ServeLimits) -> Ask:
    """An image file as the body.

    Raises:
        Refused: as `inspect`; or a content type that is no image's, or several outputs.
    """
    media = content_type.partition(";")[0].strip().lower()
    if not media.startswith("image/"):
        raise Refused(
            415, f"Content-Type: {media[:60]!r}: expected application/json, or image/* with a file as the body"
        )
    options = _options({key: value for key, value in query.items()}, "query")
    if len(options.outputs) > 1:
        raise Refused(400, "query.outputs: the body holds one; ask for several by the V1 or V2 protocol")
    return Ask((inspect(body, limits),), options, "raw")


def read_v1(payload: Any, limits: ServeLimits) -> Ask:
    """`{"instances": [{"b64": …} | {"image": {"b64": …}} | nested list], "parameters": {…}}`.

    Raises:
        Refused: anything else, or as `inspect`.
    """
    if not isinstance(payload, dict):
        raise Refused(400, f"body: expected a JSON object, found {json_type(payload)}")
    unknown = sorted(set(payload) - {"instances", "parameters", "signature_name", "id"})
    instances = payload.get("instances")
    if unknown or not isinstance(instances, list) or not instances:
        found = f"unknown key {unknown[0]!r}" if unknown else "none"
        raise Refused(400, f"instances: expected a list of at least one image; found {found}")
    parameters = payload.get("parameters") or {}
    _check_count(len(instances), limits)
    images = tuple(_instance(value, f"instances[{i}]", limits) for i, value in enumerate(instances))
    return Ask(_within(images, limits), _options(parameters, "parameters"), "v1", EVERYTHING)


def read_v2(request: InferRequest, limits: ServeLimits) -> Ask:
    """One input: BYTES (an image file an element), or UINT8 of shape (N, H, W, 3) or (H, W, 3); `outputs` name answers.

    Raises:
        Refused: anything else, or as `inspect`.
    """
    from kserve.protocol.infer_type import to_http_parameters

    if len(request.inputs) != 1:
        raise Refused(400, f"inputs: expected one, found {len(request.inputs)}")
    given = to_http_parameters(request.parameters) if request.parameters else {}
    parameters = {key: value for key, value in given.items() if key not in V2_OWN}
    if request.request_outputs:
        parameters["outputs"] = ["topk" if o.name == TOPK_PROBABILITY else o.name for o in request.request_outputs]
    tensor = request.inputs[0]
    if tensor.datatype == "BYTES":
        files = _elements(tensor, limits)
        images: tuple[Encoded | Pixels, ...] = tuple(inspect(data, limits) for data in files)
    elif tensor.datatype == "UINT8":
        images = tuple(_tensor(tensor, limits))
    else:
        raise Refused(400, f"inputs[0].datatype: {tensor.datatype[:20]!r}: expected UINT8 or BYTES")
    whole, options = _within(images, limits), _options(parameters, "parameters")
    if request.from_grpc:
        return Ask(whole, options, "grpc")
    return Ask(whole, options, "v2", frozenset(name for name in EVERYTHING if not in_binary(name, request)))


def in_binary(name: str, request: InferRequest) -> bool:
    """Whether an output of a V2 request by REST is to be binary: by its own parameter, else by the request's."""
    asked = {output.name: output.parameters or {} for output in request.request_outputs or ()}
    default = (request.parameters or {}).get("binary_data_output", False)
    return bool(asked.get(name, {}).get("binary_data", default))


def from_base64(text: Any, where: str) -> bytes:
    """Bytes of a base64 text.

    Raises:
        Refused: it is none.
    """
    if not isinstance(text, str):
        raise Refused(400, f"{where}: expected base64 text, found {json_type(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"{where}: not base64") from None


def parse_json(body: bytes, limits: ServeLimits) -> Any:
    """A JSON document of bounded size, depth and number of containers.

    Raises:
        Refused: it is none, or too large.
    """
    if len(body) > limits.json_mb << 20:
        raise Refused(413, f"body: more than {limits.json_mb} MiB of JSON; send files or binary tensors")
    if body.count(b"[") + body.count(b"{") > 1 << 21:
        raise Refused(413, "body: too many lists; send files or binary tensors")
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise Refused(400, f"body: not valid JSON: {str(error)[:100]}") from None


def _options(values: Any, where: str) -> Options:
    if not isinstance(values, Mapping):
        raise Refused(400, f"{where}: expected an object, found {json_type(values)}")
    try:
        options: Options = build(Options, dict(values), where)
    except UserError as error:
        raise Refused(400, str(error).replace("\n", "; ")) from None
    return options


def _instance(value: Any, where: str, limits: ServeLimits) -> Encoded | Pixels:
    if isinstance(value, dict) and set(value) == {"image"}:
        value, where = value["image"], f"{where}.image"
    if isinstance(value, dict) and set(value) == {"b64"}:
        return inspect(from_base64(value["b64"], f"{where}.b64"), limits)
    if isinstance(value, str):
        return inspect(from_base64(value, where), limits)
    if not isinstance(value, list):
        raise Refused(400, f'{where}: expected {{"b64": …}} or a nested list of H×W×3 numbers from 0 to 255')
    return _pixels(value, where, limits)


def _pixels(rows: list[Any], where: str, limits: ServeLimits) -> Pixels:
    """A nested list as (H, W, 3); its size is checked before its numbers are touched."""
    first = rows[0] if rows else None
    if not isinstance(first, list) or not first:
        raise Refused(400, f"{where}: expected H×W×3 numbers")
    check_size(len(rows), len(first), limits)
    return _bytes(rows, (len(rows), len(first), 3), where)


def _bytes(values: list[Any], shape: Sequence[int], where: str) -> Pixels:
    """JSON numbers, nested as their shape says or flat, as uint8; no wrap-around and no fractions."""
    try:
        if values and isinstance(values[0], list):
            for length in shape[1:]:
                if set(map(len, values)) != {length}:
                    raise ValueError
                values = list(chain.from_iterable(values))
        data = bytes(values)
    except (TypeError, ValueError):
        wanted = "×".join(map(str, shape))
        raise Refused(400, f"{where}: expected {wanted} whole numbers from 0 to 255, all rows of one length") from None
    if len(data) != math.prod(shape):
        raise Refused(400, f"{where}: {len(data)} numbers; the shape says {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _tensor(tensor: InferInput, limits: ServeLimits) -> Pixels:
    shape = _shape(tensor)
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise Refused(400, f"inputs[0].shape: {shape}: expected [H, W, 3] or [N, H, W, 3]")
    count, height, width = (1, *shape[:2]) if len(shape) == 3 else shape[:3]
    _check_count(count, limits)
    check_size(height, width, limits)
    full = (count, height, width, 3)
    if tensor._raw_data is None:
        return _bytes(_listed(tensor), shape, "inputs[0].data").reshape(full)
    if len(tensor._raw_data) != math.prod(full):
        raise Refused(400, f"inputs[0]: {len(tensor._raw_data)} bytes of data; the shape says {math.prod(full)}")
    return np.frombuffer(tensor._raw_data, np.uint8).reshape(full)


def _listed(tensor: InferInput) -> list[Any]:
    if not isinstance(tensor.data, list):
        raise Refused(400, f"inputs[0].data: expected a list, found {json_type(tensor.data)}")
    return tensor.data


def _shape(tensor: InferInput) -> list[int]:
    shape = tensor.shape
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not whole or len(shape) > 8:
        raise Refused(400, "inputs[0].shape: expected a list of whole numbers")
    return list(shape)


def _elements(tensor: InferInput, limits: ServeLimits) -> list[bytes]:
    """Elements of a BYTES tensor: raw (each behind its length), base64 in JSON, or bytes in gRPC's typed contents."""
    count = math.prod(_shape(tensor))
    _check_count(count, limits)
    if tensor._raw_data is not None:
        elements = list(_split_raw(tensor._raw_data, count))
    else:
        elements = [
            v if isinstance(v, bytes) else from_base64(v, f"inputs[0].data[{i}]") for i, v in enumerate(_listed(tensor))
        ]
    if len(elements) != count:
        raise Refused(400, f"inputs[0]: {len(elements)} elements; the shape says {count}")
    return elements


def _split_raw(data: bytes | memoryview, count: int) -> list[bytes]:
    elements: list[bytes] = []
    offset = 0
    while offset < len(data) and len(elements) <= count:
        length = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        if offset + length > len(data):
            raise Refused(400, "inputs[0]: an element of BYTES is cut short")
        elements.append(bytes(data[offset : offset + length]))
        offset += length
    return elements


def _check_count(count: int, limits: ServeLimits) -> None:
    if not 1 <= count <= limits.images:
        raise Refused(413 if count else 400, f"{count} images; a request holds 1 to {limits.images}")


def _within(images: tuple[Encoded | Pixels, ...], limits: ServeLimits) -> tuple[Encoded | Pixels, ...]:
    pixels = sum(math.prod(image_size(image)) for image in images)
    if pixels > limits.pixels:
        raise Refused(413, f"{pixels:,} pixels in all; at most {limits.pixels:,} a request")
    return images


def image_size(image: Encoded | Pixels) -> tuple[int, int]:
    """Height and width."""
    height, width = image.size if isinstance(image, Encoded) else image.shape[:2]
    return height, width


def json_type(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
