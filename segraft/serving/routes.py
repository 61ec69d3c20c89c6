"""Everything that the REST server answers: what KServe's app does, and what our handlers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kserve.errors import ModelNotFound
from kserve.protocol.dataplane import DataPlane
from starlette.responses import HTMLResponse, JSONResponse, Response

from segraft.params import ServeLimits
from segraft.serving.errors import Refused
from segraft.serving.guard import Known, Received
from segraft.serving.model import SegmentationModel
from segraft.serving.playground import render
from segraft.serving.playground.sample import SCENES, scene
from segraft.serving.v2 import JSON_LENGTH, SMALL, is_large, json_end, read_request, write_response

T = TypeVar("T")

KSERVE = (
    Known("GET", "/metrics"),
    Known("GET", "/v1/models"),
    Known("GET", "/v1/models/{model_name}"),
    Known("GET", "/v2"),
    Known("GET", "/v2/health/live"),
    Known("GET", "/v2/health/ready"),
    Known("GET", "/v2/models"),
    Known("GET", "/v2/models/{model_name}"),
    Known("GET", "/v2/models/{model_name}/ready"),
)
"""What KServe answers itself. Not here, and so 404: loading and unloading models, explain, versions, docs, OpenAPI."""


def own_routes(model: SegmentationModel, plane: DataPlane) -> list[Known]:
    """The routes of ours for one model.

    Args:
        model: it.
        plane: KServe's way to it.
    """
    limits = model.settings.limits
    page = render(model.card, model.settings, str(model.stamp))

    async def home(request: Received) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page.body, headers=page.headers)
        return JSONResponse(await plane.live(), headers={"vary": "accept"})

    async def alone(request: Received) -> Response:
        return await _v1(plane, model.name, request)

    async def v1(request: Received) -> Response:
        return await _v1(plane, request.params["model_name"], request)

    async def v2(request: Received) -> Response:
        return await _v2(plane, limits, request.params["model_name"], request)

    async def sample(request: Received) -> Response:
        number = request.query.get("n", "0")
        if not number.isascii() or not number.isdigit() or len(number) > 4:
            raise Refused(400, f"query.n: {number[:20]!r}: expected a number")
        return Response(await asyncio.to_thread(scene, int(number) % len(SCENES)), media_type="image/jpeg")

    async def drift(_: Received) -> Response:
        return JSONResponse(await asyncio.to_thread(model.engine_.monitor.drift))

    return [
        Known("GET", "/", home),
        Known("POST", "/predict", alone),
        Known("POST", "/v1/models/{model_name}:predict", v1),
        Known("POST", "/v2/models/{model_name}/infer", v2),
        Known("GET", "/drift", drift),
        Known("GET", "/sample", sample),
    ]


async def _v1(plane: DataPlane, name: str, request: Received) -> Response:
    """A V1 document or an image file; parsing is the model's, for it knows the limits."""
    await _check_ready(plane, name)
    answer, headers = await plane.infer(name, request.body, dict(request.headers))
    return Response(answer, headers=headers)


async def _v2(plane: DataPlane, limits: ServeLimits, name: str, request: Received) -> Response:
    await _check_ready(plane, name)
    end = json_end(request.headers.get(JSON_LENGTH), len(request.body))
    asked = await _aside(end > SMALL, partial(read_request, request.body, end, name, limits))
    answer, _ = await plane.infer(name, asked, dict(request.headers))
    content, headers = await _aside(is_large(answer, asked), partial(write_response, answer, asked))
    return Response(content, headers=headers)


async def _aside(large: bool, job: Callable[[], T]) -> T:
    """Do small work at once, and large work in a thread, so that the event loop goes on."""
    return await asyncio.to_thread(job) if large else job()


async def _check_ready(plane: DataPlane, name: str) -> None:
    try:
        ready = await plane.model_ready(name, True)
    except ModelNotFound as error:
        raise Refused(404, str(error)) from None
    if not ready:
        raise Refused(503, f"Model with name {name} is not ready.", 1)
