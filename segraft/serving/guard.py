"""The door of the REST server: an ASGI layer before KServe's app that keeps every promise that does not need a model.

It knows the routes, reads the body within its limits of size and time, gives the request its id and deadline, cancels
the work when the client has gone, turns every error into one JSON line, and writes log, metrics and trace. What has a
handler of ours is answered by it; FastAPI, which would take longer than a small image's copy, only sees the rest.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response

from segraft.params import ServeLimits
from segraft.serving import metrics, tracing
from segraft.serving.call import Call, current, request_id
from segraft.serving.errors import Refused
from segraft.serving.logs import FIELDS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
LINGER = 5.0
"""Seconds in which what a refused client still sends is read and dropped; closing at once would reset its connection
before it has read why."""
GONE = 499
"""The status, in logs alone, of a client that left."""
BODIES, ANSWERS = 4, 2
"""Bodies and answers of the largest size that may be in memory at once; smaller ones in proportion."""
PIECE = 1 << 18
"""Bytes of an answer that are handed to the connection at a time; the next when the client has read them."""
logger = logging.getLogger("segraft.serving")


@dataclass(frozen=True)
class Received:
    """A request, whole.

    Attributes:
        params: of the path.
        query: of the URL.
        headers: by their names in lower case.
        body: all of it.
    """

    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Known:
    """A path that the server answers, as in `segraft.serving.routes`.

    Attributes:
        method: GET or POST.
        path: with {name} for what may be there.
        handler: answers it; None: the app does.
    """

    method: str
    path: str
    handler: Callable[[Received], Awaitable[Response]] | None = None

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches the paths."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(self.path)))


class Gone(Exception):
    """The client closed the connection."""


@dataclass
class Room:
    """Bytes that may be in memory at once; what comes alone always fits.

    Attributes:
        limit: how many.
        full: what there is too much of when no more fit, for who is turned away.
        held: how many there are.
    """

    limit: int
    full: str
    held: int = 0

    @contextmanager
    def entered(self) -> Iterator[Callable[[int], None]]:
        """Gives a function that takes room for so many more bytes; all are given back when the block ends.

        Raises:
            Refused: by that function, when there is none.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.held and self.held + size > self.limit:
                raise Refused(503, f"busy: too many large {self.full}; try again later", 1)
            taken += size
            self.held += size

        try:
            yield take
        finally:
            self.held -= taken


@dataclass
class Door:
    """What the whole server shares.

    Attributes:
        limits: what is accepted.
        stamp: the header X-Segraft-Model.
        draining: whether the server is about to stop.
        bodies: of whatever protocol.
        answers: those larger than a piece that clients have not read to the end.
    """

    limits: ServeLimits
    stamp: str
    draining: bool = False
    bodies: Room = field(init=False)
    answers: Room = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = Room(BODIES * (self.limits.body_mb << 20), "requests at once")
        self.answers = Room(ANSWERS * (self.limits.answer_mb << 20), "answers wait to be read")

    @property
    def message(self) -> int:
        """Bytes of the largest gRPC message."""
        return min(self.limits.message_mb, self.limits.body_mb) << 20


class Guard:
    """The ASGI layer.

    Args:
        app: what is guarded.
        door: shared state.
        routes: all that is answered; the first whose path matches counts.
    """

    def __init__(self, app: App, door: Door, routes: Sequence[Known]) -> None:
        self._app, self._door = app, door
        self._routes = [(route.pattern, route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        call = _call(scope, headers)
        reply = _Reply(send, call, self._door, read=not _announces_body(headers))
        token, started = current.set(call), time.perf_counter()
        route = "none"
        try:
            known, params = self._route(scope)
            route = known.path
            with self._door.bodies.entered() as take:
                body = b""
                if known.method == "POST":
                    body = await self._body(headers, receive, take)
                    reply.read = True
                if known.handler is None:
                    work = self._by_app({**scope, "method": known.method}, body, reply)
                else:
                    work = _by_us(known.handler, Received(params, call.query, headers, body), scope, reply)
                await _while_there(work, receive)
        except Gone:
            reply.status = GONE
        except Refused as refused:
            waits = "100-continue" in headers.get("expect", "")
            await reply.refuse(refused, None if waits else receive)
        except asyncio.CancelledError:  # `grace` is over; raised again, uvicorn would log it as a failure of ours
            await reply.refuse(Refused(503, "the server stops; try again", 1))
        except Exception:
            logger.exception("a request failed", extra={FIELDS: {"request_id": call.id}})
            await reply.refuse(Refused(500, "internal error"), receive)
        finally:
            reply.close()
            current.reset(token)
            _report(call, scope, headers, route, reply.status, time.perf_counter() - started)

    def _route(self, scope: Scope) -> tuple[Known, dict[str, str]]:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # uvicorn leaves the body out
        allowed = ""
        for pattern, route in self._routes:
            if match := pattern.fullmatch(scope["path"]):
                if route.method == method:
                    return route, match.groupdict()
                allowed = allowed or ("GET, HEAD" if route.method == "GET" else route.method)
        if allowed:
            raise Refused(405, f"method: {scope['method'][:20]}: this path takes {allowed}", allow=allowed)
        raise Refused(404, "no such path")

    async def _body(self, headers: dict[str, str], receive: Receive, take: Callable[[int], None]) -> bytes:
        limit = self._door.limits.body_mb << 20
        if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise Refused(415, "Content-Encoding: send the body as it is, uncompressed")
        if any(name.startswith("ce-") for name in headers):
            raise Refused(415, "CloudEvents are not accepted; send the request itself")
        if int(headers.get("content-length") or 0) > limit:
            raise Refused(413, f"body: more than {self._door.limits.body_mb} MiB")
        pieces: list[bytes] = []
        taken = 0
        try:
            async with asyncio.timeout(self._door.limits.body) as timer:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    piece = message.get("body", b"")
                    taken += len(piece)
                    take(len(piece))
                    if taken > limit:
                        raise Refused(413, f"body: more than {self._door.limits.body_mb} MiB")
                    pieces.append(piece)
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            if not timer.expired():
                raise
            raise Refused(408, f"body: not here after {self._door.limits.body:g} s") from None

    async def _by_app(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def replay() -> Message:
            return next(messages, None) or await never

        await self._app(scope, replay, reply)


class _Reply:
    """`send`, with our headers added; and the one form in which errors leave."""

    def __init__(self, send: Send, call: Call, door: Door, read: bool) -> None:
        self._send, self._call, self._door = send, call, door
        self.status, self.read, self._room = 0, read, ExitStack()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if (size := int(dict(message.get("headers", [])).get(b"content-length", 0))) > PIECE:
                self._room.enter_context(self._door.answers.entered())(size)
            self.status = message["status"]
            own = {"x-request-id": self._call.id, "x-segraft-model": self._door.stamp}
            own["server-timing"] = self._call.server_timing
            if self._door.draining or not self.read:
                own["connection"] = "close"
            added = [(key.encode(), value.encode()) for key, value in own.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        body = message.get("body", b"")
        while len(body) > PIECE:
            await self._send({**message, "body": bytes(body[:PIECE]), "more_body": True})
            body = memoryview(body)[PIECE:]
            message = {**message, "body": body}
        await self._send(message)

    def close(self) -> None:
        """Give back the room that the answer took."""
        self._room.close()

    async def refuse(self, refused: Refused, receive: Receive | None = None) -> None:
        """Send an error; then read on for a while, so that a client that still sends gets to read it.

        Args:
            refused: the error.
            receive: the request's; None: nothing more is read, as when the client waits for a "100 Continue".
        """
        if self.status:  # the answer has begun: nothing can be said any more
            return
        body = orjson.dumps({"error": refused.message}) + b"\n"
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refused.retry_after is not None:
            headers.append((b"retry-after", str(max(1, round(refused.retry_after))).encode()))
        if refused.allow:
            headers.append((b"allow", refused.allow.encode()))
        await self({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if receive is not None and not self.read:
            await _drop(receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _announces_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


async def _by_us(
    handler: Callable[[Received], Awaitable[Response]], request: Received, scope: Scope, reply: _Reply
) -> None:
    response = await handler(request)
    await response(scope, _nothing, reply)


async def _nothing() -> Message:
    """What a response may receive: it only sends."""
    return {"type": "http.disconnect"}


async def _while_there(job: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do a job; cancel it when the client goes."""
    work, gone = asyncio.ensure_future(job), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Gone
        await work
    finally:
        for task in (work, gone):
            task.cancel()


async def _drop(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    except TimeoutError:
        pass


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _call(scope: Scope, headers: dict[str, str]) -> Call:
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")[:4096], keep_blank_values=True))
    call = Call(request_id(headers.get("x-request-id")), query=query)
    expected = headers.get("x-envoy-expected-rq-timeout-ms", "")
    if expected.isascii() and expected.isdigit():
        call.give(int(expected[:9]) / 1000)
    return call


def _report(call: Call, scope: Scope, headers: dict[str, str], route: str, status: int, seconds: float) -> None:
    metrics.REQUESTS.labels(call.protocol, str(status)).inc()
    metrics.LATENCY.labels(call.protocol).observe(seconds)
    for stage, took in call.stages.items():
        metrics.STAGE.labels(stage).observe(took)
    tracing.record(call, f"{scope['method']} {route}", headers, status, seconds)
    quiet = status < 400 and scope["method"] == "GET"
    stages = {f"{stage}_ms": round(1000 * took, 2) for stage, took in call.stages.items()}
    fields = {"request_id": call.id, "protocol": call.protocol, "method": scope["method"], "route": route}
    fields |= {"status": status, "ms": round(1000 * seconds, 2), **stages, **call.facts}
    logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={FIELDS: fields})
