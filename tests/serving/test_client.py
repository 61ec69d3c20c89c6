"""The Python client against a real server, and against one that is busy, broken or not there."""

import json
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from segraft.errors import UserError
from segraft.serving.client import Client, Unreachable
from tests.ports import free_port
from tests.serving.bodies import JSON_LENGTH, encoded, ids_of, png
from tests.serving.launch import CLASSES


def test_an_image_becomes_mask_classes_and_confidence(server, expected):
    with Client(server.url) as client:
        found = client.segment(png("odd"), confidence=True, overlay=0.25)
    np.testing.assert_array_equal(found.mask, expected["odd"])
    assert found.mask.dtype == np.uint8 and found.mask.shape == (45, 71)
    assert [(c.id, c.name, c.color) for c in found.classes] == [(i, *kv) for i, kv in enumerate(CLASSES.items())]
    assert [c.pixels for c in found.classes] == np.bincount(expected["odd"].ravel(), minlength=4).tolist()
    assert sum(c.share for c in found.classes) == pytest.approx(1)
    logits = expected["odd.logits"]
    softmax = 1 / np.exp(logits - logits.max(0)).sum(0)
    np.testing.assert_allclose(found.confidence, softmax, atol=0.5 / 255 + 0.01)
    np.testing.assert_array_equal(ids_of(found.mask_png), found.mask)
    assert found.overlay_png.startswith(b"\x89PNG")
    assert found.model == server.model and found.seconds > 0


def test_what_is_not_asked_for_is_not_there(server):
    found = Client(server.url + "/").segment(encoded("small", "JPEG"))
    assert found.confidence is None and found.overlay_png is None


@pytest.mark.parametrize(("image", "sentence"), [(b"hello", "not an image"), (b"", "empty"), (b"GIF89a", "GIF is not")])
def test_a_refusal_is_the_server_s_own_sentence(server, image, sentence):
    with pytest.raises(UserError, match=f"^image: .*{sentence}"):
        Client(server.url).segment(image)


def test_an_unknown_model_is_named(server):
    with pytest.raises(UserError, match="other"):
        Client(server.url, model="other").segment(png("small"))


def test_several_threads_share_a_client(server, expected):
    with Client(server.url) as client:
        masks: list[np.ndarray] = []
        ask = [threading.Thread(target=lambda: masks.append(client.segment(png("small")).mask)) for _ in range(6)]
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
    assert len(masks) == 6 and all(np.array_equal(mask, expected["small"]) for mask in masks)


@contextmanager
def answering(answer: Callable[[int], tuple[int, dict[str, str], bytes]]):
    """An HTTP server on loopback whose n-th request gets `answer(n)`; yields its URL and the times of the requests."""
    times: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            times.append(time.monotonic())
            status, headers, body = answer(len(times))
            self.send_response(status)
            for key, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", times
    finally:
        http.shutdown()
        http.server_close()


def error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_said(status):
    with answering(lambda n: (status, {"retry-after": "1"}, error("busy")) if n == 1 else (400, {}, error("no"))) as (
        url,
        times,
    ):
        with pytest.raises(UserError, match=r"^no$"):
            Client(url, model="m").segment(b"x")
    assert len(times) == 2 and 1 <= times[1] - times[0] < 2


def test_a_server_that_stays_busy_is_left_alone_in_the_end():
    with answering(lambda _: (503, {"retry-after": "0"}, error("busy: 64 requests"))) as (url, times):
        with pytest.raises(Unreachable, match="busy: 64 requests"):
            Client(url, model="m", retries=2).segment(b"x")
    assert len(times) == 3


@pytest.mark.parametrize("status", [400, 500, 504])
def test_other_errors_are_not_asked_again(status):
    with answering(lambda _: (status, {}, error("why"))) as (url, times):
        with pytest.raises(UserError, match="why"):
            Client(url, model="m").segment(b"x")
    assert len(times) == 1


@pytest.mark.parametrize(
    ("status", "body", "other_images_may_fare_better"),
    [
        (500, error("x"), True),
        (504, error("x"), True),
        (500, b"<html>", False),
        (502, error("x"), False),
        (503, error("x"), False),
    ],
)
def test_a_failure_of_one_image_is_told_from_one_of_the_server(status, body, other_images_may_fare_better):
    with answering(lambda _: (status, {"retry-after": "0"}, body)) as (url, _):
        with pytest.raises(UserError) as caught:
            Client(url, model="m", retries=1).segment(b"x")
    assert isinstance(caught.value, Unreachable) != other_images_may_fare_better


def binary_answer(**files: bytes) -> tuple[int, dict[str, str], bytes]:
    raw = [struct.pack("<I", len(file)) + file for file in files.values()]
    outputs = [
        {"name": name, "parameters": {"binary_data_size": len(part)}} for name, part in zip(files, raw, strict=True)
    ]
    head = json.dumps({"outputs": outputs}).encode()
    return 200, {JSON_LENGTH: str(len(head))}, b"".join([head, *raw])


@pytest.mark.parametrize(
    "files",
    [
        {"other": b"x"},
        {"mask": b"x", "area": b"{}"},
        {"mask": png("small"), "area": b"[]"},
        {"mask": png("small")[:-99]},
    ],
)
def test_answers_that_are_not_ours_are_told_from_ours(files):
    with answering(lambda _: binary_answer(**files)) as (url, _):
        with pytest.raises(Unreachable, match="not as a segraft server does"):
            Client(url, model="m").segment(b"x")


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("a b", "x"), ("a", "x\r\nb: c"), ("a:", "x")])
def test_a_header_that_is_none_is_named(name, value):
    with pytest.raises(UserError, match="not an HTTP header"):
        Client("http://127.0.0.1:1", headers={name: value})


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"models": 3}', b"[]"])
def test_some_other_server_is_told_from_ours(body):
    with answering(lambda _: (200, {}, body)) as (url, _):
        with pytest.raises(Unreachable, match="not a KServe server"):
            Client(url).segment(b"x")
        with pytest.raises(Unreachable, match="not as a segraft server does"):
            Client(url, model="m").segment(b"x")


def test_headers_are_sent_and_a_prefix_is_kept():
    seen = []
    with (
        answering(lambda _: (404, {}, b"not found")) as (url, _),
        Client(url + "/a/", headers={"X-Token": "t"}) as client,
    ):
        client._http.event_hooks["request"].append(lambda request: seen.append(request))
        with pytest.raises(UserError, match="HTTP 404 without a reason"):
            _ = client.model
    assert seen[0].url.path == "/a/v2/models" and seen[0].headers["x-token"] == "t"


def test_nobody_there_says_how_to_start_one():
    with pytest.raises(Unreachable, match=r"no server answers.*segraft serve"):
        Client(f"http://127.0.0.1:{free_port()}").segment(b"x")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", ""])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match="expected http://HOST:PORT"):
        Client(url)


def test_a_slow_server_is_not_waited_for():
    with answering(lambda _: time.sleep(1) or (200, {}, b"")) as (url, _):
        with pytest.raises(Unreachable, match="no answer in time"):
            Client(url, model="m", timeout=0.2).segment(b"x")
