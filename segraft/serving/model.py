"""The KServe model: every protocol's payload in, its answer out, one engine between."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.utils.numpy_codec import from_np_dtype

from segraft.checkpoint import ModelCard
from segraft.params import Serve
from segraft.serving.answers import Answer
from segraft.serving.asks import Ask, image_size, parse_json, read_raw, read_v1, read_v2
from segraft.serving.call import in_time, this_call
from segraft.serving.drift import read_reference
from segraft.serving.engine import Engine
from segraft.serving.errors import Refused
from segraft.serving.monitor import Monitor
from segraft.serving.runtime import Runtime
from segraft.serving.stamp import Stamp
from segraft.serving.v2 import SMALL

TENSORS = {"ids", "topk", "logits"}
WARM_UP = ((512, 1024, False), (512, 1024, True), (256, 256, False))
"""Height, width and whether logits are wanted, of the images that the model answers before it is ready."""
JSON = "application/json"
GLANCE = 1 << 18
"""Bytes of image files up to which their headers are read at once."""


class SegmentationModel(Model):  # type: ignore[misc]
    """A model folder as KServe sees it.

    Args:
        settings: the section `serve`.
        folder: the model folder.
        open_runtime: opens it.
        stamp: what it is.
    """

    def __init__(self, settings: Serve, folder: Path, open_runtime: Callable[[], Runtime], stamp: Stamp) -> None:
        super().__init__(settings.name, return_response_headers=True)
        self.settings, self.stamp = settings, stamp
        self._folder, self._open = folder, open_runtime
        self.engine_ = cast(Engine, None)
        self.card = cast(ModelCard, None)

    def load(self) -> bool:
        """Open the runtime and let it answer a few images; only then is the model ready."""
        runtime = self._open()
        self.card = runtime.card
        for height, width, logits in WARM_UP:
            runtime.predict(np.zeros((1, height, width, 3), np.uint8), logits)
        monitor = Monitor(runtime.card, read_reference(self._folder), self.settings.monitor)
        self.engine_ = Engine(runtime, self.settings, monitor)
        self.ready = True
        return True

    async def healthy(self) -> bool:
        """Whether the model answers; after a failure it is asked again."""
        if self.ready and self.engine_.failing:
            try:
                await self.engine_.probe()
            except Exception:  # whatever it is, it is in the log, and the model does not answer
                return False
        return bool(self.ready)

    def stop(self) -> None:
        """Give the threads back."""
        if self.ready:
            self.engine_.close()
        super().stop()

    def get_input_types(self) -> list[dict[str, Any]]:
        """For the V2 metadata: one input, in one of two forms."""
        return [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        """For the V2 metadata: the outputs that may be asked for by name; "mask" unless others are."""
        classes = len(self.card.classes)
        files = ("mask", "overlay", "rle", "polygons", "area", "confidence", "entropy")
        return [
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in files),
            {"name": "ids", "datatype": "UINT8", "shape": [-1, -1, -1]},
            {"name": "topk", "datatype": "UINT8", "shape": [-1, -1, -1, -1]},
            {"name": "topk_probability", "datatype": "FP32", "shape": [-1, -1, -1, -1]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, classes, -1, -1]},
        ]

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> bytes | InferResponse:
        """Answer one request.

        Args:
            payload: a V1 document (parsed or not), a V2 request, or an image file.
            headers: of the request.
            response_headers: gets the content type of an answer in bytes.

        Raises:
            Refused: the request cannot be answered; the message says why.
        """
        call = this_call()
        call.give(self.settings.timeout)
        out: dict[str, str] = {} if response_headers is None else response_headers
        with call.stage("read"):
            read = partial(self._read, payload, headers or {}, call.query)
            if _is_large(payload, headers or {}):
                async with in_time(call):
                    ask = await self.engine_.in_thread(read)
            else:
                ask = read()
        answers = await self.engine_.answer(ask)
        if isinstance(payload, InferRequest):
            return self._v2(payload, answers)
        if ask.protocol == "v1":
            out["content-type"] = JSON
            tensors = any(not answer.media for of in answers for answer in of)
            return await self.engine_.in_thread(partial(_v1, answers)) if tensors else _v1(answers)
        return _raw(answers[0], out)

    def _read(self, payload: Any, headers: dict[str, str], query: Mapping[str, str]) -> Ask:
        limits = self.settings.limits
        if isinstance(payload, InferRequest):
            ask = read_v2(payload, limits)
        elif not isinstance(payload, bytes):
            ask = read_v1(payload, limits)
        elif is_json(headers.get("content-type", "")):
            ask = read_v1(parse_json(payload, limits), limits)
        else:
            ask = read_raw(payload, headers.get("content-type", ""), query, limits)
        tensors = TENSORS & set(ask.options.outputs)
        if tensors and ask.protocol in ("v2", "grpc") and len({image_size(image) for image in ask.images}) > 1:
            raise Refused(400, f"outputs: {min(tensors)} of images of different sizes are no tensor; send one an ask")
        return ask

    def _v2(self, request: InferRequest, answers: list[list[Answer]]) -> InferResponse:
        named = {output.name for output in request.request_outputs or ()}
        columns = [column for column in zip(*answers, strict=True) if not named or column[0].name in named]
        outputs = [_output(list(column)) for column in columns]
        request_id = request.id or this_call().id
        return InferResponse(request_id, self.name, outputs, model_version=self.stamp.version or None)


def _is_large(payload: Any, headers: Mapping[str, str]) -> bool:
    """Whether reading a payload is work for a thread: lists of numbers, base64, long JSON, large files; not pixels."""
    if isinstance(payload, InferRequest):
        return any(_is_large_input(tensor) for tensor in payload.inputs)
    if isinstance(payload, bytes):
        return len(payload) > (SMALL if is_json(headers.get("content-type", "")) else GLANCE)
    return True


def _is_large_input(tensor: InferInput) -> bool:
    raw = tensor._raw_data
    return raw is None or (tensor.datatype == "BYTES" and len(raw) > GLANCE)


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON; a missing one is taken for it."""
    media = content_type.partition(";")[0].strip().lower()
    return media in ("", JSON) or media.endswith("+json")


def _output(column: Sequence[Answer]) -> InferOutput:
    """One output of all images as a V2 tensor."""
    first = column[0]
    if first.media:
        files = np.empty(len(column), object)
        files[:] = [answer.value for answer in column]
        return InferOutput(first.name, [len(column)], "BYTES", files, {"content_type": first.media})
    tensors = [cast("np.ndarray[Any, Any]", answer.value) for answer in column]
    stacked = np.stack(tensors) if len(tensors) > 1 else tensors[0][None]
    return InferOutput(first.name, list(stacked.shape), from_np_dtype(stacked.dtype), stacked)


def _v1(answers: list[list[Answer]]) -> bytes:
    predictions = [{answer.name: _v1_value(answer) for answer in of} for of in answers]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def _v1_value(answer: Answer) -> Any:
    if not answer.media:
        return np.ascontiguousarray(answer.value)
    if answer.media.endswith("json"):
        return orjson.Fragment(cast(bytes, answer.value))
    return {"b64": base64.b64encode(cast(bytes, answer.value)).decode()}


def _raw(answers: list[Answer], headers: dict[str, str]) -> bytes:
    """The file itself; a tensor as NumPy's .npy."""
    first = answers[0]
    headers["content-type"] = first.media or "application/x-npy"
    if first.media:
        return cast(bytes, first.value)
    file = io.BytesIO()
    np.save(file, first.value, allow_pickle=False)
    return file.getvalue()
