"""KServe's ModelServer around one model: bound where it is told, guarded, and drained before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import ModelServer
from kserve.errors import ModelNotFound, ModelNotReady, ServerNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException

from segraft.errors import UserError
from segraft.serving.guard import Door, Guard
from segraft.serving.http import PatientProtocol
from segraft.serving.logs import FIELDS
from segraft.serving.model import SegmentationModel
from segraft.serving.routes import KSERVE, own_routes
from segraft.serving.rpc import GrpcServer

SETTLE = 0.2
"""Seconds between closing the door and closing idle connections: a request that has arrived is read in that time."""
logger = logging.getLogger("segraft.serving")


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, in which "ready" means that every model answers and that the server is not about to stop."""

    def __init__(self, registry: Any, door: Door) -> None:
        super().__init__(registry)
        self._door = door

    async def ready(self) -> bool:
        """Whether new requests are welcome."""
        models = self.model_registry.get_models().values()
        return bool(models) and not self._door.draining and all([await model.healthy() for model in models])

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """The same of one model; a request that came in is answered while the server drains."""
        ready = await super().model_ready(model_name, disable_predictor_health_check)
        return bool(ready) and (disable_predictor_health_check or not self._door.draining)

    def metadata(self) -> dict[str, Any]:
        """Of the server; the model repository extension is off."""
        return dict(super().metadata()) | {"extensions": ["binary_tensor_data"]}


class RestServer(RESTServer):  # type: ignore[misc]
    """KServe's REST server behind the guard, which answers our routes itself.

    Args:
        model: the model.
        plane: the way to it.
        door: shared state.
    """

    def __init__(self, model: SegmentationModel, plane: Plane, door: Door) -> None:
        settings = model.settings
        super().__init__("", plane, None, settings.http_port, grace_period=int(settings.grace))
        self._model, self._door = model, door
        self.config.host, self.config.access_log = settings.host, False
        patience = {"header_seconds": settings.limits.header, "answer_seconds": settings.limits.body}
        self.config.http = type("Protocol", (PatientProtocol,), patience)
        self.config.ws, self.config.server_header = "none", False
        self._server.capture_signals = contextlib.nullcontext  # `Server` handles them, for gRPC too

    def create_application(self) -> None:
        """Make the app and put it behind the guard."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._register_endpoints(app)
        self._add_exception_handlers(app)
        _answer_in_one_form(app)
        self.config.app = Guard(app, self._door, [*own_routes(self._model, self.dataplane), *KSERVE])

    async def stop(self) -> None:
        """Close the door, let what has arrived be read, and end when it is answered."""
        for listener in self._server.servers:
            twins = [socket.socket(fileno=os.dup(listening.fileno())) for listening in listener.sockets]
            listener.close()
            for twin in twins:
                await self._accept_the_last(twin)
        await asyncio.sleep(SETTLE)
        self._server.should_exit = True

    async def _accept_the_last(self, listening: socket.socket) -> None:
        """Take over connections that the kernel has made but nobody accepted yet; closing would reset them."""
        connections = []
        listening.setblocking(False)
        with listening, contextlib.suppress(BlockingIOError):
            while True:
                connections.append(listening.accept()[0])
        for connection in connections:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    def _protocol(self) -> asyncio.Protocol:
        make = cast(Any, self.config.http_protocol_class)
        state, lifespan = self._server.server_state, self._server.lifespan
        return cast(asyncio.Protocol, make(config=self.config, server_state=state, app_state=lifespan.state))

    @property
    def server(self) -> uvicorn.Server:
        """The server of uvicorn."""
        return cast(uvicorn.Server, self._server)


class Server(ModelServer):  # type: ignore[misc]
    """Serves one loaded model until SIGTERM or SIGINT, then drains: not ready first, then closed, then idle.

    Args:
        model: it; `load` has been called.
    """

    def __init__(self, model: SegmentationModel) -> None:
        settings = model.settings
        super().__init__(http_port=settings.http_port, grpc_port=settings.grpc_port, enable_latency_logging=False)
        self._model, self._door = model, Door(settings.limits, str(model.stamp))
        self._drain = settings.drain
        self.dataplane = Plane(self.registered_models, self._door)
        self.rest = RestServer(model, self.dataplane, self._door)

    def run(self) -> None:
        """Serve; returns when all is answered."""
        self.register_model(self._model)
        _check_port(self._model.settings.host, self._model.settings.http_port)
        with asyncio.Runner(loop_factory=self.rest.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt, stopped)
        rpc = GrpcServer(self._model.settings, self.dataplane, self._door) if self._model.settings.grpc_port else None
        if rpc is not None:
            await rpc.start()
        serving = asyncio.create_task(self.rest.start())
        stopping = asyncio.create_task(self._stop(stopped, rpc))
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await serving
        stopping.cancel() if not stopped.is_set() else await stopping
        self._model.stop()
        logger.info("stopped")

    def _interrupt(self, stopped: asyncio.Event) -> None:
        """Someone at a terminal, with no load balancer to wait for."""
        self._drain = 0.0
        stopped.set()

    async def _stop(self, stopped: asyncio.Event, rpc: GrpcServer | None) -> None:
        while not self.rest.server.started:
            await asyncio.sleep(0.01)
        port = self.rest.server.servers[0].sockets[0].getsockname()[1]
        ports = {"http_port": port, "grpc_port": rpc.port if rpc else 0}
        logger.info("ready", extra={FIELDS: {"host": self._model.settings.host, **ports, "model": self._door.stamp}})
        await stopped.wait()
        self._door.draining = True
        logger.info("draining", extra={FIELDS: {"seconds": self._drain}})
        await asyncio.sleep(self._drain)
        await asyncio.gather(self.rest.stop(), *([rpc.stop()] if rpc else []))


def _check_port(host: str, port: int) -> None:
    """Uvicorn would end the process with a trace."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
    except OSError as error:
        raise UserError(
            f"serve.http_port: {host}:{port}: cannot listen there ({error.strerror}); is another server running?"
        ) from None


def _answer_in_one_form(app: FastAPI) -> None:
    """Errors that KServe and FastAPI would word in their own ways, as the guard words them."""

    async def http(_: Any, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    async def invalid(_: Any, __: Exception) -> JSONResponse:
        return JSONResponse({"error": "the request is not valid"}, 400)

    async def not_found(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)

    async def not_ready(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})

    app.add_exception_handler(HTTPException, http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ModelNotFound, not_found)
    app.add_exception_handler(ModelNotReady, not_ready)
    app.add_exception_handler(ServerNotReady, not_ready)
