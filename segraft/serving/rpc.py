"""KServe's gRPC server with our limits: an address, a message size, refusals that say why, and no load or unload."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from grpc import StatusCode, aio, stream_unary_rpc_method_handler  # type: ignore[import-untyped]
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
from segraft.serving.guard import GONE, LINGER, Door
from segraft.serving.logs import FIELDS

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
SMALL, ASKING = 1 << 12, 4
"""Bytes of a message that names at most a model, and how many such are read at once."""
COPIES = 3
"""Times its size that a message may take: as it came, in its parsed form, and as the bytes that Python reads."""
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
        self._reading = asyncio.Semaphore(door.bodies.limit // (COPIES * door.message))
        self._asking = asyncio.Semaphore(ASKING)  # apart: whether the server lives is asked while it reads images

    async def RepositoryModelLoad(self, request: Any, context: Any) -> None:
        """Off: anyone could call it."""
        raise Refused(501, "loading models is off")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> None:
        """Off: anyone could call it."""
        raise Refused(501, "unloading models is off")

    async def ModelInfer(self, _: Any, context: Any) -> Any:
        """Answer a prediction within the client's deadline; see `Unread`."""
        given = dict(context.invocation_metadata() or ())
        call = Call(request_id(given.get("x-request-id")), "grpc")
        remaining, started, status = context.time_remaining(), time.perf_counter(), 200
        if remaining is not None:
            call.give(remaining)
        current.set(call)
        try:
            with self._door.bodies.entered() as take:
                message = await self._read(context, take, self._reading, self._door.limits.body)
                return await super().ModelInfer(message, context)
        except Refused as refused:
            status = refused.status
            raise
        except BaseException as error:
            status = GONE if not isinstance(error, Exception) else _status(error)
            raise
        finally:  # not earlier: KServe reads this metadata as if the client had sent it
            context.set_trailing_metadata((("x-request-id", call.id), ("x-segraft-model", self._door.stamp)))
            _report(call, status, time.perf_counter() - started)

    async def _read(self, context: Any, take: Callable[[int], None], turns: asyncio.Semaphore, seconds: float) -> Any:
        """The call's message. So many are read at once as fit into memory at their largest; the others wait unread."""
        try:
            async with asyncio.timeout(seconds) as timer, turns:
                timer.reschedule(asyncio.get_running_loop().time() + seconds)  # its turn has come
                message = await context.read()  # `async for` would leave it to a generator that lives on
        except TimeoutError:
            raise Refused(408, f"message: not read within {seconds:g} s") from None
        if message is aio.EOF:
            raise Refused(400, "message: none")
        take(COPIES * message.ByteSize())
        return message

    async def brief(self, answer: Callable[[Any, Any], Awaitable[Any]], context: Any) -> Any:
        """What a method that is no prediction answers to a message that only names something."""
        with self._door.bodies.entered() as take:
            message = await self._read(context, take, self._asking, LINGER)
            if message.ByteSize() > SMALL:
                raise Refused(413, f"message: more than {SMALL} bytes")
            return await answer(message, context)


class Unread(aio.ServerInterceptor):  # type: ignore[misc]
    """Lets the servicer say when a call's message is read.

    gRPC has a call's only message in memory before it asks anybody, but the messages of a stream when they are asked
    for. On the wire one message and a stream of one are the same.
    """

    def __init__(self, servicer: Servicer) -> None:
        self._servicer = servicer

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None

        async def brief(_: Any, context: Any) -> Any:
            return await self._servicer.brief(handler.unary_unary, context)

        predicts = handler_call_details.method.endswith("/ModelInfer")
        return stream_unary_rpc_method_handler(
            handler.unary_unary if predicts else brief, handler.request_deserializer, handler.response_serializer
        )


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
        ex.__traceback__ = None  # its frames hold the message, which would live until the garbage is collected
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
        servicer = Servicer(plane, door)
        self._server = aio.server(
            interceptors=(Refusals(), Unread(servicer)),
            options=[
                ("grpc.max_receive_message_length", door.message),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.bdp_probe", 0),  # with it, what nobody reads yet may grow to 4 MiB a call
            ],
            maximum_concurrent_rpcs=2 * settings.queue,  # those that are answered, and as many that wait to be read
        )
        rpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
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
