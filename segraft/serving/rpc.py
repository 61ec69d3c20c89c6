"""KServe's gRPC server with our limits: an address, a message size, refusals that say why, and no load or unload."""

from __future__ import annotations

import logging
import time
from typing import Any, NoReturn

from grpc import StatusCode, aio  # type: ignore[import-untyped]
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as rpc
from kserve.protocol.grpc.servicer import InferenceServicer

from segraft.errors import UserError
from segraft.params import Serve
from segraft.serving import metrics
from segraft.serving.call import Call, current, request_id
from segraft.serving.errors import Refused
from segraft.serving.guard import BODIES, GONE, Door
from segraft.serving.logs import FIELDS

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
logger = logging.getLogger("segraft.serving")


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer, without the control of models, and with a log line a prediction.

    Args:
        plane: KServe's way to the model.
        door: shared with the REST server.
    """

    def __init__(self, plane: DataPlane, door: Door) -> None:
        super().__init__(plane, None)
        self._door = door

    async def RepositoryModelLoad(self, request: Any, context: Any) -> None:
        """Off: anyone could call it."""
        raise Refused(501, "loading models is off")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> None:
        """Off: anyone could call it."""
        raise Refused(501, "unloading models is off")

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Answer a prediction within the client's deadline."""
        given = dict(context.invocation_metadata() or ())
        call = Call(request_id(given.get("x-request-id")), "grpc")
        remaining, started, status = context.time_remaining(), time.perf_counter(), 200
        if remaining is not None:
            call.give(remaining)
        current.set(call)
        try:
            with self._door.room() as take:
                take(request.ByteSize())
                return await super().ModelInfer(request, context)
        except Refused as refused:
            status = refused.status
            raise
        except BaseException as error:
            status = GONE if not isinstance(error, Exception) else _status(error)
            raise
        finally:  # not earlier: KServe reads this metadata as if the client had sent it
            context.set_trailing_metadata((("x-request-id", call.id), ("x-segraft-model", self._door.stamp)))
            _report(call, status, time.perf_counter() - started)


class Refusals(AsyncExceptionToStatusInterceptor):
    """Errors as gRPC statuses, with one sentence and no trace."""

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str
    ) -> NoReturn:
        """See grpc_interceptor."""
        status = _status(ex)
        if status == 500:
            logger.error("a request failed", exc_info=ex)
        message = "internal error" if status == 500 and not isinstance(ex, Refused) else _message(ex)
        await context.abort(CODES.get(status, StatusCode.INTERNAL), message)
        raise AssertionError("abort raises")


class GrpcServer:
    """The server.

    Args:
        settings: the section `serve`.
        plane: KServe's way to the model.
        door: shared with the REST server.
    """

    def __init__(self, settings: Serve, plane: DataPlane, door: Door) -> None:
        self._grace = settings.grace
        largest = settings.limits.body_mb << 20
        self._server = aio.server(
            interceptors=(Refusals(),),
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.queue + 16 * BODIES,
        )
        rpc.add_GRPCInferenceServiceServicer_to_server(Servicer(plane, door), self._server)
        address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise UserError(f"serve.grpc_port: {address}: cannot listen there; is another server running?") from None

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self) -> None:
        """Take no new calls, and end when those that were taken are answered."""
        await self._server.stop(self._grace)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _status(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    known = ((InvalidInput, 400), (ModelNotFound, 404), (ModelNotReady, 503), (NotImplementedError, 501))
    return next((status for kind, status in known if isinstance(error, kind)), 500)


def _message(error: Exception) -> str:
    return error.message if isinstance(error, Refused) else " ".join(str(error).split())[:500]


def _report(call: Call, status: int, seconds: float) -> None:
    metrics.REQUESTS.labels("grpc", str(status)).inc()
    metrics.LATENCY.labels("grpc").observe(seconds)
    for stage, took in call.stages.items():
        metrics.STAGE.labels(stage).observe(took)
    stages = {f"{stage}_ms": round(1000 * took, 2) for stage, took in call.stages.items()}
    fields = {"request_id": call.id, "protocol": "grpc", "route": "ModelInfer", "status": status}
    fields |= {"ms": round(1000 * seconds, 2), **stages, **call.facts}
    logger.info("request", extra={FIELDS: fields})
