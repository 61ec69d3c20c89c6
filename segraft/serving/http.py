"""uvicorn's HTTP protocol, with the bounds that it lacks: seconds and bytes of headers, pieces of a body.

And without other protocols: `Upgrade` is ignored, as RFC 9110, 7.8 allows. Java's client and `curl --http2` offer
HTTP/2 beside a body; llhttp ends such a request with its head, and would take what follows for the next one.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 1 << 16
PIECES = 1 << 16
"""Pieces (chunks, or packets) of one body; a flood of one-byte chunks costs a thousand times its size to parse."""

FRAMING = (b"content-length", b"transfer-encoding")


class PatientProtocol(HttpToolsProtocol):
    """A connection whose client gets so many seconds, and no more, to say what it wants, and to read on."""

    header_seconds = 10.0
    answer_seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._in_head, self._head, self._pieces = True, 0, 0
        self._framed_again = False
        self._timer: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_waiting()
        self._has_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: what is not read piles up."""
        super().pause_writing()
        self._reader = self.loop.call_later(self.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._has_read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._in_head:
            self._head += len(data)
            self._wait_for_headers()
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("not a valid HTTP request")
        if self._in_head and self._head > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"headers: more than {HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        if self._framed_again:
            self._framed_again = False
            return
        self._head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)  # ": " and CRLF
        if self._head > HEAD_BYTES:
            raise ValueError("large headers in one packet")  # ends in `send_400_response`
        self._stop_waiting()
        self._in_head, self._head, self._pieces = False, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        self._pieces += 1
        if self._pieces > PIECES:
            raise ValueError("too many chunks")  # ends in `send_400_response`
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        if self.parser.should_upgrade():  # it is not: see `_feed`
            return
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the bytes are no HTTP."""
        if self._head > HEAD_BYTES:
            self._refuse(431, f"headers: more than {HEAD_BYTES} bytes")
            return
        if self._pieces > PIECES:
            msg = f"body: more than {PIECES} chunks"
        self._refuse(400, msg)

    def _feed(self, data: bytes) -> None:
        """Parse; behind a head with `Upgrade` by a parser that knows nothing of the request but its body's length.

        Raises:
            HttpParserError: it is no HTTP.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            (at,) = upgrade.args
            framing = [name + b": " + value for name, value in self.headers if name in FRAMING]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self._framed_again = True
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))
            self._feed(data[at:])

    def _wait_for_headers(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _has_read(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _too_slow(self) -> None:
        self._timer = None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.is_closing():
            return
        if self._head:
            self._refuse(408, f"headers: not here after {self.header_seconds:g} s")
        self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = orjson.dumps({"error": message}) + b"\n"
            lines: dict[str, Any] = {
                "content-type": "application/json",
                "content-length": len(body),
                "x-request-id": uuid.uuid4().hex,
                "connection": "close",
            }
            head = "".join(f"{key}: {value}\r\n" for key, value in lines.items()).encode()
            self.transport.write(b"".join([STATUS_LINE[status], head, b"\r\n", body]))
        self.transport.close()
