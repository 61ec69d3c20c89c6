"""Everything that the REST server answers: KServe's own paths that are let through, and ours, which go before them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from kserve.errors import ModelNotReady
from kserve.protocol.dataplane import DataPlane

from segraft.params import ServeLimits
from segraft.serving.guard import Known
from segraft.serving.model import SegmentationModel
from segraft.serving.playground import render
from segraft.serving.v2 import JSON_LENGTH, SMALL, is_large, json_end, read_request, write_response

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route(Known):
    """A path of ours and the function that answers it."""

    handler: Handler


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


def own_routes(model: SegmentationModel, plane: DataPlane) -> list[Route]:
    """The routes of ours for one model.

    Args:
        model: it.
        plane: KServe's way to it.
    """
    limits = model.settings.limits
    page = render(model.card, model.settings, str(model.stamp))

    async def home(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page.body, headers=page.headers)
        return JSONResponse(await plane.live(), headers={"vary": "accept"})

    async def alone(request: Request) -> Response:
        return await _v1(plane, model.name, request)

    async def v1(request: Request) -> Response:
        return await _v1(plane, request.path_params["model_name"], request)

    async def v2(request: Request) -> Response:
        return await _v2(plane, limits, request.path_params["model_name"], request)

    async def drift(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(model.engine_.monitor.drift))

    return [
        Route("GET", "/", home),
        Route("POST", "/predict", alone),
        Route("POST", "/v1/models/{model_name}:predict", v1),
        Route("POST", "/v2/models/{model_name}/infer", v2),
        Route("GET", "/drift", drift),
    ]


def register(app: FastAPI, routes: list[Route]) -> None:
    """Add our routes to KServe's app, before its own."""
    for route in routes:
        app.add_api_route(route.path, _typed(route.handler), methods=[route.method], include_in_schema=False)


async def _v1(plane: DataPlane, name: str, request: Request) -> Response:
    """A V1 document or an image file; parsing is the model's, for it knows the limits."""
    await _check_ready(plane, name)
    body = await request.body()
    answer, headers = await plane.infer(name, body, dict(request.headers))
    return Response(answer, headers=headers)


async def _v2(plane: DataPlane, limits: ServeLimits, name: str, request: Request) -> Response:
    await _check_ready(plane, name)
    body = await request.body()
    end = json_end(request.headers.get(JSON_LENGTH), len(body))
    asked = await _aside(end > SMALL, partial(read_request, body, end, name, limits))
    answer, _ = await plane.infer(name, asked, dict(request.headers))
    content, headers = await _aside(is_large(answer, asked), partial(write_response, answer, asked))
    return Response(content, headers=headers)


async def _aside(large: bool, job: Callable[[], T]) -> T:
    """Do small work at once, and large work in a thread, so that the event loop goes on."""
    return await asyncio.to_thread(job) if large else job()


async def _check_ready(plane: DataPlane, name: str) -> None:
    if not await plane.model_ready(name, True):
        raise ModelNotReady(name)


def _typed(handler: Handler) -> Callable[..., Any]:
    """FastAPI reads annotations from the function's own module; these are always the same two."""

    async def endpoint(request: Request) -> Response:
        return await handler(request)

    endpoint.__annotations__ = {"request": Request, "return": Response}
    return endpoint
