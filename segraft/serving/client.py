"""A small client of a segraft server: an image file in, NumPy out.

    from segraft.serving.client import Client

    with Client("http://127.0.0.1:8080") as client:
        found = client.segment(open("photo.jpg", "rb").read(), confidence=True)
    found.mask, found.classes, found.confidence

It speaks KServe's V2 protocol with binary tensors. One client may be used by several threads.
"""

from __future__ import annotations

import json
import random
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

import httpx

from segraft.errors import UserError
from segraft.serving.found import Segmentation, outputs_for

JSON_LENGTH = "inference-header-content-length"
BUSY = (429, 503)
FAILED = (500, 504)
"""Of one image: the model failed on it, or it took too long; another one may fare better."""
NAME, VALUE = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII), re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""Of a header: RFC 9110, 5.1 and 5.5."""
RUBBISH = (ValueError, LookupError, TypeError, OSError, SyntaxError, struct.error)
"""What reading an answer raises that is not a segraft server's; Pillow's errors among them."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts, whatever the server asks for."""


class Unreachable(UserError):
    """No answer from a server: it is not there, not ours, too slow, or broken; another image would fare no better."""


class Client:
    """A server's clients' end.

    Args:
        url: of the server, with the path before `/v2` if there is one.
        model: its name there; "": the only one that the server has.
        timeout: seconds that one answer may take.
        retries: how often to ask again when the server is busy (429 or 503), after as long as its Retry-After says.
        headers: sent with every request: a bearer token, or the Host that an ingress expects.
    """

    parallel = 4
    """Requests at a time that make good use of a server, which forms batches of them."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        timeout: float = 120.0,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self._model, self._retries = url.rstrip("/"), model, retries
        if not self.url.startswith(("http://", "https://")):
            raise UserError(f"{url}: not an address of a server; expected http://HOST:PORT")
        for name, value in (headers or {}).items():
            if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
                raise UserError(
                    f"headers: {name!r}: {value!r}: not an HTTP header; expected a name without spaces, and text"
                )
        limits = httpx.Timeout(timeout, connect=min(10.0, timeout))
        try:
            self._http = httpx.Client(timeout=limits, headers=dict(headers or {}))
        except (ValueError, TypeError) as error:
            raise UserError(f"headers: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @cached_property
    def model(self) -> str:
        """Name of the model that answers.

        Raises:
            UserError: the server has several, and none was named.
            Unreachable: there is no such server.
        """
        if self._model:
            return self._model
        response = self._send("GET", "/v2/models")
        try:
            names = list(response.json()["models"])
        except (ValueError, LookupError, TypeError):
            raise Unreachable(f"{self.url}: not a KServe server: its /v2/models lists none") from None
        if len(names) != 1:
            raise UserError(f"{self.url}: has the models {', '.join(names) or '(none)'}; name one")
        return str(names[0])

    def segment(self, image: bytes, *, confidence: bool = False, overlay: float | None = None) -> Segmentation:
        """Segment one image.

        Args:
            image: a JPEG, PNG or WebP file.
            confidence: whether each pixel's confidence is wanted, too.
            overlay: opacity, 0 … 1, of the classes over the picture, if that is wanted.

        Raises:
            UserError: the server refuses the image, or fails on it; the message is the server's sentence.
            Unreachable: no answer.
        """
        started = time.perf_counter()
        parameters: dict[str, Any] = {"binary_data_output": True}
        if overlay is not None:
            parameters["alpha"] = overlay
        body, headers = _request(image, outputs_for(confidence, overlay is not None), parameters)
        response = self._send("POST", f"/v2/models/{self.model}/infer", content=body, headers=headers)
        try:
            stamp = response.headers.get("x-segraft-model", "")
            return Segmentation.of(dict(_files(response)), stamp, time.perf_counter() - started)
        except RUBBISH:
            raise Unreachable(f"{self.url}: answered, but not as a segraft server does") from None

    def _send(self, method: Literal["GET", "POST"], path: str, **what: Any) -> httpx.Response:
        """Ask until the server is not busy, or the retries are spent."""
        for left in range(self._retries, -1, -1):
            try:
                response = self._http.request(method, self.url + path, **what)
            except httpx.TimeoutException:
                raise Unreachable(f"{self.url}: no answer in time; is the server overloaded?") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unreachable(f"{self.url}: no server answers ({error}); start one: segraft serve MODEL") from None
            if response.status_code not in BUSY or not left:
                break
            time.sleep(_pause(response, self._retries - left))
        if response.is_success:
            return response
        sentence = _sentence(response)
        if response.status_code < 500 or (sentence and response.status_code in FAILED):
            raise UserError(sentence or _without_reason(response))
        raise Unreachable(f"{self.url}: {sentence or _without_reason(response)}")


def _request(image: bytes, outputs: Sequence[str], parameters: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """A V2 request whose one input is a file, in binary."""
    raw = struct.pack("<I", len(image)) + image
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    asked = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs], "parameters": dict(parameters)}
    head = json.dumps(asked).encode()
    return head + raw, {"content-type": "application/octet-stream", JSON_LENGTH: str(len(head))}


def _files(response: httpx.Response) -> Iterator[tuple[str, bytes]]:
    """Output name and file of each output of a binary V2 answer to one image."""
    length = int(response.headers[JSON_LENGTH])
    rest = memoryview(response.content)[length:]
    for output in json.loads(response.content[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        file, rest = rest[:size], rest[size:]
        if struct.unpack_from("<I", file) != (size - 4,) or len(file) != size:
            raise ValueError("sizes disagree")
        yield output["name"], bytes(file[4:])


def _pause(response: httpx.Response, attempt: int) -> float:
    """Seconds to wait: what the server says, else 0.5, 1, 2 …; spread, so that clients do not come back all at once."""
    try:
        wanted = float(response.headers.get("retry-after", ""))
    except ValueError:
        wanted = 0.5 * 2**attempt
    return min(LONGEST_WAIT, max(0.0, wanted)) * random.uniform(1.0, 1.25)


def _sentence(response: httpx.Response) -> str:
    """Why the server refused, in its own words; "" if it says nothing in our form."""
    try:
        return str(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        return ""


def _without_reason(response: httpx.Response) -> str:
    return f"HTTP {response.status_code} without a reason; is this a segraft server?"
